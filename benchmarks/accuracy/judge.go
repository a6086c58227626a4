package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/testprog"
)

// goal is how many points pprofd's share of exact stacks may be below the ceiling.
const goal = -1

// judgement is what the measurements of a row say of pprofd.
type judgement struct {
	each   []float64 // by measurement: median, over the windows, of the share of exact stacks less the ceiling, in points
	all    float64   // the same over the windows of all measurements
	mix    float64   // as all, with the mix of paths of the process's own profile: what wrong stacks take away
	missed bool
	why    string // there are no windows: the reason
}

func judge(attempts []attempt) judgement {
	var j judgement
	var all, mix []float64
	for _, a := range attempts {
		j.why = a.Why
		var diffs []float64
		for _, w := range a.ours() {
			diffs = append(diffs, w.diff())
			mix = append(mix, w.mixDiff())
		}
		if len(diffs) > 0 {
			j.each = append(j.each, board.Median(diffs))
			all = append(all, diffs...)
		}
	}
	if len(all) > 0 {
		j.all, j.mix = board.Median(all), board.Median(mix)
		j.missed = j.all < goal
	}
	return j
}

// diff is in points.
func (w *window) diff() float64 { return 100 * (w.Got.Stacks - w.Ceiling.Stacks) }

// mixDiff is in points.
func (w *window) mixDiff() float64 { return 100 * (w.SameMix - w.Ceiling.Stacks) }

func (a *attempt) ours() []window { return a.by(ours) }

func (a *attempt) by(agent string) (list []window) {
	for _, w := range a.Windows {
		if w.Agent == agent {
			list = append(list, w)
		}
	}
	return list
}

// verdict is the judgement in words, with the reason where the goal is missed.
func verdict(attempts []attempt) string {
	j := judge(attempts)
	if len(attempts) == 0 {
		return "not measured yet"
	}
	if len(j.each) == 0 {
		return "not measured: " + j.why
	}
	text := fmt.Sprintf("%+.1f, same mix %+.1f", j.all, j.mix)
	if len(j.each) > 1 {
		text += fmt.Sprintf(" (first %+.1f, again %+.1f)", j.each[0], j.each[1])
	}
	if !j.missed {
		return "ok " + text
	}
	return "MISSED " + text + ": " + reason(attempts)
}

// departure is where stacks leave the truth: the callee is the outermost frame up to which some stack of the truth begins
// with the same frames, and the truth never has it called by the caller there. A caller "" is a stack that ends there.
type departure struct{ callee, caller string }

// excess is how much more of pprofd's profiles than of the process's own departs from the truth at a place.
type excess struct {
	departure
	got, ceiling float64 // shares of all samples
	heaviest     testprog.Miss
}

// excesses come from stacks that no window of the row but the next has, the heaviest first.
func excesses(windows []window) []excess {
	all := map[departure]*excess{}
	for i := range windows {
		w := &windows[i]
		n := float64(len(windows))
		for _, m := range w.Any.Misses {
			e := at(all, m)
			e.got += float64(m.Weight) / float64(max(w.Any.Weight, 1)) / n
			if m.Weight > e.heaviest.Weight {
				e.heaviest = m
			}
		}
		for _, m := range w.AnyCeiling.Misses {
			at(all, m).ceiling += float64(m.Weight) / float64(max(w.AnyCeiling.Weight, 1)) / n
		}
	}
	list := make([]excess, 0, len(all))
	for _, e := range all {
		list = append(list, *e)
	}
	slices.SortFunc(list, func(a, b excess) int {
		return cmp.Or(cmp.Compare(b.got-b.ceiling, a.got-a.ceiling), cmp.Compare(a.callee, b.callee), cmp.Compare(a.caller, b.caller))
	})
	return list
}

// at returns the entry of the place where a miss departs.
func at(all map[departure]*excess, m testprog.Miss) *excess {
	var d departure
	if m.Shared > 0 {
		d.callee = m.Stack[m.Shared-1]
	}
	if m.Shared < len(m.Stack) {
		d.caller = m.Stack[m.Shared]
	}
	if all[d] == nil {
		all[d] = &excess{departure: d}
	}
	return all[d]
}

// reason names the places where most of what is missing departs from the truth.
func reason(attempts []attempt) string {
	const places = 3
	var windows []window
	for _, a := range attempts {
		windows = append(windows, a.ours()...)
	}
	if j := judge(attempts); j.mix >= goal {
		return "the process's own profiles have less of short bursts, not other stacks: " + unevenness(windows)
	}
	var texts []string
	for _, e := range excesses(windows) {
		if len(texts) < places && e.got > e.ceiling {
			texts = append(texts, e.String())
		}
	}
	if len(texts) == 0 {
		return "no stack is missing that the process's own profiles do not miss as often: noise"
	}
	return strings.Join(texts, "; ")
}

// unevenness names the paths of which pprofd's profiles have more than the process's own.
func unevenness(windows []window) string {
	const paths = 4
	mean := map[string][2]float64{}
	for i := range windows {
		for path, m := range windows[i].Mix {
			sum := mean[path]
			mean[path] = [2]float64{sum[0] + m[0]/float64(len(windows)), sum[1] + m[1]/float64(len(windows))}
		}
	}
	names := slices.SortedFunc(maps.Keys(mean), func(a, b string) int {
		return cmp.Or(cmp.Compare(mean[b][0]-mean[b][1], mean[a][0]-mean[a][1]), cmp.Compare(a, b))
	})
	var texts []string
	for _, path := range names[:min(paths, len(names))] {
		texts = append(texts, fmt.Sprintf("%s %.2f %% instead of %.2f %%", path, 100*mean[path][1], 100*mean[path][0]))
	}
	return strings.Join(texts, ", ")
}

func (e *excess) String() string {
	const frames = 6
	stack := strings.Join(e.heaviest.Stack[:min(frames, len(e.heaviest.Stack))], " < ")
	return fmt.Sprintf("%.2f %% (ceiling %.2f %%) have %s called by %s, such as %s (%d of %d frames shared)", 100*e.got, 100*e.ceiling,
		shorten(cmp.Or(e.callee, "nothing")), shorten(cmp.Or(e.caller, "nobody")), shorten(stack), e.heaviest.Shared, len(e.heaviest.Stack))
}

// agentsOf are the names of a row's agents, pprofd first.
func agentsOf(attempts []attempt) []string {
	names := map[string]bool{}
	for _, a := range attempts {
		for _, w := range a.Windows {
			names[w.Agent] = true
		}
	}
	return slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		switch ours {
		case a:
			return -1
		case b:
			return 1
		}
		return cmp.Compare(a, b)
	})
}
