package main

import (
	"context"
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
	rounds   int
	window   time.Duration // of the cost of an agent
	sampling time.Duration // of one measurement of BPF time
	hz       int           // the same
	depths   []int
	only     string
	output   string
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == loadCommand {
		os.Exit(board.Run("cost", func(context.Context) error { return loadOnce(os.Stdout) }))
	}
	c := config{depths: []int{10, 32, 100, 127, 200, 500, 1000}}
	flag.IntVar(&c.rounds, "rounds", 5, "measurements of which the median counts")
	flag.DurationVar(&c.window, "window", 60*time.Second, "length of the measurement of an agent's cost")
	flag.DurationVar(&c.sampling, "sampling", 2*time.Second, "length of a measurement of BPF time")
	flag.IntVar(&c.hz, "hz", 999, "samples per second and CPU for BPF time")
	flag.StringVar(&c.only, "only", "", "comma-separated `parts`: bpf, cost, start, load")
	flag.StringVar(&c.output, "o", "", "write to `file` as well")
	flag.Parse()
	os.Exit(board.Run("cost", func(ctx context.Context) error {
		return board.Output(c.output, func(out io.Writer) error { return run(ctx, out, &c) })
	}))
}

// run measures what c asks for and writes it to out.
func run(ctx context.Context, out io.Writer, c *config) error {
	h, err := agents.New(ctx)
	if err != nil {
		return err
	}
	defer h.Close()
	r := board.New(out)
	r.Facts(board.Facts(ctx))
	parts := []struct {
		name string
		run  func(context.Context, *agents.Harness, *board.Report, *config) error
	}{{"load", measureLoad}, {"start", measureStart}, {"bpf", measureBPF}, {"cost", measureCost}}
	for _, p := range parts {
		if c.only != "" && !slices.Contains(strings.Split(c.only, ","), p.name) {
			continue
		}
		if err := p.run(ctx, h, r, c); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	tables(r)
	return r.Err()
}
