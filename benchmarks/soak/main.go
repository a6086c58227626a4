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

	"github.com/pprofd/pprofd/benchmarks/board"
)

type options struct {
	length time.Duration
	rate   int
	window time.Duration
	hz     int
	cycles int
	output string
}

// measuredEnv marks the copy of this program that is measured.
const measuredEnv = "PPROFD_SOAK_MEASURED"

func main() {
	var o options
	flag.DurationVar(&o.length, "for", 10*time.Minute, "how long processes come and go; 0: not at all")
	flag.IntVar(&o.rate, "rate", 50, "processes started a second")
	flag.DurationVar(&o.window, "window", 10*time.Second, "of the profiler")
	flag.IntVar(&o.hz, "hz", 99, "samples per second and CPU")
	flag.IntVar(&o.cycles, "cycles", 1000, "profilers that are loaded, run and closed at the end")
	flag.StringVar(&o.output, "o", "", "write `prefix`.txt and prefix.svg")
	flag.Parse()
	os.Exit(board.Run("soak", func(ctx context.Context) error { return command(ctx, &o) }))
}

// command is what flags and environment ask for.
func command(ctx context.Context, o *options) error {
	switch {
	case os.Getenv(measuredEnv) == "":
		text := o.output
		if text != "" {
			text += ".txt"
		}
		return board.Output(text, func(out io.Writer) error { return measure(ctx, out, o) })
	case flag.Arg(0) == "cycle":
		return cycle(os.Stdout, o)
	}
	return serve(os.Stdin, os.Stdout, o)
}

// args give the measured copy the same options.
func (o *options) args(what string) []string {
	return []string{"-window", o.window.String(), "-hz", fmt.Sprint(o.hz), "-cycles", fmt.Sprint(o.cycles), what}
}

func measure(ctx context.Context, out io.Writer, o *options) error {
	r := board.New(out)
	r.Facts(board.Facts(ctx))
	var samples []sample
	var wrong error
	if o.length > 0 {
		samples, wrong = soak(ctx, r, o)
	}
	if o.output != "" && len(samples) > 0 {
		wrong = errors.Join(wrong, draw(o.output+".svg", samples))
	}
	if ctx.Err() == nil && o.cycles > 0 {
		wrong = errors.Join(wrong, cycles(ctx, r, o))
	}
	if wrong != nil {
		r.Printf("# FAILED: %s\n", strings.ReplaceAll(wrong.Error(), "\n", "\n# FAILED: "))
	} else {
		r.Printf("# ok: nothing grows\n")
	}
	return errors.Join(wrong, r.Err())
}

