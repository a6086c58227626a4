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
	ThrottledFrame = "[throttled]" // samples that were not taken, of a target of which none was: Table.Lost with Throttled
)

// Throttled is why samples are missing that ThrottledFrame stands for.
const Throttled = "throttled"

// BuildOptions describe the profiles to build.
type BuildOptions struct {
	Kind       uint8
	Type, Unit string // of the weights; "cpu", "nanoseconds"
	Period     int64  // in Unit
	// Objects makes a profile of objects, whose weights are bytes; nil: of time.
	Objects *Objects
	// Weight is by how much the weights of a target's samples are to be multiplied; may be nil. Not with Objects.
	Weight   func(target uint32) float64
	Start    time.Time
	Duration time.Duration
	Comments []string
	Merge    bool // one profile for all targets, under target 0
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

// Build makes the profiles, one at a time and by target, so that only one needs to be in memory. Where there are more
// addresses than sym remembers, targets of one program follow one another.
// The profile is the caller's, who may add to its Comments. Samples with the same labels share them. The table must not change meanwhile.
func (t *Table) Build(images symbolize.Images, sym *symbolize.Symbolizer, o BuildOptions) iter.Seq[Built] {
	return func(yield func(Built) bool) {
		names := newNaming(&t.stacks.addrs, sym)
		sym.Prepare(t.addrs())
		if o.Merge {
			yield(t.build(images, names, o, selection{entries: t.ofKind(o.Kind), lost: t.losses(o.Kind)}))
			return
		}
		all := t.byTarget(o)
		many := o.Main != nil && t.stacks.addrs.list.n > sym.MaxCache()
		if many {
			slices.SortStableFunc(all, func(a, b selection) int { return cmp.Compare(o.Main(a.target), o.Main(b.target)) })
		}
		for i, s := range all {
			if many && i > 0 && o.Main(s.target) != o.Main(all[i-1].target) {
				names.forget()
			}
			if !yield(t.build(images, names, o, s)) {
				return
			}
		}
	}
}

// byTarget is what goes into the profile of each target, in order.
func (t *Table) byTarget(o BuildOptions) []selection {
	// All is sorted by numbers that hold all that matters: to look at the entries themselves would cost a miss of the CPU's caches each.
	entries, lost := make([]uint64, 0, t.entries.n), t.losses(o.Kind)
	for i := range t.entries.n {
		if k := &t.entries.at(i).key; k.Kind == o.Kind {
			entries = append(entries, uint64(k.Target)<<32|uint64(i))
		}
	}
	slices.Sort(entries)
	numbers := make([]uint32, len(entries))
	targets := make(map[uint32]bool)
	for i, e := range entries {
		numbers[i] = uint32(e)
		targets[uint32(e>>32)] = true
	}
	for _, k := range lost {
		targets[k.target] = true
	}
	for _, target := range o.Targets {
		targets[target] = true
	}
	all := make([]selection, 0, len(targets))
	for _, target := range slices.Sorted(maps.Keys(targets)) {
		s := selection{target: target}
		var own []uint64
		own, entries = split(entries, func(e uint64) bool { return uint32(e>>32) == target })
		s.entries, numbers = numbers[:len(own)], numbers[len(own):]
		s.lost, lost = split(lost, func(k lostKey) bool { return k.target == target })
		all = append(all, s)
	}
	return all
}

// selection is what goes into one profile.
type selection struct {
	target  uint32
	entries []uint32 // in Table.entries
	lost    []lostKey
}

// ofKind are the numbers of all entries of a kind.
func (t *Table) ofKind(kind uint8) []uint32 {
	list := make([]uint32, 0, t.entries.n)
	for i := range t.entries.n {
		if t.entries.at(i).key.Kind == kind {
			list = append(list, uint32(i))
		}
	}
	return list
}

// losses are those of a kind, by target.
func (t *Table) losses(kind uint8) []lostKey {
	var list []lostKey
	for k := range t.lost {
		if k.kind == kind {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b lostKey) int {
		return cmp.Or(cmp.Compare(a.target, b.target), cmp.Compare(a.reason, b.reason))
	})
	return list
}

// split cuts a list behind its first elements that are in.
func split[T any](list []T, in func(T) bool) (first, rest []T) {
	n := 0
	for n < len(list) && in(list[n]) {
		n++
	}
	return list[:n], list[n:]
}

// targets are those that the selection has anything of, in order.
func (s *selection) targets(t *Table) []uint32 {
	var list []uint32
	for _, n := range s.entries {
		list = append(list, t.entries.at(int(n)).key.Target)
	}
	for _, k := range s.lost {
		list = append(list, k.target)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// addrs are all distinct addresses.
func (t *Table) addrs() []objfile.Addr {
	list := make([]objfile.Addr, t.stacks.addrs.list.n)
	for i := range list {
		list[i] = t.stacks.addr(uint32(i))
	}
	return list
}

func (t *Table) build(images symbolize.Images, names *naming, o BuildOptions, s selection) Built {
	b := newBuilder(t, images, names, o, len(s.entries))
	b.main(s)
	r := Built{Target: s.target, Profile: b.p}
	for i, n := range s.entries {
		if i%fetchEntries == 0 {
			t.fetchStacks(s.entries[i:min(i+fetchEntries, len(s.entries))])
		}
		e := t.entries.at(int(n))
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

// fetchEntries are as many as the CPU fetches at a time.
const fetchEntries = 16

// fetchStacks touches entries and their stacks, as fetch does those of samples.
func (t *Table) fetchStacks(entries []uint32) {
	if t.entries.n < manyEntries {
		return
	}
	touched := int64(0)
	for _, n := range entries {
		touched += int64(t.entries.at(int(n)).stack)
	}
	for _, n := range entries {
		touched += int64(t.stacks.list.at(int(t.entries.at(int(n)).stack)).n)
	}
	for _, n := range entries {
		if e := t.stacks.list.at(int(t.entries.at(int(n)).stack)); e.n > 0 {
			touched += int64(*t.stacks.frames.at(int(e.first)) + *t.stacks.frames.at(int(e.first + e.n - 1)))
		}
	}
	t.touched = touched
}

// emptyProfile has the header that runtime/pprof gives a CPU profile (runtime/pprof/proto.go: build).
func emptyProfile(o BuildOptions) *profile.Profile {
	if o.Objects != nil {
		return emptyObjects(o)
	}
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
