package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// value is one measured number with its unit.
type value struct {
	v    float64
	unit string
}

// report writes measurements as they come, and tables of their medians at the end.
type report struct {
	w    io.Writer
	err  error // the first of writing
	runs map[string]map[string][]float64
}

func (r *report) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(r.w, format, args...); r.err == nil {
		r.err = err
	}
}

// facts writes what benchstat takes as the configuration.
func (r *report) facts(list []fact) {
	for _, f := range list {
		r.printf("%s: %s\n", f.key, f.value)
	}
}

// add writes one line in the format of Go benchmarks and keeps the values.
func (r *report) add(name string, n int, values ...value) {
	if r.runs == nil {
		r.runs = map[string]map[string][]float64{}
	}
	if r.runs[name] == nil {
		r.runs[name] = map[string][]float64{}
	}
	r.printf("Benchmark%s %d", name, n)
	for _, v := range values {
		r.printf(" %.5g %s", v.v, v.unit)
		r.runs[name][v.unit] = append(r.runs[name][v.unit], v.v)
	}
	r.printf("\n")
}

// median of what was measured; false: nothing was.
func (r *report) median(name, unit string) (float64, bool) {
	values := r.runs[name][unit]
	if len(values) == 0 {
		return 0, false
	}
	return median(values), true
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// goals are the project's: medians that pprofd must reach.
var goals = []struct {
	name, unit, text string
	scale, limit     float64
}{
	{"AgentCost/agent=pprofd", "cpu-s/60s", "agent CPU, s per 60 s", 1, 0.15},
	{"AgentCost/agent=pprofd", "peak-RSS-B", "peak RSS, MB", 1e-6, 30},
	{"AgentCost/agent=pprofd", "BPF-maps-B", "BPF maps, MB", 1e-6, 4},
	{"FirstSample/agent=pprofd", "ms", "exec to first sample, ms", 1, 100},
	{"Load/agent=pprofd", "ms", "load of the programs, ms", 1, 30},
	{"BPFTime/frames=32/agent=pprofd", "ns/sample", "BPF time per sample of 32 frames, µs", 1e-3, 5},
}

// tables writes the medians.
func (r *report) tables() {
	r.depths()
	r.table("AgentCost/agent=", "cpu-s/60s", "peak-RSS-B", "BPF-maps-B", "samples")
	r.table("FirstSample/agent=", "ms")
	r.table("Load/agent=", "ms", "cpu-ms")
	r.table("Verify/program=", "insns")
	r.printf("\n# %-44s %10s %10s\n", "goal", "measured", "at most")
	for _, g := range goals {
		if v, ok := r.median(g.name, g.unit); ok {
			r.goal(g.text, v*g.scale, g.limit)
		}
	}
	if fixed, slope, ok := r.fit("pprofd"); ok {
		r.goal("BPF time of each further frame, ns", slope, 80)
		r.besideBpftrace()
		r.printf("# BPF time of pprofd: %.0f ns + %.1f ns per frame\n", fixed, slope)
	}
}

// besideBpftrace: at each depth that bpftrace can record, pprofd's programs take no longer.
func (r *report) besideBpftrace() {
	table := r.byDepth("ns/sample")
	for _, frames := range slices.Sorted(maps.Keys(table)) {
		if other := table[frames]["bpftrace"]; frames <= bpftraceFrames && other > 0 {
			r.goal(fmt.Sprintf("BPF time beyond bpftrace's at %d frames, ns", frames), table[frames]["pprofd"]-other, 0)
		}
	}
}

// bpftraceFrames is how many frames bpftrace records, of what kernel.perf_event_max_stack allows.
const bpftraceFrames = 127

func (r *report) goal(text string, v, limit float64) {
	verdict := "ok"
	if v > limit {
		verdict = "MISSED"
	}
	r.printf("# %-44s %10.4g %10.4g  %s\n", text, v, limit, verdict)
}

// table writes one line for each variant: the medians of its units.
func (r *report) table(prefix string, units ...string) {
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
	r.printf("\n# %-22s", prefix[:strings.LastIndexByte(prefix, '/')])
	for _, u := range units {
		r.printf(" %14s", u)
	}
	r.printf("\n")
	for _, v := range variants {
		r.printf("# %-22s", v)
		for _, u := range units {
			m, _ := r.median(prefix+v, u)
			r.printf(" %14.5g", m)
		}
		r.printf("\n")
	}
}

// depths writes BPF time by depth, the agents side by side.
func (r *report) depths() {
	table := r.byDepth("ns/sample")
	if len(table) == 0 {
		return
	}
	r.printf("\n# BPF time, ns per recorded sample (bpftrace cuts at 127 frames)\n# %8s %10s %10s\n", "frames", "pprofd", "bpftrace")
	for _, frames := range slices.Sorted(maps.Keys(table)) {
		r.printf("# %8d %10.0f %10.0f\n", frames, table[frames]["pprofd"], table[frames]["bpftrace"])
	}
}

// byDepth are the medians of one unit by frames and agent.
func (r *report) byDepth(unit string) map[int]map[string]float64 {
	table := map[int]map[string]float64{}
	for name := range r.runs {
		var frames int
		var agent string
		if _, err := fmt.Sscanf(name, "BPFTime/frames=%d/agent=%s", &frames, &agent); err != nil {
			continue
		}
		if table[frames] == nil {
			table[frames] = map[string]float64{}
		}
		table[frames][agent], _ = r.median(name, unit)
	}
	return table
}

// fit lays a line through an agent's BPF time by depth, so that each point weighs by its relative, not its absolute,
// error: the noise of a measurement grows with it.
func (r *report) fit(agent string) (fixed, slope float64, ok bool) {
	var points []point
	for frames, agents := range r.byDepth("ns/sample") {
		if v := agents[agent]; v > 0 {
			points = append(points, point{float64(frames), v})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	return fitLine(points)
}

type point struct{ x, y float64 }

// fitLine is the weighted least squares line, weights 1/y².
func fitLine(points []point) (fixed, slope float64, ok bool) {
	var n, sx, sy, sxx, sxy float64
	for _, p := range points {
		w := 1 / (p.y * p.y)
		n, sx, sy = n+w, sx+w*p.x, sy+w*p.y
		sxx, sxy = sxx+w*p.x*p.x, sxy+w*p.x*p.y
	}
	if d := n*sxx - sx*sx; len(points) > 1 && d > 0 {
		slope = (n*sxy - sx*sy) / d
		return (sy - slope*sx) / n, slope, true
	}
	return 0, 0, false
}
