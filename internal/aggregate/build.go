package aggregate

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// Names of frames that no function has.
const (
	LostFrame      = "[lost]"      // samples without a stack; the label "lost" says why
	TruncatedFrame = "[truncated]" // root of stacks that are deeper than what is walked
	BrokenFrame    = "[broken]"    // root of stacks whose walk could not go on
	NoStackFrame   = "[unknown]"   // samples whose stack is empty
)

// BuildOptions describe the profiles to build.
type BuildOptions struct {
	Kind       uint8
	Type, Unit string // of the weights; "cpu", "nanoseconds"
	Period     int64  // in Unit
	Start      time.Time
	Duration   time.Duration
	Comments   []string
	Merge      bool // one profile for all targets, under target 0
	// Targets have a profile each also where they have no samples. Without Merge.
	Targets []uint32
	// Main is the image of a target's program, 0 where there is none; may be nil. Its mapping comes first
	// in the profile, samples or not: readers take that for the program that was profiled.
	Main func(target uint32) objfile.ImageID
	// TargetLabels are added to each sample of a target; may be nil. Useful with Merge.
	TargetLabels func(target uint32) []Label
}

// Built is one profile and what it holds.
type Built struct {
	Target  uint32
	Profile *profile.Profile
	Samples Value // without Lost
	Lost    Value
}

// Build makes the profiles, one at a time and by target, so that only one needs to be in memory.
// The profile is the caller's, who may add to its Comments. The table must not change meanwhile.
func (t *Table) Build(images symbolize.Images, sym *symbolize.Symbolizer, o BuildOptions) iter.Seq[Built] {
	return func(yield func(Built) bool) {
		sym.Prepare(t.kernelAddrs())
		if o.Merge {
			yield(t.build(images, sym, o, t.pick(o.Kind, nil)))
			return
		}
		targets := t.targets(o.Kind)
		for _, target := range o.Targets {
			targets[target] = true
		}
		for _, target := range slices.Sorted(maps.Keys(targets)) {
			if !yield(t.build(images, sym, o, t.pick(o.Kind, &target))) {
				return
			}
		}
	}
}

// selection is what goes into one profile.
type selection struct {
	target  uint32
	entries []*entry
	lost    []lostKey
}

func (t *Table) pick(kind uint8, target *uint32) selection {
	var s selection
	if target != nil {
		s.target = *target
	}
	for i := range t.entries.n {
		if e := t.entries.at(i); e.key.Kind == kind && (target == nil || e.key.Target == *target) {
			s.entries = append(s.entries, e)
		}
	}
	for k := range t.lost {
		if k.kind == kind && (target == nil || k.target == *target) {
			s.lost = append(s.lost, k)
		}
	}
	slices.SortFunc(s.lost, func(a, b lostKey) int {
		return cmp.Or(cmp.Compare(a.target, b.target), cmp.Compare(a.reason, b.reason))
	})
	return s
}

// targets are those that the selection has anything of, in order.
func (s *selection) targets() []uint32 {
	var list []uint32
	for _, e := range s.entries {
		list = append(list, e.key.Target)
	}
	for _, k := range s.lost {
		list = append(list, k.target)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (t *Table) kernelAddrs() []objfile.Addr {
	var list []objfile.Addr
	for i := range t.addrs.list.n {
		if a := *t.addrs.list.at(i); a.Image == objfile.KernelImage {
			list = append(list, a)
		}
	}
	return list
}

func (t *Table) build(images symbolize.Images, sym *symbolize.Symbolizer, o BuildOptions, s selection) Built {
	b := newBuilder(t, images, sym, o)
	b.main(s)
	r := Built{Target: s.target, Profile: b.p}
	for _, e := range s.entries {
		b.add(e)
		r.Samples.Count += e.value.Count
		r.Samples.Sum += e.value.Sum
	}
	for _, k := range s.lost {
		v := t.lost[k]
		b.lost(k, v)
		r.Lost.Count += v.Count
		r.Lost.Sum += v.Sum
	}
	b.finish()
	return r
}

// emptyProfile has the header that runtime/pprof gives a CPU profile (runtime/pprof/proto.go: build).
func emptyProfile(o BuildOptions) *profile.Profile {
	weight := &profile.ValueType{Type: cmp.Or(o.Type, "cpu"), Unit: cmp.Or(o.Unit, "nanoseconds")}
	period := *weight
	return &profile.Profile{
		SampleType:    []*profile.ValueType{{Type: "samples", Unit: "count"}, weight},
		PeriodType:    &period,
		Period:        o.Period,
		TimeNanos:     o.Start.UnixNano(),
		DurationNanos: o.Duration.Nanoseconds(),
		Comments:      slices.Clone(o.Comments),
	}
}
