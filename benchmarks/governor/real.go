package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// realOptions of run.
type realOptions struct {
	cpu             float64       // budget, percent of the machine's CPUs
	maxHz           int           // ceiling of the rate
	window          time.Duration // of profiles, and so of the governor
	stages          []stage
	pprofd          string // a program that is built already
	keep            string // directory for configuration, log and profiles of the agent
	output, picture string
}

// stage is what the machine does for a while: processes of internal/testprog/targets/service beside one that is next to idle.
type stage struct {
	name    string
	windows int
	load    [][]string // flags of each process
}

func stages(windows int) []stage {
	one := []string{"-procs", "1", "-clients", "2"}
	two := []string{"-procs", "2", "-clients", "200"}
	return []stage{
		{"idle", windows, nil},
		{"one-core", windows, [][]string{one}},
		{"two-cores-400-goroutines", windows, [][]string{two}},
		{"overload", windows, [][]string{two, two, two}},
		{"idle-again", windows, nil},
	}
}

// bench is a run.
type bench struct {
	*realOptions
	dir      string
	services agents.Services
	report   *board.Report
	tick     time.Duration // what an interrupt for a sample takes from its CPU
}

// realRun measures the real agent on a load that changes by steps.
func realRun(ctx context.Context, w io.Writer, o *realOptions) (err error) {
	dir, err := os.MkdirTemp("", "pprofd-governor-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{realOptions: o, dir: dir, services: agents.Services{Dir: dir}, report: board.New(w)}
	if err := b.build(ctx); err != nil {
		return err
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return fmt.Errorf("enable the kernel's BPF statistics (as root, Linux 5.8 or newer): %w", err)
	}
	defer func() { err = errors.Join(err, stats.Close()) }()
	b.report.Facts(board.Facts(ctx))
	if b.tick, err = tickTime(); err != nil {
		return err
	}
	b.report.Add("Tick", 1, board.Value{V: float64(b.tick.Nanoseconds()), Unit: "ns/interrupt"})
	rows, err := b.measure(ctx)
	if err != nil {
		return err
	}
	b.tables(rows)
	if o.picture != "" {
		err = b.pictured(rows).draw(o.picture)
	}
	return errors.Join(err, b.report.Err())
}

func (b *bench) build(ctx context.Context) error {
	if err := b.services.Build(ctx); err != nil || b.pprofd != "" {
		return err
	}
	b.pprofd = filepath.Join(b.dir, "pprofd")
	return agents.BuildPprofd(ctx, b.pprofd)
}

// config is what the agent is told: the defaults, but for what makes it short.
func (b *bench) config(address string) string {
	return fmt.Sprintf("overhead: {cpu: %g%%}\nwindow: %v\ncpu: {max_hz: %d}\nheap: {interval: 30s}\ndir: {path: %s}\nlisten: %s\nselect: [%s]\n",
		b.cpu, b.window, b.maxHz, filepath.Join(b.dir, "profiles"), address, "exe="+filepath.Join(b.dir, "service*"))
}

// measure runs the agent through all stages.
func (b *bench) measure(ctx context.Context) (rows []measured, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	path := filepath.Join(b.dir, "pprofd.yaml")
	if err := os.WriteFile(path, []byte(b.config(address)), 0o600); err != nil {
		return nil, err
	}
	idle, err := b.start([]string{"-procs", "1", "-clients", "1", "-pause", "1s"})
	if err != nil {
		return nil, err
	}
	defer idle.Stop()
	a, err := startAgent(ctx, b.pprofd, path, "http://"+address+"/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.end(b.keep)) }()
	o := &observer{agent: a, tick: b.tick, cpus: runtime.NumCPU(), window: b.window}
	if err := o.sync(ctx); err != nil {
		return nil, err
	}
	b.report.Add("StartUp", 1, board.Value{V: o.startUp.Seconds(), Unit: "cpu-s"})
	for i := range b.stages {
		more, err := b.stage(ctx, o, &b.stages[i])
		if err != nil {
			return nil, fmt.Errorf("stage %s: %w", b.stages[i].name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (b *bench) start(args []string) (*agents.Service, error) {
	program, err := b.services.Program(0)
	if err != nil {
		return nil, err
	}
	return agents.StartService(program, args)
}

// stage makes load for some windows, and measures each.
func (b *bench) stage(ctx context.Context, o *observer, s *stage) (rows []measured, err error) {
	for _, args := range s.load {
		load, err := b.start(args)
		if err != nil {
			return nil, err
		}
		defer load.Stop()
	}
	for i := range s.windows {
		m, err := o.next(ctx)
		if err != nil {
			return nil, fmt.Errorf("window %d: %w", i, err)
		}
		m.stage, m.first = s.name, i == 0
		b.add(&m, i)
		rows = append(rows, m)
	}
	return rows, nil
}
