package file

import (
	"slices"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// whoWaits is p as people want to see it in a table, where it is about waiting: each stack from the function on that waits, without those
// that it waits in, which are the same few in all. Other profiles are as they are.
func whoWaits(p *profile.Profile) *profile.Profile {
	if !aboutWaiting(p) {
		return p
	}
	out := &profile.Profile{SampleType: p.SampleType, DefaultSampleType: p.DefaultSampleType, Sample: make([]*profile.Sample, 0, len(p.Sample))}
	for _, s := range p.Sample {
		if slices.Contains(s.Label["state"], "running") {
			out.Sample = append(out.Sample, s)
			continue
		}
		out.Sample = append(out.Sample, &profile.Sample{Location: fromWaiter(s.Location), Value: s.Value})
	}
	return out
}

// aboutWaiting: the types are those of profiles of the kinds goroutine, wall, and block or mutex.
func aboutWaiting(p *profile.Profile) bool {
	i := shownType(p)
	return i >= 0 && slices.Contains([]string{"goroutine", "wall", "delay"}, p.SampleType[i].Type)
}

// fromWaiter is what is left of a stack, leaf first; all of it where nothing would be.
func fromWaiter(stack []*profile.Location) []*profile.Location {
	for i, l := range stack {
		for j, line := range l.Line {
			if line.Function == nil || export.WaitedIn(line.Function.Name) {
				continue
			}
			left := slices.Clone(stack[i:])
			left[0] = &profile.Location{ID: l.ID, Mapping: l.Mapping, Address: l.Address, Line: l.Line[j:]}
			return left
		}
	}
	return stack
}
