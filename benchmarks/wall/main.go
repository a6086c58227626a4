package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/testprog"
)

func main() { os.Exit(board.Run("wall", mainErr)) }

func mainErr(ctx context.Context) error {
	c := config{counts: []int{0, 1_000, 10_000}}
	flag.IntVar(&c.rounds, "rounds", 7, "`rounds`, of a window with each profiler")
	flag.DurationVar(&c.window, "window", 6*time.Second, "length of a window, whole seconds")
	flag.StringVar(&c.only, "only", "", "one of the two `parts`: shares, cost")
	flag.StringVar(&c.from, "from", "", "comma-separated `files` of earlier runs whose windows are counted with those of this run")
	flag.Func("n", "comma-separated numbers of idle `goroutines` (default 0,1000,10000)", board.Numbers(&c.counts, "number of goroutines"))
	out := flag.String("o", "", "also write the report to `file`")
	flag.Parse()
	return board.Output(*out, func(w io.Writer) error { return run(ctx, w, &c) })
}

type config struct {
	counts     []int // of idle goroutines
	rounds     int
	window     time.Duration
	only, from string
}

// bench is what all measurements need.
type bench struct {
	*config
	pprofd, profile string // the program, and what it writes
	report          *board.Report
}

func run(ctx context.Context, out io.Writer, c *config) error {
	dir, err := os.MkdirTemp("", "pprofd-wall-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{config: c, pprofd: filepath.Join(dir, "pprofd"), profile: filepath.Join(dir, "wall.pb.gz"), report: board.New(out)}
	if err := agents.BuildPprofd(ctx, b.pprofd); err != nil {
		return err
	}
	b.report.Facts(board.Facts(ctx))
	if err := b.report.IncludeFiles(b.from, "WallBias/"); err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context, int) error
	}{{"shares", b.shares}, {"cost", b.cost}} {
		if c.only != "" && c.only != part.name {
			continue
		}
		for _, n := range c.counts {
			if err := part.measure(ctx, n); err != nil {
				return fmt.Errorf("%s, %d idle goroutines: %w", part.name, n, err)
			}
		}
	}
	b.tables()
	return b.report.Err()
}

// withFgprof is how programs are built that have fgprof in them.
func withFgprof() testprog.Options {
	return testprog.Options{Flags: []string{"-modfile=fgprof.mod", "-tags=fgprof"}}
}

// tables are means and medians, and the goal of the profile.
func (b *bench) tables() {
	for _, n := range b.counts {
		for _, w := range b.profilers() {
			b.bias(n, w.name)
		}
	}
	for _, n := range b.counts {
		b.report.Table(fmt.Sprintf("WallBias/idle=%d/by=", n), "%receive", "%lock", "%compute", "points-off", "points-chance")
		b.report.Table(fmt.Sprintf("WallShares/idle=%d/by=", n), "points-off", "%core", "%core-extra")
		b.report.Table(fmt.Sprintf("WallCost/idle=%d/by=", n), "on/off", "ms-held-up", "%core", "%core-target")
	}
	b.report.Printf("\n# %-44s %10s %10s\n", "goal", "is", "may be")
	for _, n := range b.counts {
		const points = 3
		if v, ok := b.report.Median(fmt.Sprintf("WallBias/idle=%d/by=pprofd", n), "points-off"); ok {
			b.report.Goal(fmt.Sprintf("%d idle goroutines, points off", n), v, points)
		}
	}
}

// bias is the mean of all windows: what it is off by, and what of that may be chance, the standard error of that mean.
func (b *bench) bias(n int, by string) {
	name := fmt.Sprintf("WallShares/idle=%d/by=%s", n, by)
	var values []board.Value
	off, chance, windows := 0.0, 0.0, 0
	for _, phase := range phases {
		seen, truth := b.report.Values(name, "%"+phase.name), b.report.Values(name, "%"+phase.name+"-truth")
		windows = len(seen)
		if windows < 2 {
			return
		}
		differences := make([]float64, windows)
		for i := range seen {
			differences[i] = seen[i] - truth[i]
		}
		m, deviation := mean(differences)
		off, chance = max(off, math.Abs(m)), max(chance, deviation/math.Sqrt(float64(windows)))
		s, _ := mean(seen)
		u, _ := mean(truth)
		values = append(values, board.Value{V: s, Unit: "%" + phase.name}, board.Value{V: u, Unit: "%" + phase.name + "-truth"})
	}
	values = append(values, board.Value{V: off, Unit: "points-off"}, board.Value{V: chance, Unit: "points-chance"})
	b.report.Add(fmt.Sprintf("WallBias/idle=%d/by=%s", n, by), windows, values...)
}

// mean of at least two values, and their standard deviation.
func mean(list []float64) (m, deviation float64) {
	for _, v := range list {
		m += v / float64(len(list))
	}
	for _, v := range list {
		deviation += (v - m) * (v - m) / float64(len(list)-1)
	}
	return m, math.Sqrt(deviation)
}
