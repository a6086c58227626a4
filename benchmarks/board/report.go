// Package board writes what benchmarks measure: lines in the format of Go benchmarks, which benchstat reads, tables of
// medians beside goals, and the facts of the machine.
package board

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Value is one measured number with its unit.
type Value struct {
	V    float64
	Unit string
}

// Report writes measurements as they come, and tables of their medians at the end.
type Report struct {
	w     io.Writer
	err   error // the first of writing
	runs  map[string]map[string][]float64
	lines []line
}

// line is one measurement.
type line struct {
	name   string
	n      int
	values []Value
}

// New returns a report that writes to w.
func New(w io.Writer) *Report {
	return &Report{w: w, runs: map[string]map[string][]float64{}}
}

// Err is the first error of writing.
func (r *Report) Err() error { return r.err }

// Names are the names of what was measured, sorted.
func (r *Report) Names() []string { return slices.Sorted(maps.Keys(r.runs)) }

// Printf writes what is no measurement.
func (r *Report) Printf(format string, args ...any) {
	if _, err := fmt.Fprintf(r.w, format, args...); r.err == nil {
		r.err = err
	}
}

// Facts writes what benchstat takes as the configuration.
func (r *Report) Facts(list []Fact) {
	for _, f := range list {
		r.Printf("%s: %s\n", f.Key, f.Value)
	}
}

// Add writes one line in the format of Go benchmarks and keeps the values.
func (r *Report) Add(name string, n int, values ...Value) {
	if r.runs[name] == nil {
		r.runs[name] = map[string][]float64{}
	}
	r.lines = append(r.lines, line{name, n, values})
	r.Printf("Benchmark%s %d", name, n)
	for _, v := range values {
		r.Printf(" %.5g %s", v.V, v.Unit)
		r.runs[name][v.Unit] = append(r.runs[name][v.Unit], v.V)
	}
	r.Printf("\n")
}

// Values are all that was measured, in order.
func (r *Report) Values(name, unit string) []float64 { return slices.Clone(r.runs[name][unit]) }

// Median of what was measured; false: nothing was.
func (r *Report) Median(name, unit string) (float64, bool) {
	values := r.runs[name][unit]
	if len(values) == 0 {
		return 0, false
	}
	return Median(values), true
}

// Median of values, of which there is at least one.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// Goal writes a line that compares a measured value with its goal, which it may reach but not exceed.
func (r *Report) Goal(text string, v, limit float64) {
	verdict := "ok"
	if v > limit {
		verdict = "MISSED"
	}
	r.Printf("# %-44s %10.4g %10.4g  %s\n", text, v, limit, verdict)
}

// Table writes one line for each variant: the medians of its units.
func (r *Report) Table(prefix string, units ...string) {
	var variants []string
	for name := range r.runs {
		if v, ok := strings.CutPrefix(name, prefix); ok {
			variants = append(variants, v)
		}
	}
	if len(variants) == 0 {
		return
	}
	slices.Sort(variants)
	r.Printf("\n# %-22s", prefix[:strings.LastIndexByte(prefix, '/')])
	for _, u := range units {
		r.Printf(" %14s", u)
	}
	r.Printf("\n")
	for _, v := range variants {
		r.Printf("# %-22s", v)
		for _, u := range units {
			m, _ := r.Median(prefix+v, u)
			r.Printf(" %14.5g", m)
		}
		r.Printf("\n")
	}
}
