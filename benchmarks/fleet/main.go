package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/testprog"
)

type config struct {
	situations []situation
	settle     time.Duration // from the start of the processes to that of the agent
	startup    time.Duration // of the agent, told of by itself
	own        bool          // only the processes that are started here are profiled
	only       string
	from       string // an earlier report
	agent      string // a program that is built already
	with       string // more configuration
	keep       string // directory for what the agent logs
	output     string
	svg        string
}

// situation is what runs on the host, and for how long it is measured.
type situation struct {
	name               string
	services, binaries int
	pause              time.Duration // of the services, between two requests
	sleepers           int           // processes that are not Go
	steady             time.Duration // measured, behind the start-up
	churn              time.Duration // as long as processes start, behind that; and once more while none is profiled
	rate               int           // of these starts, a second
	short              int           // Go processes, beside two at a time
	args               []string      // of the agent
	window             time.Duration // that they ask for
	heap               time.Duration // interval; 0: the default, a minute
	with               string        // more of the agent's configuration
}

const defaultWindow = 10 * time.Second

func situations() []situation {
	const programs = 20
	return []situation{
		{name: "empty", steady: 30 * time.Second},
		{name: "idle", services: 200, binaries: programs, pause: 10 * time.Second, steady: 115 * time.Second},
		{name: "busy", services: 200, binaries: programs, pause: 50 * time.Millisecond, steady: 65 * time.Second, heap: 30 * time.Second},
		{name: "churn", services: 200, binaries: programs, pause: 10 * time.Second, sleepers: 1800, steady: 35 * time.Second,
			churn: 35 * time.Second, rate: 50},
		{name: "short", short: 200, window: time.Second, args: []string{"--cpu-hz", "99", "--window", "1s"}},
	}
}

func main() {
	c := config{situations: situations(), settle: 5 * time.Second, startup: 10 * time.Second}
	short := flag.Bool("short", false, "a few seconds of everything: does it run?")
	flag.StringVar(&c.only, "only", "", "comma-separated `situations`: empty, idle, busy, churn, short")
	flag.StringVar(&c.from, "from", "", "take over what the report in `file` measured")
	flag.StringVar(&c.agent, "agent", "", "measure the `program`, do not build pprofd")
	flag.StringVar(&c.keep, "keep", "", "leave log, metrics and profiles in `directory`")
	flag.StringVar(&c.with, "with", "", "add `YAML` to the agent's configuration; without overhead in it rates do not adapt")
	flag.StringVar(&c.output, "o", "", "write to `file` as well")
	flag.StringVar(&c.svg, "svg", "", "draw CPU time and memory into `file`")
	flag.Parse()
	if *short {
		c.shorten()
	}
	for i := range c.situations {
		c.situations[i].with = c.with
	}
	os.Exit(board.Run("fleet", func(ctx context.Context) error {
		return board.Output(c.output, func(out io.Writer) error { return run(ctx, out, &c) })
	}))
}

// shorten makes it a test of whether everything runs.
func (c *config) shorten() {
	c.settle, c.startup, c.own = 100*time.Millisecond, 500*time.Millisecond, true
	fast := []string{"--window", "1s"}
	c.situations = []situation{
		{name: "idle", services: 6, binaries: 3, pause: 100 * time.Millisecond, steady: 1500 * time.Millisecond, args: fast, window: time.Second, heap: time.Second},
		{name: "churn", services: 3, binaries: 3, pause: time.Second, sleepers: 20, steady: time.Second / 2,
			churn: time.Second, rate: 20, args: fast, window: time.Second, heap: time.Second},
		{name: "short", short: 20, window: time.Second, args: append(fast, "--cpu-hz", "99")},
	}
}

// bench is what all situations need.
type bench struct {
	*config
	dir      string
	services agents.Services
	churner  string // a Go program that lives for a short time
	report   *board.Report
}

// run measures what c asks for and writes it to out.
func run(ctx context.Context, out io.Writer, c *config) (err error) {
	dir, err := os.MkdirTemp("", "pprofd-fleet-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{config: c, dir: dir, services: agents.Services{Dir: dir}, report: board.New(out)}
	if err := b.build(ctx); err != nil {
		return err
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return fmt.Errorf("enable the kernel's BPF statistics (as root, Linux 5.8 or newer): %w", err)
	}
	defer func() { err = errors.Join(err, stats.Close()) }()
	b.report.Facts(board.Facts(ctx))
	if err := b.include(); err != nil {
		return err
	}
	for _, s := range c.situations {
		if c.only != "" && !slices.Contains(strings.Split(c.only, ","), s.name) {
			continue
		}
		if err := b.measure(ctx, &s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	b.tables()
	if c.svg != "" {
		err = b.draw()
	}
	return errors.Join(err, b.report.Err())
}

func (b *bench) build(ctx context.Context) error {
	if err := b.services.Build(ctx); err != nil {
		return err
	}
	var err error
	if b.churner, err = testprog.BuildFile("churn", testprog.Options{}); err != nil || b.agent != "" {
		return err
	}
	b.agent = filepath.Join(b.dir, "pprofd")
	return agents.BuildPprofd(ctx, b.agent)
}

// include takes over an earlier report, except what is measured now.
func (b *bench) include() error {
	if b.from == "" {
		return nil
	}
	text, err := os.ReadFile(b.from)
	if err != nil {
		return err
	}
	var keep strings.Builder
	for line := range strings.Lines(string(text)) {
		if !b.again(line) {
			keep.WriteString(line)
		}
	}
	return b.report.Include(strings.NewReader(keep.String()))
}

// again says whether a line of a report is of a situation that is measured now.
func (b *bench) again(line string) bool {
	for name := range strings.SplitSeq(b.only, ",") {
		if strings.Contains(line, "/load="+name+"/") || strings.Contains(line, "/load="+name+" ") {
			return true
		}
	}
	return false
}
