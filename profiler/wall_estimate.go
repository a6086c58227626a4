package profiler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
)

// Estimable says whether an error of Memory.Add says that a profile of contention is switched off, or that where it lies is not known: Wall
// can estimate it.
func Estimable(err error) bool { return off(err) }

// mutexReasons and blockReasons are what the runtime says of goroutines that wait for what it counts (runtime/runtime2.go: waitReasonStrings).
// Up to Go 1.19 it says semacquire of all that package sync makes of semaphores, up to Go 1.24 of sync.WaitGroup; some of its own are
// among them, see counted.
var (
	mutexReasons = []string{"sync.Mutex.Lock", "sync.RWMutex.Lock", "sync.RWMutex.RLock", semacquire}
	blockReasons = append([]string{"chan receive", "chan send", "select", "sync.Cond.Wait", "sync.WaitGroup.Wait"}, mutexReasons...)
)

const semacquire = "semacquire"

// contends says whether goroutines that wait for a reason may belong to a profile of contention.
func contends(kind, reason string) bool {
	if kind == KindMutex {
		return slices.Contains(mutexReasons, reason)
	}
	return slices.Contains(blockReasons, reason)
}

// estimate makes a profile of contention of what was seen.
func (t *wallTarget) estimate(kind string) (*export.Profile, error) {
	out := t.blank(kind)
	var parts []*profile.Profile
	var left time.Duration
	for _, p := range slices.Backward(t.programs) {
		o := t.options(p, out)
		events := profile.ValueType{Type: "contentions", Unit: "count"}
		o.Types = []profile.ValueType{events, {Type: "delay", Unit: "nanoseconds"}}
		o.PeriodType, o.Period = events, 1
		s := aggregate.NewSnapshot(p.g.images.Get, p.g.sym, o)
		left += p.contention(kind, s)
		parts = append(parts, s.Profile())
	}
	parts[0].Comments = append(parts[0].Comments, t.estimateComments(kind, left)...)
	var err error
	out.Data, err = mergeWall(parts, out.Duration)
	return out, err
}

// contention adds what waited to a profile. left is the time of those that did nothing else: the runtime counts what comes to an end.
func (p *wallProgram) contention(kind string, s *aggregate.Snapshot) (left time.Duration) {
	all := p.groups.at.Sub(p.began)
	for _, g := range p.groups.sorted() {
		if g.State != goruntime.Waiting || !contends(kind, g.Reason) || !p.counted(kind, g) {
			continue
		}
		idle := min(time.Duration(g.whole)*all, g.weight)
		left += idle
		if n := g.contentions(idle, int64(p.index)); n > 0 && g.weight > idle {
			c := &aggregate.Calls{Leaf: g.Leaf, Stack: p.waiting(g.Stack)}
			for _, l := range g.Labels {
				c.Labels = append(c.Labels, aggregate.Label(l))
			}
			s.AddCalls(c, n, (g.weight - idle).Nanoseconds())
		}
	}
	return left
}

// counted says whether the runtime counts a wait for a semaphore: it does those of packages sync and internal/poll.
func (p *wallProgram) counted(kind string, g *wallGroup) bool {
	if g.Reason != semacquire {
		return true
	}
	prefixes := []string{"sync.", "internal/sync.", "internal/poll."}
	if kind == KindMutex {
		prefixes = []string{"sync.(*Mutex).", "sync.(*RWMutex).", "internal/sync.(*Mutex)."}
	}
	return slices.ContainsFunc(g.Stack, func(a objfile.Addr) bool {
		return slices.ContainsFunc(p.names(a), func(name string) bool {
			return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		})
	})
}

func (p *wallProgram) names(a objfile.Addr) (names []string) {
	for _, f := range p.g.sym.Frames(a) {
		names = append(names, f.Func)
	}
	return names
}

// waiting is a stack as the runtime notes it when a wait has ended: from the function that programs call on.
func (p *wallProgram) waiting(stack []objfile.Addr) []objfile.Addr {
	for i, a := range stack {
		if !slices.ContainsFunc(p.names(a), func(name string) bool { return !parks(name) }) {
			continue
		}
		return stack[i:]
	}
	return stack
}

// parks says whether a function belongs to how goroutines are made to wait, below what programs call.
func parks(name string) bool {
	switch name {
	case "runtime.chanrecv1", "runtime.chanrecv2", "runtime.chansend1", "runtime.selectgo":
		return false
	case "sync.(*Mutex).lockSlow", "internal/sync.(*Mutex).lockSlow":
		return true
	}
	for _, prefix := range []string{"runtime.", "sync.runtime_", "internal/sync.runtime_", "internal/poll.runtime_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// estimateComments say what is to be thought of an estimate.
func (t *wallTarget) estimateComments(kind string, left time.Duration) []string {
	d := t.ended.Sub(t.began)
	lines := []string{
		"pprofd " + t.w.cfg.Version,
		fmt.Sprintf("an estimate: the program has its %s profile switched off", kind),
		fmt.Sprintf("seen in %d snapshots at random moments, %.3g a second: delay is for how long goroutines waited meanwhile, right on average",
			t.snapshots, float64(t.snapshots)/max(d.Seconds(), 1e-9)),
		"contentions follow from how many of the waits that were seen had ended shortly afterwards: right within a factor of two, but too few of waits that are shorter than a millisecond",
		fmt.Sprintf("left out: goroutines that did nothing but wait all the time, %v together", left.Round(time.Millisecond)),
	}
	if kind == KindMutex {
		lines = append(lines, "delay is with who waits for a mutex; the runtime's own profile has it with who unlocks it")
	}
	return lines
}
