package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/pprofd/pprofd/benchmarks/board"
)

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
func tables(r *board.Report) {
	depths(r)
	r.Table("AgentCost/agent=", "cpu-s/60s", "peak-RSS-B", "BPF-maps-B", "samples")
	r.Table("FirstSample/agent=", "ms")
	r.Table("Load/agent=", "ms", "cpu-ms")
	r.Table("Verify/program=", "insns")
	r.Printf("\n# %-44s %10s %10s\n", "goal", "measured", "at most")
	for _, g := range goals {
		if v, ok := r.Median(g.name, g.unit); ok {
			r.Goal(g.text, v*g.scale, g.limit)
		}
	}
	if fixed, slope, ok := fit(r, "pprofd"); ok {
		r.Goal("BPF time of each further frame, ns", slope, 80)
		besideBpftrace(r)
		r.Printf("# BPF time of pprofd: %.0f ns + %.1f ns per frame\n", fixed, slope)
	}
}

// besideBpftrace: at each depth that bpftrace can record, pprofd's programs take no longer.
func besideBpftrace(r *board.Report) {
	table := byDepth(r, "ns/sample")
	for _, frames := range slices.Sorted(maps.Keys(table)) {
		if other := table[frames]["bpftrace"]; frames <= bpftraceFrames && other > 0 {
			r.Goal(fmt.Sprintf("BPF time beyond bpftrace's at %d frames, ns", frames), table[frames]["pprofd"]-other, 0)
		}
	}
}

// bpftraceFrames is how many frames bpftrace records, of what kernel.perf_event_max_stack allows.
const bpftraceFrames = 127

// depths writes BPF time by depth, the agents side by side.
func depths(r *board.Report) {
	table := byDepth(r, "ns/sample")
	if len(table) == 0 {
		return
	}
	r.Printf("\n# BPF time, ns per recorded sample (bpftrace cuts at 127 frames)\n# %8s %10s %10s\n", "frames", "pprofd", "bpftrace")
	for _, frames := range slices.Sorted(maps.Keys(table)) {
		r.Printf("# %8d %10.0f %10.0f\n", frames, table[frames]["pprofd"], table[frames]["bpftrace"])
	}
}

// byDepth are the medians of one unit by frames and agent.
func byDepth(r *board.Report, unit string) map[int]map[string]float64 {
	table := map[int]map[string]float64{}
	for _, name := range r.Names() {
		var frames int
		var agent string
		if _, err := fmt.Sscanf(name, "BPFTime/frames=%d/agent=%s", &frames, &agent); err != nil {
			continue
		}
		if table[frames] == nil {
			table[frames] = map[string]float64{}
		}
		table[frames][agent], _ = r.Median(name, unit)
	}
	return table
}

// fit lays a line through an agent's BPF time by depth, so that each point weighs by its relative, not its absolute,
// error: the noise of a measurement grows with it.
func fit(r *board.Report, agent string) (fixed, slope float64, ok bool) {
	var points []point
	for frames, agents := range byDepth(r, "ns/sample") {
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
