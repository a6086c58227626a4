package main

import (
	"fmt"
	"time"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

const tickPairs = 9

// tickTime is what an interrupt for a sample takes from its CPU, measured by this program, not by the agent.
func tickTime() (time.Duration, error) {
	list, err := agents.InterruptTimes(tickPairs)
	if err != nil {
		return 0, err
	}
	ns := board.Median(list)
	if ns <= 0 {
		return 0, fmt.Errorf("an interrupt takes %v ns: the machine is too busy to measure it", ns)
	}
	return time.Duration(ns), nil
}

// add writes one window.
func (b *bench) add(m *measured, i int) {
	part := func(cpus float64, unit string) board.Value {
		return board.Value{V: 100 * cpus / m.budget, Unit: unit + "-%budget"}
	}
	mode := 0.0
	if m.summary {
		mode = 1
	}
	b.report.Add(fmt.Sprintf("Governor/stage=%s/window=%d", m.stage, i), 1,
		board.Value{V: m.busy, Unit: "busy-CPUs"}, board.Value{V: m.load, Unit: "load"}, board.Value{V: m.rate, Unit: "Hz"}, board.Value{V: m.ceiling, Unit: "ceiling-Hz"},
		board.Value{V: mode, Unit: "summary"}, part(m.spent, "spent"), part(m.outside.sum(), "outside"),
		part(m.outside.user, "outside-user"), part(m.outside.bpf, "outside-BPF"), part(m.outside.ticks, "outside-interrupts"),
		part(m.inside.user, "user"), part(m.inside.bpf, "BPF"), part(m.inside.ticks, "interrupts"))
}

// tables compare with what is promised.
func (b *bench) tables(rows []measured) {
	var over, overOutside, low, longest float64
	most, mostOutside := 0.0, 0.0
	for i := range rows {
		m := &rows[i]
		inside, outside := m.spent/m.budget, m.outside.sum()/m.budget
		most, mostOutside = max(most, inside), max(mostOutside, outside)
		if inside > 1 {
			over++
		}
		if outside > 1 {
			overOutside++
		}
		if inside >= 0.5 || m.summary || m.rate >= 0.9*m.ceiling {
			low = 0
		} else {
			low++
		}
		longest = max(longest, low)
	}
	n := len(rows)
	b.report.Printf("\n# %-44s %10s %10s\n", fmt.Sprintf("%d windows of %v, budget %g %% of the CPUs", n, b.window, b.cpu), "measured", "goal")
	b.report.Goal("windows over the budget, by its own account", over, 0)
	b.report.Goal("windows over the budget, from outside", overOutside, 0)
	b.report.Goal("the dearest window, % of the budget", 100*most, 100)
	b.report.Goal("the same from outside", 100*mostOutside, 100)
	b.report.Goal("windows in a row below half of it", longest, within)
	b.report.Printf("# The last: of which neither the ceiling of the rate nor summary mode is the reason.\n")
	start, _ := b.report.Median("StartUp", "cpu-s")
	b.report.Printf("# The agent's start, before these windows, took %.2f s of CPU time: it has no budget.\n", start)
}

// pictured takes what is drawn.
func (b *bench) pictured(rows []measured) *picture {
	p := &picture{title: fmt.Sprintf("pprofd agent, budget %g %% of the CPUs, governed every %v", b.cpu, b.window), window: b.window.Seconds()}
	p.outside = []float64{}
	for i := range rows {
		m := &rows[i]
		p.budget, p.cpus = m.budget, m.budget/b.cpu*100
		p.at, p.busy = append(p.at, m.at), append(p.busy, m.busy)
		p.rate, p.ceiling = append(p.rate, m.rate), append(p.ceiling, m.ceiling)
		p.spent, p.outside = append(p.spent, m.spent), append(p.outside, m.outside.sum())
		p.summary = append(p.summary, m.summary)
	}
	return p
}
