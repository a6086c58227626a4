package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/pprofd/pprofd/benchmarks/board"
)

func benchName(r row, agent string) string {
	return "Accuracy/go=" + r.goName()[len("go"):] + "/mode=" + r.mode.name + "/agent=" + agent
}

// lines writes a line for each window.
func lines(b *board.Report, r row, a attempt) {
	if len(a.Windows) > 0 {
		b.Facts([]board.Fact{{Key: "build", Value: a.Build}, {Key: "loadavg", Value: a.Load}})
	}
	for i := range a.Windows {
		w := &a.Windows[i]
		b.Add(benchName(r, w.Agent), int(w.Samples), w.values()...)
	}
}

func (w *window) values() []board.Value {
	values := []board.Value{
		{V: 100 * w.Got.Stacks, Unit: "stacks-%"}, {V: 100 * w.Ceiling.Stacks, Unit: "ceiling-%"}, {V: w.diff(), Unit: "diff-pt"},
		{V: w.mixDiff(), Unit: "mix-diff-pt"},
		{V: 100 * w.Any.Stacks, Unit: "any-%"}, {V: 100 * w.AnyCeiling.Stacks, Unit: "any-ceiling-%"},
		{V: 100 * w.Got.LeafCaller, Unit: "leafcaller-%"},
		{V: w.Got.Flat, Unit: "flat"}, {V: w.Ceiling.Flat, Unit: "flat-ceiling"},
		{V: w.Got.Cum, Unit: "cum"}, {V: w.Ceiling.Cum, Unit: "cum-ceiling"},
	}
	if w.DeepSamples > 0 {
		values = append(values, board.Value{V: percent(w.Deep, w.DeepSamples), Unit: "deep-%"})
	}
	if w.Agent != ours {
		return values
	}
	return append(values,
		board.Value{V: 100 * w.Got.Lines, Unit: "lines-%"}, board.Value{V: 100 * w.Got.Labels, Unit: "labels-%"},
		board.Value{V: w.cpuError(), Unit: "cpu-err-%"}, board.Value{V: percent(w.Bad, w.Records), Unit: "bad-%"},
		board.Value{V: percent(w.Got.Excluded, w.Got.Weight+w.Got.Excluded), Unit: "out-%"}, board.Value{V: percent(w.Lost, w.Records), Unit: "lost-%"})
}

// cpuError is how far the sum of the samples is from the process's CPU time, in percent of it.
func (w *window) cpuError() float64 { return percent(w.SampledNS-w.UsedNS, w.UsedNS) }

func percent[T int64 | uint64](part, all T) float64 {
	if all == 0 {
		return 0
	}
	return 100 * float64(part) / float64(all)
}

// columns are the units of the table at the end, with their widths.
var columns = []string{"stacks-%", "ceiling-%", "mix-diff-pt", "any-%", "any-ceiling-%", "leafcaller-%", "lines-%", "labels-%", "flat", "cum", "deep-%", "bad-%", "lost-%", "out-%"}

// table writes the medians of each row and agent, and the verdicts.
func table(b *board.Report, rows []row, s *state) {
	b.Printf("\n# medians; verdict: points of stacks-%% above (below) the ceiling, goal %+d\n# %-28s", goal, "row")
	for _, c := range columns {
		b.Printf(" %*s", len(c), c)
	}
	b.Printf("  %s\n", "cpu-err-%")
	for _, r := range rows {
		for _, agent := range agentsOf(s.of(r)) {
			tableLine(b, r, agent, s.of(r))
		}
	}
	b.Printf("\n# %-20s %s\n", "row", "verdict")
	missed, unmeasured := 0, 0
	for _, r := range rows {
		b.Printf("# %-20s %s\n", r.name(), verdict(s.of(r)))
		j := judge(s.of(r))
		if j.missed {
			missed++
		}
		if len(j.each) == 0 {
			unmeasured++
		}
	}
	b.Printf("# %d rows, %d missed the goal, %d not measured\n", len(rows), missed, unmeasured)
}

func tableLine(b *board.Report, r row, agent string, attempts []attempt) {
	name := r.name()
	if agent != ours {
		name = "  " + agent
	}
	b.Printf("# %-28s", name)
	for _, c := range columns {
		text := "-"
		if v, ok := b.Median(benchName(r, agent), c); ok {
			text = fmt.Sprintf("%.*f", decimals(c), v)
		}
		b.Printf(" %*s", len(c), text)
	}
	if agent == ours {
		b.Printf("  %s", cpuVerdict(attempts))
	}
	b.Printf("\n")
}

func decimals(unit string) int {
	if slices.Contains([]string{"flat", "cum"}, unit) {
		return 3
	}
	return 2
}

// cpuVerdict compares the sum of all samples with the CPU time. Samples are independent enough for the standard error of a count:
// in truth it is smaller, since each CPU is sampled at equal distances.
func cpuVerdict(attempts []attempt) string {
	var sampled, used, samples int64
	for _, a := range attempts {
		for _, w := range a.ours() {
			sampled, used, samples = sampled+w.SampledNS, used+w.UsedNS, samples+w.Samples
		}
	}
	off, allowed := percent(sampled-used, used), max(2, 300/math.Sqrt(float64(max(samples, 1))))
	text := fmt.Sprintf("%+.2f", off)
	if math.Abs(off) > allowed {
		text += fmt.Sprintf(" MISSED, allowed %.1f", allowed)
	}
	return text
}
