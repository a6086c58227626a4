package main

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// tables writes medians, what is computed from them, and goals.
func (b *bench) tables() {
	b.throughputTable()
	b.useTable()
	b.computed()
	b.goals()
	b.floorTable()
	b.memoryFit()
}

func (b *bench) throughputTable() {
	lines := ""
	for _, n := range b.sizes {
		lines += b.throughputLines(n)
	}
	if lines != "" {
		b.report.Printf("\n# throughput with a profiler / without, busy: median of pairs, 95 %% interval\n# %9s %6s %-9s %8s %18s %6s\n%s",
			"processes", "Hz", "profiler", "ratio", "", "pairs", lines)
	}
}

// throughputLines has a line for each profiler that was measured beside n processes.
func (b *bench) throughputLines(n int) (lines string) {
	for _, w := range b.watchers(n) {
		if ratios := b.report.Values(throughputName(n, w.agent, w.hz), "on/off"); len(ratios) > 0 {
			m := board.MedianInterval(ratios)
			lines += fmt.Sprintf("# %9d %6d %-9s %8.4f  %.4f ... %.4f %6d\n", n, w.hz, w.agent, m.Median, m.Low, m.High, len(ratios))
		}
	}
	return lines
}

// row is one measurement of an agent's use.
type row struct {
	load
	hz    int
	agent string
}

func (b *bench) rows() (list []row) {
	for _, l := range b.loads() {
		for _, a := range b.agentsOn(l) {
			for _, hz := range b.ratesOn(l, a) {
				if _, ok := b.report.Median(useName(l, a.Name, hz), "cpu-s"); ok {
					list = append(list, row{l, hz, a.Name})
				}
			}
		}
	}
	return list
}

func (b *bench) median(w row, unit string) float64 {
	v, _ := b.report.Median(useName(w.load, w.agent, w.hz), unit)
	return v
}

func (b *bench) useTable() {
	rows := b.rows()
	if len(rows) == 0 {
		return
	}
	b.report.Printf("\n# %9s %8s %4s %4s %-8s %7s %4s %8s %8s %8s %8s %7s %9s %8s %8s %8s\n", "processes", "binaries", "load", "Hz", "agent",
		"CPU s", "in s", "start MB", "steady", "peak MB", "maps MB", "samples", "ns/sample", "BPF ns", "1st, ms", "B/stack")
	for _, w := range rows {
		m := func(unit string) float64 { return b.median(w, unit) }
		state := "busy"
		if w.idle {
			state = "idle"
		}
		b.report.Printf("# %9d %8d %4s %4d %-8s %7.3f %4.0f %8.1f %8.1f %8.1f %8.1f %7.0f %9.0f %8.0f %8.1f %8.1f\n", w.processes, w.binaries, state, w.hz, w.agent,
			m("cpu-s"), m("run-s"), m("start-RSS-B")/1e6, m("steady-RSS-B")/1e6, m("peak-RSS-B")/1e6, m("BPF-maps-B")/1e6, m("samples"),
			m("agent-ns/sample"), m("BPF-ns/sample"), m("first-sample-ms"), m("disk-B/stack"))
	}
	for _, l := range b.loads() {
		if v, ok := b.report.Median("Ring/"+l.String(), "ring-B/sample"); ok {
			b.report.Printf("# ring buffer, %d processes of %d programs: %.0f B a sample\n", l.processes, l.binaries, v)
		}
	}
}

// computed is what busy CPUs lose by sampling, from counted parts.
func (b *bench) computed() {
	interrupt, ok := b.report.Median("Interrupt", "ns/interrupt")
	if !ok {
		return
	}
	m := board.MedianInterval(b.report.Values("Interrupt", "ns/interrupt"))
	b.report.Printf("\n# an interrupt with an empty BPF program takes %.1f µs (%.1f ... %.1f)\n", m.Median/1e3, m.Low/1e3, m.High/1e3)
	b.report.Printf("# computed overhead, %% of each busy CPU's time\n# %9s %6s %-8s %9s %9s %9s %9s\n", "processes", "Hz", "agent", "interrupt", "BPF", "agent", "sum")
	for _, w := range b.rows() {
		bpf := b.median(w, "BPF-ns/sample")
		if w.idle || w.binaries > 1 || bpf == 0 {
			continue
		}
		percent := func(ns float64) float64 { return 100 * ns * float64(w.hz) / 1e9 }
		agent := 100 * b.median(w, "cpu-s") / b.median(w, "run-s") / float64(runtime.NumCPU())
		b.report.Printf("# %9d %6d %-8s %9.4f %9.4f %9.4f %9.4f\n", w.processes, w.hz, w.agent, percent(interrupt), percent(bpf), agent,
			percent(interrupt+bpf)+agent)
		b.report.Add(fmt.Sprintf("Computed/processes=%d/hz=%d/agent=%s", w.processes, w.hz, w.agent), 1,
			board.Value{V: percent(interrupt), Unit: "%interrupt"}, board.Value{V: percent(bpf), Unit: "%BPF"}, board.Value{V: agent, Unit: "%agent"})
	}
}

