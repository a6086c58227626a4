package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
)

type config struct {
	only   string // names of profilers, separated by commas; "": all
	from   string // files with results of earlier runs, separated by commas, that are part of the table
	pairs  int
	window time.Duration // of one half of a pair
	long   time.Duration // the same for probes that come and go
	rates  []int         // MB a second; 0: as fast as it goes
	turns  bool          // measure also how functions share that take turns
	output string
}

func main() {
	c := config{rates: []int{100, 500, 0}}
	short := flag.Bool("short", false, "a few seconds of everything: does it run?")
	flag.IntVar(&c.pairs, "pairs", 9, "windows with each profiler, and as many without")
	flag.DurationVar(&c.window, "window", 300*time.Millisecond, "length of a window")
	flag.DurationVar(&c.long, "long", 6*time.Second, "length of a window with probes that come and go")
	flag.StringVar(&c.output, "o", "", "write to `file` as well")
	flag.StringVar(&c.only, "only", "", "comma-separated `names` of profilers, as the table has them; with those that need no precision all pairs are measured, too")
	flag.BoolVar(&c.turns, "turns", true, "measure also what functions are given that take turns in allocating")
	flag.StringVar(&c.from, "from", "", "comma-separated `files` of earlier runs whose pairs are counted with those of this run")
	flag.Func("rates", "comma-separated `MB/s` that the target allocates, 0: as fast as it goes (default 100,500,0)", board.Numbers(&c.rates, "rate in MB/s"))
	flag.Parse()
	if *short {
		c.shorten()
	}
	os.Exit(board.Run("allocs", func(ctx context.Context) error {
		return board.Output(c.output, func(out io.Writer) error { return run(ctx, out, &c) })
	}))
}

// shorten makes it a test of whether everything runs.
func (c *config) shorten() {
	c.pairs, c.window, c.long, c.rates = 1, 100*time.Millisecond, 100*time.Millisecond, []int{100}
}

// bench is what all measurements need.
type bench struct {
	*config
	dir      string
	report   *board.Report
	watchers []watcher
}

