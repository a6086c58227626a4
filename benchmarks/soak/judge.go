package main

import (
	"fmt"
	"math"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// metric is something of the profiler that must not grow.
type metric struct {
	name, unit string
	bound      float64 // growth an hour that is still flat
	of         func(*sample) float64
}

// watched is what is measured. The bounds are above what a healthy run of 10 minutes shows: the kernel and the Go runtime
// give pages back late, and the number of processes alive swings.
var watched = []metric{
	{"RSS", "MB", 8, func(s *sample) float64 { return s.RSS }},
	{"heap", "MB", 8, func(s *sample) float64 { return s.Heap }},
	{"fds", "fds", 20, func(s *sample) float64 { return float64(s.FDs) }},
	{"goroutines", "goroutines", 10, func(s *sample) float64 { return float64(s.Goroutines) }},
	{"BPF-entries", "entries", 20, func(s *sample) float64 { return float64(s.Use.Targets + s.Use.Losses) }},
	{"BPF-maps", "MB", 0.1, func(s *sample) float64 { return float64(s.Use.Bytes) / 1e6 }},
}

// growth is what a line through the windows' means says.
type growth struct {
	perHour, err float64 // its slope and the standard error of that
	mean, peak   float64
	windows      int
}

// exceeds reports whether it grows by more than bound an hour, beyond what may be chance.
func (g growth) exceeds(bound float64) bool { return g.perHour > bound+3*g.err }

// fit fits a line through samples, one point for each window of the time behind warmup.
func fit(samples []sample, m metric, warmup, window time.Duration) growth {
	var g growth
	var x, y []float64 // hours, means
	sum, n, end := 0.0, 0, warmup+window
	for i := range samples {
		s := &samples[i]
		if g.peak = max(g.peak, m.of(s)); s.At < warmup {
			continue
		}
		for s.At >= end {
			if n > 0 {
				x, y = append(x, (end-window/2).Hours()), append(y, sum/float64(n))
			}
			sum, n, end = 0, 0, end+window
		}
		sum, n = sum+m.of(s), n+1
	}
	g.windows = len(x)
	if len(x) < 3 {
		g.err = math.Inf(1)
		return g
	}
	g.line(x, y)
	return g
}

// line is the least squares line.
func (g *growth) line(x, y []float64) {
	n := float64(len(x))
	var mx, my float64
	for i := range x {
		mx, my = mx+x[i]/n, my+y[i]/n
	}
	var sxx, sxy float64
	for i := range x {
		sxx, sxy = sxx+(x[i]-mx)*(x[i]-mx), sxy+(x[i]-mx)*(y[i]-my)
	}
	g.mean, g.perHour = my, sxy/sxx
	var rest float64
	for i := range x {
		d := y[i] - my - g.perHour*(x[i]-mx)
		rest += d * d
	}
	g.err = math.Sqrt(rest / (n - 2) / sxx)
}

// judge writes how each metric grew and returns what is wrong. turnover is how many processes or cycles came in an hour.
func judge(r *board.Report, name string, samples []sample, o *options, turnover float64) (wrong []error) {
	warmup := min(3*time.Minute, last(samples).At/4)
	for _, m := range watched {
		g := fit(samples, m, warmup, o.window)
		if g.windows < 3 {
			return []error{fmt.Errorf("%s: only %d windows behind the warm-up: it ran too short to judge", name, g.windows)}
		}
		seen := (m.bound + 3*g.err) / turnover
		values := []board.Value{{V: g.mean, Unit: m.unit}, {V: g.peak, Unit: "peak-" + m.unit}, {V: g.perHour, Unit: m.unit + "/h"},
			{V: g.err, Unit: "stderr-" + m.unit + "/h"}, {V: m.bound, Unit: "bound-" + m.unit + "/h"}}
		if m.unit == "MB" {
			values = append(values, board.Value{V: seen * 1e6, Unit: "B/turn-found"})
		} else {
			values = append(values, board.Value{V: seen * 1000, Unit: m.unit + "/1000-turns-found"})
		}
		r.Add(name+"/"+m.name, g.windows, values...)
		if g.exceeds(m.bound) {
			wrong = append(wrong, fmt.Errorf("%s: %s grow by %.4g %s an hour (standard error %.2g): at most %g is flat",
				name, m.name, g.perHour, m.unit, g.err, m.bound))
		}
	}
	return wrong
}

func last(samples []sample) *sample {
	if len(samples) == 0 {
		return &sample{}
	}
	return &samples[len(samples)-1]
}