// flatTolerance is by how much more a sample may cost BPF with many processes than with one, where it hits other caches.
const flatTolerance = 1.5

// goals of the row with one process at 99 Hz, and that the others are in proportion.
func (b *bench) goals() {
	one := row{load{1, 1, false}, 99, ours}
	if b.median(one, "run-s") == 0 {
		return
	}
	b.report.Printf("\n# %-44s %10s %10s\n", "goal, one process, two busy cores, 99 Hz", "measured", "at most")
	b.report.Goal("agent CPU, s per 60 s", b.median(one, "cpu-s")*60/b.median(one, "run-s"), 0.15)
	b.report.Goal("peak RSS, MB", b.median(one, "peak-RSS-B")/1e6, 30)
	b.report.Goal("BPF maps, MB", b.median(one, "BPF-maps-B")/1e6, 4)
	// 5 µs are the goal up to 32 frames without labels: see benchmarks/cost. A request of the service has a label, and its
	// samples are often in the kernel, whose stack costs as much again (floor.go).
	if peer := b.median(row{one.load, one.hz, "bpftrace"}, "BPF-ns/sample"); peer > 0 {
		b.report.Goal("BPF time of a sample of the service, of bpftrace's", b.median(one, "BPF-ns/sample")/peer, 1)
	}
	for _, w := range b.rows() {
		if w.agent == one.agent && w.processes > 1 && !w.idle && w.hz == one.hz {
			b.report.Goal(fmt.Sprintf("BPF time of a sample, %d processes of %d : one", w.processes, w.binaries),
				b.median(w, "BPF-ns/sample")/b.median(one, "BPF-ns/sample"), flatTolerance)
		}
	}
}

// memoryFit lays base + programs + processes through pprofd's steady memory.
func (b *bench) memoryFit() {
	var points []rssPoint
	for _, w := range b.rows() {
		if w.agent == ours && w.hz == 99 && !w.idle {
			points = append(points, rssPoint{w.binaries, w.processes, b.median(w, "steady-RSS-B")})
		}
	}
	if base, binary, process, ok := fitRSS(points); ok {
		b.report.Printf("# steady RSS of pprofd: %.1f MB + %.0f kB a program + %.0f kB a process\n", base/1e6, binary/1e3, process/1e3)
		b.report.Add("Memory/agent=pprofd", 1, board.Value{V: base, Unit: "base-B"}, board.Value{V: binary, Unit: "B/program"},
			board.Value{V: process, Unit: "B/process"})
	}
}

// draw draws throughput by rate and memory by processes.
func (b *bench) draw() error {
	var lines []board.Series
	for _, n := range b.sizes {
		s := board.Series{Name: fmt.Sprintf("pprofd, %d processes", n)}
		for _, w := range b.watchers(n) {
			if v, ok := b.report.Median(throughputName(n, w.agent, w.hz), "on/off"); ok && w.agent == ours {
				s.X, s.Y = append(s.X, float64(w.hz)), append(s.Y, 100*v)
			}
		}
		if len(s.X) > 0 {
			lines = append(lines, s)
		}
	}
	var charts []board.Chart
	if len(lines) > 0 {
		charts = append(charts, board.Chart{Title: "throughput while profiled", X: "Hz", Y: "% of that without", LogX: true, Lines: lines})
	}
	if memory := b.memoryLines(); len(memory) > 0 {
		charts = append(charts, board.Chart{Title: "pprofd's steady memory, 99 Hz, busy", X: "processes", Y: "MB RSS", LogX: true, Lines: memory})
	}
	if len(charts) == 0 {
		return nil
	}
	return board.WriteSVG(b.svg, charts...)
}

func (b *bench) memoryLines() []board.Series {
	same, distinct := board.Series{Name: "of one program"}, board.Series{Name: "of as many programs"}
	for _, w := range b.rows() {
		if w.agent != ours || w.hz != 99 || w.idle {
			continue
		}
		for _, s := range []*board.Series{&same, &distinct} {
			if w.processes == 1 || (w.binaries == 1) == (s == &same) {
				s.X, s.Y = append(s.X, float64(w.processes)), append(s.Y, b.median(w, "steady-RSS-B")/1e6)
			}
		}
	}
	return slices.DeleteFunc([]board.Series{same, distinct}, func(s board.Series) bool { return len(s.X) == 0 })
}
