package profiler

import (
	"cmp"
	"slices"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"

	"github.com/google/pprof/profile"
)

// GoroutineGroup are goroutines that do the same at the same place.
type GoroutineGroup struct {
	State    goruntime.State
	Reason   string
	Stack    []objfile.Addr
	Creator  objfile.Addr
	StartPC  uint64
	Start    string
	Labels   []goruntime.Label
	Locked   bool
	System   bool
	Bubble   uint64
	Complete bool
	Killed   bool // in its thread the process ended
	// Later is how much later the stack was sampled at most, where they run; 0: it was not.
	Later time.Duration
	// Inconsistent: they changed whenever they were read, so that nothing is known but how they began.
	Inconsistent bool

	Count    int
	IDs      []uint64      // the lowest, in order
	Seen     int           // how many of them a garbage collection has seen wait
	Min, Max time.Duration // how long those have waited at least
}

// Limits on what is kept of the goroutines of one process.
const (
	maxGroups      = 1 << 17
	maxGroupFrames = 1 << 22 // of all groups, and of their labels as framesOf counts them: 64 MiB
	maxGroupIDs    = 8
)

// GoroutineGroups counts goroutines by what they do. The zero value is none.
type GoroutineGroups struct {
	Total  int // goroutines
	Left   int // of them those that are in no group: there are too many
	groups map[uint64]*GoroutineGroup
	frames int
}

// Add counts one.
func (s *GoroutineGroups) Add(g *Goroutine) {
	s.Total++
	if s.groups == nil {
		s.groups = make(map[uint64]*GoroutineGroup)
	}
	h := hashOf(g)
	for s.groups[h] != nil && !s.groups[h].has(g) {
		h++
	}
	group := s.groups[h]
	if group == nil {
		frames := framesOf(g.Stack, g.Labels)
		if len(s.groups) >= maxGroups || s.frames+frames > maxGroupFrames {
			s.Left++
			return
		}
		group = newGroup(g)
		s.groups[h] = group
		s.frames += frames
	}
	group.add(g)
}

// framesOf is how many frames take as much memory as a stack and labels, which may be 128 KiB.
func framesOf(stack []objfile.Addr, labels []goruntime.Label) int {
	const frame, label = 16, 32 // bytes
	bytes := 0
	for _, l := range labels {
		bytes += label + len(l.Key) + len(l.Value)
	}
	return len(stack) + (bytes+frame-1)/frame
}

func newGroup(g *Goroutine) *GoroutineGroup {
	return &GoroutineGroup{
		State: g.State, Reason: g.Reason, Stack: slices.Clone(g.Stack), Creator: g.Creator, StartPC: g.StartPC, Start: g.Start,
		Labels: slices.Clone(g.Labels), Locked: g.Locked, System: g.System, Bubble: g.Bubble, Complete: g.Complete, Killed: g.Killed, Later: g.Later,
		Inconsistent: g.Inconsistent,
	}
}

func (s *GoroutineGroup) has(g *Goroutine) bool {
	return s.State == g.State && s.Reason == g.Reason && s.Creator == g.Creator && s.StartPC == g.StartPC && s.Locked == g.Locked &&
		s.Bubble == g.Bubble && s.Inconsistent == g.Inconsistent && s.Complete == g.Complete && s.Killed == g.Killed && (s.Later > 0) == (g.Later > 0) &&
		slices.Equal(s.Stack, g.Stack) && slices.Equal(s.Labels, g.Labels)
}

func (s *GoroutineGroup) add(g *Goroutine) {
	s.Count++
	s.Later = max(s.Later, g.Later)
	if at, _ := slices.BinarySearch(s.IDs, g.ID); at < maxGroupIDs {
		s.IDs = slices.Insert(s.IDs, at, g.ID)
		s.IDs = s.IDs[:min(len(s.IDs), maxGroupIDs)]
	}
	if g.Waited <= 0 {
		return
	}
	if s.Seen == 0 {
		s.Min = g.Waited
	}
	s.Seen++
	s.Min, s.Max = min(s.Min, g.Waited), max(s.Max, g.Waited)
}

// hashOf what has compares.
func hashOf(g *Goroutine) uint64 {
	h := hashStack(g.Stack)
	for _, v := range []uint64{uint64(g.State), g.StartPC, g.Creator.Off, g.Bubble} {
		h = mix(h, v)
	}
	for i := range len(g.Reason) {
		h = mix(h, uint64(g.Reason[i]))
	}
	for _, l := range g.Labels {
		for _, text := range []string{l.Key, l.Value} {
			for i := range len(text) {
				h = mix(h, uint64(text[i]))
			}
		}
	}
	return h
}

func hashStack(stack []objfile.Addr) (h uint64) {
	for _, a := range stack {
		h = mix(h, a.Off^uint64(a.Image)<<48)
	}
	return h
}

// mix adds v to a hash (splitmix64's constants).
func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// Sorted are the groups: that in which the process ended, then the largest first.
func (s *GoroutineGroups) Sorted() []*GoroutineGroup {
	all := make([]*GoroutineGroup, 0, len(s.groups))
	for _, g := range s.groups {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *GoroutineGroup) int {
		if a.Killed != b.Killed {
			return map[bool]int{true: -1, false: 1}[a.Killed]
		}
		return cmp.Or(-cmp.Compare(a.Count, b.Count), cmp.Compare(a.IDs[0], b.IDs[0]))
	})
	return all
}

// Frames of goroutines without a stack.
const (
	runningFrame      = "[running]"      // nobody outside can tell where it is
	inconsistentFrame = "[inconsistent]" // it ran whenever it was read
)

// Profile makes a profile of what is counted, of the kind that runtime/pprof calls goroutine. Besides a goroutine's own labels samples
// have state, and reason where it waits. A goroutine that runs has no stack but its first function.
func (g *Goroutines) Profile(s *GoroutineGroups, start time.Time, version string) *export.Profile {
	count := profile.ValueType{Type: KindGoroutine, Unit: "count"}
	snap := aggregate.NewSnapshot(g.images.Get, g.sym, aggregate.SnapshotOptions{
		Types: []profile.ValueType{count}, PeriodType: count, Period: 1, Start: start, Main: g.space.Main().Image.ID,
	})
	for _, group := range s.Sorted() {
		sample := aggregate.Calls{Stack: group.Stack, Labels: []aggregate.Label{{Key: "state", Value: group.State.String()}, {Key: "reason", Value: group.Reason}}}
		if group.Later > 0 {
			sample.Labels = append(sample.Labels, aggregate.Label{Key: "stack", Value: "sampled later"})
		}
		for _, l := range group.Labels {
			sample.Labels = append(sample.Labels, aggregate.Label(l))
		}
		switch first, ok := g.space.Resolve(group.StartPC); {
		case len(group.Stack) > 0 && !group.Complete:
			sample.Status = aggregate.Truncated
		case len(group.Stack) == 0:
			sample.Leaf = runningFrame
			if group.Inconsistent {
				sample.Leaf = inconsistentFrame
			}
			if ok {
				sample.Stack = []objfile.Addr{first}
			}
		}
		snap.AddCalls(&sample, int64(group.Count))
	}
	p := &export.Profile{Kind: KindGoroutine, PID: int(g.pid), StartTicks: g.start, Comm: g.comm, Start: start, Data: snap.Profile()}
	from := "goroutines read from the process's memory, one after the other, while it went on"
	if g.threads != nil {
		from = "goroutines of a core file"
	}
	p.Data.Comments = append(p.Data.Comments, "pprofd "+version, from)
	return p
}
