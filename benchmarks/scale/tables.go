package main

import (
	"fmt"
	"slices"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// The project's goals for the largest machine: user space keeps up with 25,344 samples a second.
const (
	goalCore = 5   // percent of a core
	goalRSS  = 150 // MB
)

// tables writes medians and goals.
func tables(r *board.Report, c *config) {
	r.Printf("\n# %4s %9s %8s %9s %7s %8s %8s %8s %8s %9s %9s %6s\n", "CPUs", "processes", "binaries",
		"ns/sample", "% core", "2nd half", "+ write", "add, s", "write, s", "steady MB", "peak MB", "lost")
	for _, w := range slices.Concat(c.rows, []row{pacedRow(c)}) {
		m := func(unit string) float64 { v, _ := r.Median(w.name(), unit); return v }
		if m("ns/sample") == 0 {
			continue
		}
		mark := ""
		if w.paced {
			mark = "  in real time"
		}
		r.Printf("# %4d %9d %8d %9.0f %7.2f %8.2f %8.2f %8.2f %8.2f %9.1f %9.1f %6.0f%s\n", w.cpus, w.processes, w.binaries, m("ns/sample"),
			m("%core"), m("%core-2nd-half"), m("%core-with-write"), m("add-cpu-s"), m("write-cpu-s"), m("steady-RSS-B")/1e6, m("peak-RSS-B")/1e6, m("lost"), mark)
	}
	if v, ok := r.Median(reading, "ns/sample"); ok {
		b, _ := r.Median(reading, "B/sample")
		r.Printf("# reading and decoding alone: %.0f ns/sample of %.0f B\n", v, b)
	}
	goals(r, c)
}

func pacedRow(c *config) row {
	w := largest(c)
	w.paced = true
	return w
}

func goals(r *board.Report, c *config) {
	w := largest(c)
	r.Printf("\n# %-44s %10s %10s\n", fmt.Sprintf("goal, %d CPUs, %d processes", w.cpus, w.processes), "measured", "at most")
	for _, g := range []struct {
		text, unit   string
		scale, limit float64
	}{
		{"user space, % of a core, first minute", "%core", 1, goalCore},
		{"its second half, when the programs are known", "%core-2nd-half", 1, goalCore},
		{"the same with the writing of profiles", "%core-with-write", 1, goalCore},
		{"steady RSS, MB", "steady-RSS-B", 1e-6, goalRSS},
		{"peak RSS, MB", "peak-RSS-B", 1e-6, goalRSS},
		{"samples lost", "lost", 1, 0},
	} {
		if v, ok := r.Median(w.name(), g.unit); ok {
			r.Goal(g.text, v*g.scale, g.limit)
		}
	}
	if v, ok := growth(r, c); ok {
		r.Goal("growth of memory: processes x 10, binaries as many: RSS x", v, 10)
	}
}

// growth is how much memory grows from a tenth of the processes to all, of the same binaries.
func growth(r *board.Report, c *config) (float64, bool) {
	big := largest(c)
	small := big
	small.processes /= 10
	a, ok1 := r.Median(small.name(), "steady-RSS-B")
	b, ok2 := r.Median(big.name(), "steady-RSS-B")
	return b / a, ok1 && ok2
}

// draw draws the curves.
func draw(r *board.Report, c *config) error {
	big := largest(c)
	series := func(unit string, scale float64, x func(row) int, in func(row) bool) (s board.Series) {
		for _, w := range c.rows {
			if v, ok := r.Median(w.name(), unit); ok && in(w) {
				s.X, s.Y = append(s.X, float64(x(w))), append(s.Y, v*scale)
			}
		}
		return s
	}
	processes := func(w row) int { return w.processes }
	var cost, memory []board.Series
	for _, n := range binaries(c.rows) {
		in := func(w row) bool { return w.binaries == n && w.cpus == big.cpus }
		c, m := series("ns/sample", 1e-3, processes, in), series("steady-RSS-B", 1e-6, processes, in)
		c.Name = fmt.Sprintf("%d binaries", n)
		m.Name = c.Name
		if len(c.X) > 0 {
			cost, memory = append(cost, c), append(memory, m)
		}
	}
	byCPU := series("%core", 1, func(w row) int { return w.cpus }, func(w row) bool { return w.processes == big.processes && w.binaries == big.binaries })
	sortByX(&byCPU)
	return board.WriteSVG(c.svg,
		board.Chart{Title: fmt.Sprintf("user-space CPU time of a sample, %d CPUs at 99 Hz", big.cpus), X: "processes", Y: "µs", LogX: true, Lines: cost},
		board.Chart{Title: "steady memory", X: "processes", Y: "MB RSS", LogX: true, Lines: memory},
		board.Chart{Title: fmt.Sprintf("user space for %d processes of %d binaries", big.processes, big.binaries), X: "CPUs at 99 Hz", Y: "% of one core", LogX: true,
			Lines: []board.Series{byCPU}})
}

// binaries are the numbers of distinct programs that there are rows of.
func binaries(rows []row) (list []int) {
	for _, w := range rows {
		list = append(list, w.binaries)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func sortByX(s *board.Series) {
	order := make([]int, len(s.X))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(s.X[a] - s.X[b]) })
	x, y := slices.Clone(s.X), slices.Clone(s.Y)
	for i, j := range order {
		s.X[i], s.Y[i] = x[j], y[j]
	}
}
