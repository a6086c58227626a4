package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

type config struct {
	pairs  int
	window time.Duration // of one half of a pair
	lead   time.Duration // from the start of a profiler to the window; half of it goes on behind
	use    time.Duration // of the measurement of an agent
	goal   time.Duration // the same for the row that the goals are for
	sizes  []int         // numbers of processes
	size   int           // the only one to measure agents and throughput at; 0: all
	only   string
	from   string // an earlier report
	output string
	svg    string
	peer   string // shell command, or ""
}

func main() {
	c := config{sizes: []int{1, 10, 200}, peer: os.Getenv("PEER_CMD")}
	short := flag.Bool("short", false, "a few seconds of everything: does it run?")
	flag.IntVar(&c.pairs, "pairs", 10, "windows with each profiler, and as many without")
	flag.DurationVar(&c.window, "window", time.Second, "length of a window")
	flag.DurationVar(&c.lead, "lead", 600*time.Millisecond, "from the start of a profiler to its window")
	flag.DurationVar(&c.use, "use", 10*time.Second, "length of the measurement of an agent's CPU time and memory")
	flag.DurationVar(&c.goal, "goal", 60*time.Second, "the same for pprofd and one busy process at 99 Hz, for which there are goals")
	flag.StringVar(&c.only, "only", "", "comma-separated `parts`: interrupt, use, floor, throughput")
	flag.IntVar(&c.size, "processes", 0, "measure agents and throughput beside so many processes only; 0: all numbers")
	flag.StringVar(&c.from, "from", "", "take over what the report in `file` measured: parts may be measured one after another")
	flag.StringVar(&c.output, "o", "", "write to `file` as well")
	flag.StringVar(&c.svg, "svg", "", "draw throughput and memory into `file`")
	flag.Parse()
	if *short {
		c.shorten()
	}
	os.Exit(board.Run("overhead", func(ctx context.Context) error {
		return board.Output(c.output, func(out io.Writer) error { return run(ctx, out, &c) })
	}))
}

// shorten makes it a test of whether everything runs.
func (c *config) shorten() {
	c.pairs, c.window, c.lead = 1, 100*time.Millisecond, 300*time.Millisecond
	c.use, c.goal, c.sizes = 300*time.Millisecond, 500*time.Millisecond, []int{1, 2}
}

// bench is what all parts need.
type bench struct {
	*agents.Harness
	*config
	report   *board.Report
	services agents.Services
}

// include takes over an earlier report.
func (b *bench) include() (err error) {
	if b.from == "" {
		return nil
	}
	f, err := os.Open(b.from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return b.report.Include(f, "Computed/", "Memory/")
}

// run measures what c asks for and writes it to out.
func run(ctx context.Context, out io.Writer, c *config) error {
	h, err := agents.New(ctx)
	if err != nil {
		return err
	}
	defer h.Close()
	b := &bench{Harness: h, config: c, report: board.New(out), services: agents.Services{Dir: h.Dir}}
	if err := b.services.Build(ctx); err != nil {
		return err
	}
	b.report.Facts(board.Facts(ctx))
	if err := b.include(); err != nil {
		return err
	}
	parts := []struct {
		name string
		run  func(context.Context) error
	}{{"interrupt", b.interrupt}, {"use", b.uses}, {"floor", b.floor}, {"throughput", b.throughput}}
	for _, p := range parts {
		if c.only != "" && !slices.Contains(strings.Split(c.only, ","), p.name) {
			continue
		}
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	b.tables()
	if c.svg != "" {
		return errors.Join(b.report.Err(), b.draw())
	}
	return b.report.Err()
}