// soak is the run with processes that come and go.
func soak(ctx context.Context, r *board.Report, o *options) ([]sample, error) {
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := newChurn(dir)
	if err != nil {
		return nil, err
	}
	w, err := start(ctx, c.alive.Load, o.args("serve")...)
	if err != nil {
		return nil, err
	}
	c.tell = w.tell
	if err := c.stay(ctx); err != nil {
		return nil, err
	}
	quiet, look := 5*o.window/2+time.Second, max(o.window, 2*time.Second)
	sleep(ctx, quiet)
	before := w.latest(look)
	began := time.Since(w.began)
	c.run(ctx, o.rate, o.length)
	samples := w.latest(time.Since(w.began) - began)
	sleep(ctx, quiet)
	after := w.latest(look)
	final, err := w.end()
	cancel()
	c.wg.Wait()
	for i := range samples {
		samples[i].At -= began
	}
	tellSoak(r, o, c, samples, &final)
	wrong := append(judge(r, "Soak", samples, o, float64(c.started.Load())/o.length.Hours()), compare(before, after)...)
	return samples, errors.Join(append(wrong, err, c.err, sound(&final))...)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// sound judges what the profiler told last.
func sound(s *state) error {
	switch {
	case s.Failed != "":
		return fmt.Errorf("the profiler failed: %s", s.Failed)
	case s.Recorded == 0:
		return errors.New("no samples")
	case s.Samples != s.Recorded:
		return fmt.Errorf("%d samples are in profiles, %d were recorded", s.Samples, s.Recorded)
	}
	return nil
}

// compare holds what is held after the churn, without processes, against what was held before.
func compare(before, after []sample) (wrong []error) {
	if len(before) == 0 || len(after) == 0 {
		return []error{errors.New("nothing was seen before or after the churn")}
	}
	for _, c := range []struct {
		name string
		of   func(*sample) float64
		more float64
	}{
		{"file descriptors", func(s *sample) float64 { return float64(s.FDs) }, 1}, // the one of the directory that is read
		{"BPF targets", func(s *sample) float64 { return float64(s.Use.Targets) }, 0},
		{"BPF losses", func(s *sample) float64 { return float64(s.Use.Losses) }, residents},
		{"goroutines", func(s *sample) float64 { return float64(s.Goroutines) }, 1},
		{"bytes of BPF maps", func(s *sample) float64 { return float64(s.Use.Bytes) }, 0},
	} {
		if b, a := lowest(before, c.of), lowest(after, c.of); a > b+c.more {
			wrong = append(wrong, fmt.Errorf("%g %s are held after the churn, %g were before", a, c.name, b))
		}
	}
	return wrong
}

// tellSoak writes how much came and went, and what was lost.
func tellSoak(r *board.Report, o *options, c *churn, samples []sample, final *state) {
	n, seconds := c.started.Load(), o.length.Seconds()
	cpu := last(samples).CPU
	if len(samples) > 0 {
		cpu -= samples[0].CPU
	}
	share := 0.0
	if final.Recorded > 0 {
		share = float64(final.Lost) / float64(final.Recorded) * 100
	}
	r.Add(fmt.Sprintf("Soak/rate=%d", o.rate), int(n),
		board.Value{V: seconds, Unit: "s"}, board.Value{V: float64(n) / seconds, Unit: "processes/s"},
		board.Value{V: float64(final.Targets), Unit: "targets"}, board.Value{V: float64(final.Late), Unit: "ended-before-added"},
		board.Value{V: float64(c.killed.Load()), Unit: "killed"}, board.Value{V: float64(c.files.Load()), Unit: "binaries"},
		board.Value{V: float64(c.skipped.Load()), Unit: "not-started"},
		board.Value{V: float64(final.Recorded), Unit: "samples"}, board.Value{V: float64(final.Lost), Unit: "lost"},
		board.Value{V: share, Unit: "%lost"}, board.Value{V: float64(final.Profiles), Unit: "profiles"},
		board.Value{V: cpu.Seconds() / seconds * 1000, Unit: "cpu-ms/s"})
}

// cycles loads, runs and closes profilers.
func cycles(ctx context.Context, r *board.Report, o *options) error {
	w, err := start(ctx, func() int64 { return 0 }, o.args("cycle")...)
	if err != nil {
		return err
	}
	<-w.done
	final, err := w.end()
	took := last(w.samples).At
	if err != nil || final.Cycles == 0 {
		return errors.Join(fmt.Errorf("%d cycles of load and close", final.Cycles), err)
	}
	r.Add("Cycles", final.Cycles, board.Value{V: float64(took.Milliseconds()) / float64(final.Cycles), Unit: "ms/cycle"})
	short := *o
	short.window = min(o.window, took/20)
	return errors.Join(judge(r, "Cycles", w.samples, &short, float64(final.Cycles)/took.Hours())...)
}

// maxPoints of a line: of more samples the highest of every so many.
const maxPoints = 600

// draw draws what was held over time.
func draw(path string, samples []sample) error {
	step := (len(samples) + maxPoints - 1) / maxPoints
	line := func(name string, of func(*sample) float64) board.Series {
		s := board.Series{Name: name}
		for part := range slices.Chunk(samples, step) {
			high := 0.0
			for i := range part {
				high = max(high, of(&part[i]))
			}
			s.X, s.Y = append(s.X, part[0].At.Minutes()), append(s.Y, high)
		}
		return s
	}
	return board.WriteSVG(path,
		board.Chart{Title: "memory of the profiler while processes come and go", X: "minutes", Y: "MB", Lines: []board.Series{
			line("RSS", func(s *sample) float64 { return s.RSS }), line("live heap", func(s *sample) float64 { return s.Heap })}},
		board.Chart{Title: "file descriptors, goroutines", X: "minutes", Y: "number", Lines: []board.Series{
			line("file descriptors", func(s *sample) float64 { return float64(s.FDs) }),
			line("goroutines", func(s *sample) float64 { return float64(s.Goroutines) })}},
		board.Chart{Title: "entries of BPF maps, processes", X: "minutes", Y: "number", Lines: []board.Series{
			line("targets", func(s *sample) float64 { return float64(s.Use.Targets) }),
			line("losses", func(s *sample) float64 { return float64(s.Use.Losses) }),
			line("processes alive", func(s *sample) float64 { return float64(s.Alive) })}})
}