// run measures what c asks for and writes it to out.
func run(ctx context.Context, out io.Writer, c *config) error {
	dir, err := os.MkdirTemp("", "pprofd-allocs-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{config: c, dir: dir, report: board.New(out)}
	if err := b.build(ctx); err != nil {
		return err
	}
	b.report.Facts(board.Facts(ctx))
	if b.watchers, err = b.available(ctx); err != nil {
		return err
	}
	if err := b.report.IncludeFiles(b.from); err != nil {
		return err
	}
	for _, mbps := range c.rates {
		if err := b.measure(ctx, mbps); err != nil {
			return fmt.Errorf("%s: %w", rateName(mbps), err)
		}
	}
	if b.turns {
		if err := b.measureTurns(ctx); err != nil {
			return err
		}
	}
	b.table()
	return b.report.Err()
}

// build makes pprofd and the target.
func (b *bench) build(ctx context.Context) error {
	root, err := board.Command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	root = strings.TrimSpace(root)
	for dir, pkg := range map[string]string{root: "./cmd/pprofd", filepath.Join(root, "internal", "testprog", "targets"): "./allocload"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", b.dir+"/", pkg)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	return nil
}

// measure runs windows with each watcher, and without in between.
func (b *bench) measure(ctx context.Context, mbps int) (err error) {
	t, err := b.start(mbps)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	for i := range b.pairs {
		for _, w := range b.watchers {
			if w.rare && b.only == "" && i%coarse != 0 {
				continue
			}
			before, err := t.pace(b.windowOf(w))
			if err != nil {
				return err
			}
			on, more, err := b.during(ctx, t, w)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			after, err := t.pace(b.windowOf(w))
			if err != nil {
				return err
			}
			values := []board.Value{
				{V: 2 * on.mbps / (before.mbps + after.mbps), Unit: "on/off"}, {V: 2 * on.perCPU / (before.perCPU + after.perCPU), Unit: perCPU},
				{V: on.mbps, Unit: "MB/s"}, {V: (before.mbps + after.mbps) / 2, Unit: "off-MB/s"},
			}
			b.report.Add(name(mbps, w.name), 1, append(values, more...)...)
		}
	}
	return nil
}

func (b *bench) windowOf(w watcher) time.Duration {
	if w.long {
		return b.long
	}
	return b.window
}

// perCPU is the unit of throughput in CPU time, with a profiler / without. Goals are for it: on a virtual machine it varies
// less than the throughput by the clock, and a program that has its CPUs for itself loses the same of both.
const perCPU = "cpu-on/off"

func rateName(mbps int) string {
	if mbps == 0 {
		return "unthrottled"
	}
	return fmt.Sprintf("%dMBps", mbps)
}

func name(mbps int, watcher string) string {
	return fmt.Sprintf("Allocs/rate=%s/profiler=%s", rateName(mbps), watcher)
}

// table writes medians, what is computed from them, and the goals for what is pprofd's.
func (b *bench) table() {
	b.report.Printf("\n# throughput of an allocating program with a profiler / without, in its own CPU time and by the clock: medians of pairs, 95 %% intervals\n"+
		"# %-12s %-12s %8s %18s %8s %18s %6s %9s\n", "allocates", "profiler", "CPU", "", "clock", "", "pairs", "slow-down")
	for _, mbps := range b.rates {
		for _, w := range b.watchers {
			ratios := b.report.Values(name(mbps, w.name), "on/off")
			if len(ratios) == 0 {
				continue
			}
			m, cpu := board.MedianInterval(ratios), board.MedianInterval(b.report.Values(name(mbps, w.name), perCPU))
			b.report.Printf("# %-12s %-12s %8.4f  %.4f ... %.4f %8.4f  %.4f ... %.4f %6d %8.2f%%\n", rateName(mbps), w.name,
				cpu.Median, cpu.Low, cpu.High, m.Median, m.Low, m.High, len(ratios), 100*(1-cpu.Median))
		}
	}
	b.computed()
	b.turnsTable()
	b.goals()
}

// computed tells more exactly than long windows can what probes cost that come and go.
func (b *bench) computed() {
	b.report.Printf("\n# computed from the former: what probes cost that are there all the time, times the share of the time that they are there by default\n")
	for _, mbps := range b.rates {
		if loss, share, ok := b.probeLoss(mbps); ok {
			b.report.Printf("# %-12s %-12s %8.2f%% of %.0f %% of the time: %.2f%%\n", rateName(mbps), probe, loss, 100*share, loss*share)
		}
	}
}

// probeLoss is what probes cost while they are there, in percent, and for which part of the time they are by default.
func (b *bench) probeLoss(mbps int) (percent, share float64, ok bool) {
	all, ok1 := b.report.Median(name(mbps, always), perCPU)
	shares := b.report.Values(name(mbps, probe), "probed")
	for _, v := range shares { // their mean: slots are random
		share += v / float64(len(shares))
	}
	return 100 * (1 - all), share, ok1 && len(shares) > 0
}

func (b *bench) goals() {
	b.report.Printf("\n# %-44s %10s %10s\n", "goal: slow-down, %", "measured", "at most")
	for _, mbps := range b.rates {
		limit, ok := map[int]float64{100: 1, 500: 3}[mbps]
		if !ok {
			continue
		}
		for _, w := range b.watchers {
			if m, ok := b.report.Median(name(mbps, w.name), perCPU); ok && w.goal {
				b.report.Goal(fmt.Sprintf("%s at %d MB/s", w.name, mbps), 100*(1-m), limit)
			}
		}
		if loss, share, ok := b.probeLoss(mbps); ok {
			b.report.Goal(fmt.Sprintf("%s at %d MB/s, computed", probe, mbps), loss*share, limit)
		}
	}
}
