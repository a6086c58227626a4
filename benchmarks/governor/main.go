package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
)

func main() {
	os.Exit(board.Run("governor", func(ctx context.Context) error { return command(ctx, os.Stdout, os.Args[1:]) }))
}

var errUsage = errors.New("usage: governor simulate | run | record FILE; -h after one of them lists its flags")

func command(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	switch args[0] {
	case "simulate":
		return simulateCommand(ctx, flags, args[1:])
	case "run":
		return runCommand(ctx, flags, args[1:])
	case "record":
		return recordCommand(ctx, flags, args[1:])
	}
	return fmt.Errorf("%q: %w", args[0], errUsage)
}

func simulateCommand(ctx context.Context, flags *flag.FlagSet, args []string) error {
	o := options{window: 10}
	flags.Float64Var(&o.budget, "cpu", 0.5, "budget: `percent` of the host's CPUs")
	flags.StringVar(&o.output, "o", "", "write to `file` as well")
	flags.StringVar(&o.pictures, "svg", "", "draw each trace into a file that begins with `prefix`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return board.Output(o.output, func(w io.Writer) error { return simulate(ctx, w, &o) })
}

func runCommand(ctx context.Context, flags *flag.FlagSet, args []string) error {
	o := realOptions{}
	windows := flags.Int("windows", 10, "of each stage")
	flags.Float64Var(&o.cpu, "cpu", 1, "budget: `percent` of the machine's CPUs")
	flags.IntVar(&o.maxHz, "max-hz", 499, "ceiling of the rate")
	flags.DurationVar(&o.window, "window", 3*time.Second, "how long a window is")
	flags.StringVar(&o.pprofd, "agent", "", "measure the `program`, do not build pprofd")
	flags.StringVar(&o.keep, "keep", "", "leave the agent's log in `directory`")
	flags.StringVar(&o.output, "o", "", "write to `file` as well")
	flags.StringVar(&o.picture, "svg", "", "draw into `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.stages = stages(*windows)
	return board.Output(o.output, func(w io.Writer) error { return realRun(ctx, w, &o) })
}

func recordCommand(ctx context.Context, flags *flag.FlagSet, args []string) error {
	about := flags.String("about", "this machine's load", "what is recorded, for the picture's title")
	length := flags.Duration("for", 4*time.Minute, "how long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errUsage
	}
	return record(ctx, flags.Arg(0), *about, *length)
}

// options of simulate.
type options struct {
	budget           float64 // percent
	window           float64 // s
	output, pictures string
}

// simulate runs all traces once and reports.
func simulate(ctx context.Context, w io.Writer, o *options) error {
	list, err := recorded()
	if err != nil {
		return err
	}
	report := board.New(w)
	report.Facts(board.Facts(ctx))
	for _, tr := range append(synthetic(), list...) {
		for i, m := range machines() {
			s := simulation{trace: &tr, machine: m, budget: o.budget / 100, window: o.window, seed: 1, kinds: usual()}
			rows, err := s.run()
			if err != nil {
				return err
			}
			s.report(report, rows)
			if o.pictures == "" || i > 0 { // the first one shows most: on the others the rate is where interrupts or stacks leave it
				continue
			}
			if err := s.pictured(rows).draw(o.pictures + tr.name + ".svg"); err != nil {
				return err
			}
		}
	}
	return report.Err()
}

// report writes what a run came to.
func (s *simulation) report(r *board.Report, rows []row) {
	v := judge(rows, s.budget*s.cpus, (*row).atCeiling)
	name := fmt.Sprintf("Simulation/trace=%s/machine=%s/budget=%g%%", s.name, s.machine.name, 100*s.budget)
	r.Add(name, v.windows, board.Value{V: 100 * v.most, Unit: "most-%budget"}, board.Value{V: float64(len(v.over)), Unit: "windows-over"},
		board.Value{V: float64(v.idle), Unit: "row-below-half"}, board.Value{V: 100 * mean(rows, func(w *row) float64 { return w.spent }) / (s.budget * s.cpus), Unit: "mean-%budget"},
		board.Value{V: mean(rows, func(w *row) float64 { return w.setting("cpu").Rate }), Unit: "mean-Hz"},
		board.Value{V: 100 * mean(rows, func(w *row) float64 { return w.throttled("cpu") }), Unit: "mean-%throttled"})
}

func mean(rows []row, of func(*row) float64) float64 {
	sum := 0.0
	for i := range rows {
		sum += of(&rows[i])
	}
	return sum / float64(max(len(rows), 1))
}
