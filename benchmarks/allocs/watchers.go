package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// ownRate is the runtime's default.
const ownRate = 512 << 10

// How long a profiler has to attach before its window. It is short, for virtual machines change their speed.
const (
	lead         = 500 * time.Millisecond
	bpftraceLead = 1500 * time.Millisecond
)

// coarse is how many pairs there are for each of a watcher whose effect needs no precision.
const coarse = 4

// watcher is a profiler that the target is measured under.
type watcher struct {
	name string
	goal bool // the project's goals are for it
	rate int  // of the target's own memory profile meanwhile
	lead time.Duration
	rare bool // see coarse
	long bool // its window is bench.long, for what it does changes from second to second
	// command profiles the target until it gets SIGINT; nil: the target's own profile is all.
	command func(b *bench, t *target) []string
	// worked says whether what the command has printed and written shows that it did what it was to do. It may return what
	// else is to be reported.
	worked func(b *bench, output string) ([]board.Value, error)
}

// The names of pprofd's probes: as they are by default, where they come and go to stay within their budget, and all the time.
const (
	probe  = "probe"
	always = "probe-always"
)

// available are the watchers that this pprofd has.
func (b *bench) available(ctx context.Context) ([]watcher, error) {
	help, err := board.Command(ctx, b.path("pprofd"), "record", "--help")
	if err != nil {
		return nil, err
	}
	list := []watcher{
		{name: "own", rate: ownRate},
		{name: "own+read", goal: true, rate: ownRate, lead: lead, command: record("--alloc-source", "read"), worked: profiled},
		{name: always, lead: lead, command: record("--alloc-source", "probe", "--alloc-budget", "0"), worked: profiled},
		{name: probe, goal: true, lead: lead, rare: true, long: true, command: record("--alloc-source", "probe"), worked: profiled},
		{name: "mallocgc", lead: bpftraceLead, rare: true, command: bpftrace, worked: counted},
	}
	if !strings.Contains(help, "--alloc-budget") {
		return nil, errors.New("this pprofd has no --alloc-budget")
	}
	if b.only == "" {
		return list, nil
	}
	only := strings.Split(b.only, ",")
	list = slices.DeleteFunc(list, func(w watcher) bool { return !slices.Contains(only, w.name) })
	if len(list) != len(only) {
		return nil, fmt.Errorf("-only %s: there is no such profiler, or it is named twice", b.only)
	}
	return list, nil
}

func (b *bench) profile() string { return b.path("allocs.pb.gz") }

func record(flags ...string) func(*bench, *target) []string {
	return func(b *bench, t *target) []string {
		return append([]string{b.path("pprofd"), "record", "-t", "allocs", "-d", "1h", "-p", fmt.Sprint(t.pid()), "-o", b.profile()}, flags...)
	}
}

// partly is what a profile says of probes that were not there all the time.
var partly = regexp.MustCompile(`random slots that make up ([0-9.]+) of ([0-9.]+) s`)

// profiled: the profile knows of allocations, and tells for how much of the time there were probes.
func profiled(b *bench, _ string) ([]board.Value, error) {
	f, err := os.Open(b.profile())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return nil, err
	}
	var bytes int64
	for _, s := range p.Sample {
		bytes += s.Value[1]
	}
	if bytes < 1<<20 {
		return nil, fmt.Errorf("the profile knows of %d allocated bytes", bytes)
	}
	share := 1.0
	if m := partly.FindStringSubmatch(strings.Join(p.Comments, "\n")); m != nil {
		var on, all float64
		if _, err := fmt.Sscan(m[1], &on); err != nil {
			return nil, err
		}
		if _, err := fmt.Sscan(m[2], &all); err != nil {
			return nil, err
		}
		share = on / max(all, 0.1)
	}
	return []board.Value{{V: share, Unit: "probed"}}, nil
}

// bpftrace counts calls of mallocgc at its first instruction, as one would do without further thought.
func bpftrace(b *bench, t *target) []string {
	return []string{"bpftrace", "-p", fmt.Sprint(t.pid()), "-e", fmt.Sprintf("uprobe:%s:runtime.mallocgc { @ = count(); }", filepath.Clean(b.path("allocload")))}
}

func counted(_ *bench, output string) ([]board.Value, error) {
	if !regexp.MustCompile(`@: [1-9]`).MatchString(output) {
		return nil, fmt.Errorf("no calls of mallocgc were counted: %s", output)
	}
	return nil, nil
}

// during measures a window with a watcher.
func (b *bench) during(ctx context.Context, t *target, w watcher) (on pace, more []board.Value, err error) {
	if err := t.memProfileRate(w.rate); err != nil {
		return on, nil, err
	}
	defer func() { err = errors.Join(err, t.memProfileRate(0)) }()
	if w.command == nil {
		on, err = t.pace(b.window)
		return on, nil, err
	}
	output, err := b.while(ctx, t, &w, func() (err error) {
		on, err = t.pace(b.windowOf(w))
		return err
	})
	if err == nil {
		more, err = w.worked(b, output)
	}
	return on, more, err
}
