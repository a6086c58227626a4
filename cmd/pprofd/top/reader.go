package top

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/profiler"
)

// Runtime is what was read of the process's runtime, or why not.
type Runtime struct {
	At     time.Time // zero: not yet
	Took   time.Duration
	Pause  time.Duration // until it is read again
	States profiler.GoroutineStates
	Groups []Group // with Watch.Stacks only, the most first
	Err    error   // goroutines could not be read
	Heap   Heap
}

// Heap is what the runtime counts of it, and what that was some seconds ago.
type Heap struct {
	goruntime.GC
	Err       error   // it could not be read, and the rest is nothing
	Rated     bool    // what follows is known: it was read more than once
	AllocRate float64 // bytes a second of late
	GCRate    float64 // collections a second of late
	Pauses    float64 // share of the time of late for which collections stopped all
}

// Group are goroutines that do the same at the same place.
type Group struct {
	Count         int
	State, Reason string
	Min, Max      time.Duration // how long those of them that a garbage collection has seen wait have waited at least; 0: none
	Top, Creator  string        // the innermost function of the program, and the one that started them
	File          string
	Line          int
}

// Bounds on what reading may take, and on what is kept of it.
const (
	share     = 50 // the pause after a reading is at least so many times as long as it
	maxGroups = 500
	retry     = 5 * time.Second // after a failure
)

// reader reads the process's goroutines over and over, the less often the longer it takes.
type reader struct {
	pid      int
	root     string
	interval time.Duration
	wake     chan struct{}

	open  *profiler.Goroutines // nil: not open
	gc    *profiler.GCReader   // nil: not open, or errGC says why not
	errGC error
	heaps []heapAt // of the last recentSlices readings, oldest first

	mu     sync.Mutex
	stacks bool
	last   Runtime
}

type heapAt struct {
	at time.Time
	goruntime.GC
}

func newReader(pid int, root string, interval time.Duration) *reader {
	return &reader{pid: pid, root: root, interval: interval, wake: make(chan struct{}, 1)}
}

// wantStacks is Watch.Stacks: where they are wanted they are read at once.
func (r *reader) wantStacks(on bool) {
	r.mu.Lock()
	was := r.stacks
	r.stacks = on
	r.mu.Unlock()
	if on && !was {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

func (r *reader) newest() Runtime {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// run reads until ctx ends. What cannot be read is part of what it says.
func (r *reader) run(ctx context.Context) error {
	defer r.close()
	for ctx.Err() == nil {
		next := r.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.mu.Lock()
		r.last = next
		r.mu.Unlock()
		wait := time.NewTimer(next.Pause)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-wait.C:
		}
		wait.Stop()
	}
	return nil
}

func (r *reader) close() {
	if r.open != nil {
		r.open.Close()
		r.open = nil
	}
	r.gc, r.errGC, r.heaps = nil, nil, nil
}

// read reads once. What it takes to open the process, which is done once, does not count: it says nothing of the next time.
func (r *reader) read(ctx context.Context) Runtime {
	err := r.begin()
	began := time.Now()
	out := Runtime{At: began, Err: err}
	if err == nil {
		out.Err = r.fill(ctx, &out)
	}
	out.Took = time.Since(began)
	if out.Pause = max(r.interval, share*out.Took); out.Err != nil {
		r.close()
		out.Pause = max(out.Pause, retry)
	}
	return out
}

// begin opens the process where it is not.
func (r *reader) begin() (err error) {
	if r.open != nil && !r.open.Current() { // it has executed another program
		r.close()
	}
	if r.open != nil {
		return nil
	}
	if r.open, err = profiler.OpenGoroutines(r.pid, r.root); err != nil {
		r.open = nil
		return err
	}
	r.gc, r.errGC = r.open.OpenGC()
	return nil
}

func (r *reader) fill(ctx context.Context, out *Runtime) error {
	out.Heap = r.heap()
	r.mu.Lock()
	stacks := r.stacks
	r.mu.Unlock()
	states, err := r.open.States(ctx)
	out.States = states
	if stacks {
		groups, errGroups := r.groups(ctx)
		out.Groups, err = groups, errors.Join(err, errGroups)
	}
	return err
}

// heap reads what the runtime counts.
func (r *reader) heap() Heap {
	if r.errGC != nil {
		return Heap{Err: r.errGC}
	}
	gc, err := r.gc.Read()
	if err != nil {
		return Heap{Err: err}
	}
	now := heapAt{time.Now(), gc}
	if r.heaps = append(r.heaps, now); len(r.heaps) > recentSlices+1 {
		r.heaps = slices.Delete(r.heaps, 0, 1)
	}
	return now.since(&r.heaps[0])
}

// since says what changed since another reading.
func (now *heapAt) since(then *heapAt) Heap {
	h := Heap{GC: now.GC}
	if passed := now.at.Sub(then.at).Seconds(); passed > 0 {
		h.Rated = true
		h.GCRate = float64(now.Cycles-then.Cycles) / passed
		h.Pauses = (now.PauseTotal - then.PauseTotal).Seconds() / passed
		if now.TotalAlloc >= then.TotalAlloc {
			h.AllocRate = float64(now.TotalAlloc-then.TotalAlloc) / passed
		}
	}
	return h
}

// groups reads all stacks.
func (r *reader) groups(ctx context.Context) ([]Group, error) {
	var all profiler.GoroutineGroups
	_, err := r.open.Read(ctx, profiler.GoroutineQuery{}, func(g *profiler.Goroutine) error {
		all.Add(g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []Group
	for _, g := range all.Sorted() {
		if len(out) == maxGroups {
			break
		}
		out = append(out, r.group(g))
	}
	return out, nil
}

func (r *reader) group(g *profiler.GoroutineGroup) Group {
	out := Group{Count: g.Count, State: g.State.String(), Reason: g.Reason, Min: g.Min, Max: g.Max, Top: g.Start}
	frames := r.open.Shown(g.Stack, false)
	names := make([]string, 0, len(frames))
	for _, f := range frames {
		names = append(names, f.Func)
	}
	if at := whereabouts(names); at >= 0 {
		f := frames[at]
		out.Top, out.File, out.Line = f.Func, f.File, f.Line
	}
	if by, ok := r.open.CreatedBy(g.Creator, false); ok {
		out.Creator = by.Func
	}
	return out
}

// whereabouts is the function that says most of where a goroutine is: the innermost of which more can be learned than what it waits for, which stands
// beside it; -1: there is none.
func whereabouts(stack []string) int {
	for i, name := range stack {
		if !export.WaitedIn(name) {
			return i
		}
	}
	for i, name := range stack {
		if !strings.Contains(name, ".runtime_") { // such as sync.runtime_Semacquire
			return i
		}
	}
	return len(stack) - 1
}
