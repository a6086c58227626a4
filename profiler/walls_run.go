package profiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
)

// wallWorker is the thread that does all for Walls, and what it has. Of those, one runs at a time.
type wallWorker struct {
	w    *Walls
	base *Wall // what its targets have in common
	opener
	reader *goroutineReader
	haste  haste

	open     map[Process]*walled
	active   []*walled    // those that are sampled in this window
	toOpen   []Process    // those that are to be
	frozen   []*wallBuild // what is over of this window: of processes that have ended
	building []*wallBuild // of windows that have ended
	taking   *walled      // whose memory is being read
	ending   time.Time    // since when there is nothing more to do than that; zero: not yet

	rates      WallRates
	number     int       // of the window
	began, end time.Time // of it, as planned
	byCPU      bool      // it began when one of CPU profiles did
	each       time.Duration
	before     time.Duration // CPU time of the thread when the window began
	counted    time.Duration // the same when it was last told
	snapped    time.Duration // of it, for snapshots
	built      int           // profiles
	swept      time.Time
	chore      time.Time // when something else than snapshots was last done
	paced      time.Time // when it was last looked at how much snapshots take
}

// walled is one process.
type walled struct {
	*wallTarget
	proc    Process
	turn    int // the last window in which it was sampled
	pending int // profiles that are to be built of it
	left    bool
}

const (
	firstEach   = 2 * time.Millisecond // CPU time for a process and window besides snapshots, before it is known
	choreTime   = 2 * time.Millisecond // left until the next snapshot, so that something else is done before
	choreWait   = 200 * time.Millisecond
	cpuGrace    = 5 * time.Second // for how long a window of CPU profiles is waited for
	cpuPatience = 5 * time.Second
	endGrace    = 2 * time.Second
	lateOpening = 10 // parts of a window; a process that is opened later is sampled from the next one on
	wallsSweep  = 2 * time.Minute

	paceInterval = 500 * time.Millisecond
	firstTook    = 300 * time.Microsecond // CPU time of a snapshot before it is known

	dearSnapshot   = 200 * time.Millisecond // CPU time of a snapshot that may be more than there is for all processes: of some 100,000 goroutines
	longestSparing = time.Hour
)

var errStalled = fmt.Errorf("its memory does not answer: %w", objfile.ErrTooCostly)

func newWallWorker(w *Walls) *wallWorker {
	k := &wallWorker{
		w: w, base: NewWall(w.cfg.WallConfig), open: make(map[Process]*walled), each: firstEach, swept: time.Now(),
	}
	k.base.shared = w.room
	k.opener, k.reader = k.base.opener, k.base.reader
	w.cfg.CPU.want(true)
	return k
}

// successor takes over what k has, which was given up: but for the process that it waits for, and the memory that it reads into.
func (k *wallWorker) successor() *wallWorker {
	next := &wallWorker{
		w: k.w, base: k.base, opener: k.opener, reader: k.reader, open: k.open, active: k.active, toOpen: k.toOpen, frozen: k.frozen, building: k.building, ending: k.ending,
		rates: k.rates, number: k.number, began: k.began, end: k.end, byCPU: k.byCPU, each: k.each, built: k.built, swept: k.swept,
	}
	next.base.reading, next.reader.buffers = &progress{}, &goruntime.GoroutineBuffers{}
	stuck := k.taking
	stuck.leave()
	delete(next.open, stuck.proc)
	next.active = slices.DeleteFunc(next.active, func(t *walled) bool { return t == stuck })
	for _, t := range next.open {
		t.attach(next.base, next.reader)
	}
	k.w.avoid(stuck.proc, errStalled, time.Hour)
	k.w.count(func(s *WallsStats) { s.Stalled, s.Targets = s.Stalled+1, len(next.open) })
	return next
}

// attach has t use what others do not use any more.
func (t *walled) attach(w *Wall, r *goroutineReader) {
	t.g.buffers = r.buffers
	if m, ok := t.g.mem.(watched); ok {
		t.g.mem = watched{m.Memory, w.reading}
	}
}

// ended is called when k's goroutine ends. If it was given up, the process that it has waited for is left to be closed.
func (k *wallWorker) ended() {
	if k.taking == nil {
		return
	}
	w := k.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.woken = append(w.woken, k.taking)
		return
	}
	k.taking.shut(w)
}

func (t *walled) shut(w *Walls) {
	if err := t.g.space.Close(); err != nil {
		w.cfg.Log.Warn("close a process", "pid", t.proc.PID, "error", err)
	}
}

// close gives back what is left when Run ends.
func (k *wallWorker) close() error {
	k.w.cfg.CPU.want(false)
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	for _, t := range k.open {
		t.leave()
		t.shut(k.w)
	}
	for _, t := range k.w.woken {
		t.shut(k.w)
	}
	k.w.over, k.w.woken, k.w.stats.Targets = true, nil, 0
	return k.reader.layouts.forget(k.images)
}

// run works until ctx has ended and all that was seen until then was handed on.
func (k *wallWorker) run(ctx context.Context) {
	runtime.LockOSThread() // for good: the thread ends with its priority
	k.haste = newHaste()
	k.counted = threadTime()
	k.before = k.counted
	if k.began.IsZero() {
		k.begin(time.Now(), false)
	}
	for {
		now := time.Now()
		if k.turnIfDue(ctx, now) {
			break
		}
		t, at := k.next()
		if k.chores(ctx, now, t == nil || at.Sub(now) > choreTime) {
			continue
		}
		k.wait(ctx, t, at)
	}
	k.haste.set(false)
	for _, b := range k.building {
		k.build(ctx, b)
	}
	k.building = nil
	k.tell()
}

// next is the process whose snapshot is due next, and when; nil: there is none.
func (k *wallWorker) next() (first *walled, at time.Time) {
	if !k.ending.IsZero() {
		return nil, at
	}
	for _, t := range k.active {
		if first == nil || t.moment.Before(at) {
			first, at = t, t.moment
		}
	}
	return first, at
}

// wait waits for a moment, and takes a snapshot then, unless there is something to be looked at before.
func (k *wallWorker) wait(ctx context.Context, t *walled, at time.Time) {
	soon := time.Now().Add(unnoticed)
	k.haste.set(t != nil && t.snapshots > 0 && t.took < hasty)
	if t == nil || at.After(soon) {
		k.tell()
		if time.Since(k.paced) > paceInterval {
			k.pace(k.active)
		}
		sleepUntil(context.WithoutCancel(ctx), soon)
		return
	}
	sleepUntil(context.WithoutCancel(ctx), at)
	k.take(ctx, t)
}

// tell publishes what the thread has used.
func (k *wallWorker) tell() {
	now := threadTime()
	k.w.cpuTime.Add(int64(now - k.counted))
	k.counted = now
}

// spent is the CPU time of this window until now; more: there may be more of it.
func (k *wallWorker) spent() (used time.Duration, more bool) {
	used = threadTime() - k.before
	return used, k.rates.CPUs == 0 || used.Seconds() < k.rates.CPUs*k.rates.Window.Seconds()
}

// take takes a snapshot of t.
func (k *wallWorker) take(ctx context.Context, t *walled) {
	if _, more := k.spent(); !more { // no snapshot is worth more than the budget
		t.plan(later(t.slot.Add(t.length), time.Now()), k.end)
		return
	}
	now, used := time.Now(), threadTime()
	k.taking = t
	err := t.snapshot(context.WithoutCancel(ctx), now)
	k.taking = nil
	t.paid(threadTime() - used)
	k.snapped += t.took
	switch {
	case err == nil:
		t.spent += t.took
		t.snapshots++
		k.w.count(func(s *WallsStats) { s.Snapshots, s.Goroutines = s.Snapshots+1, s.Goroutines+uint64(t.goroutines) })
		k.spare(t)
	case errors.Is(err, objfile.ErrProcessGone), errors.Is(err, os.ErrNotExist):
		k.gone(t, time.Now())
		return
	default:
		t.failed++
		t.failure = err
		k.w.count(func(s *WallsStats) { s.Failed++ })
	}
	t.plan(later(t.slot.Add(t.length), time.Now()), k.end)
}

// spare leaves a process alone for a while of which one snapshot takes as much as those of all processes may in a window: a million goroutines,
// or as many as a process says that it has, would be all that there is time for.
func (k *wallWorker) spare(t *walled) {
	allowed := k.rates.CPUs / 2
	if allowed == 0 || t.took < dearSnapshot || t.took.Seconds() < allowed*k.rates.Window.Seconds() {
		return
	}
	err := fmt.Errorf("a snapshot of its %d goroutines takes %v of CPU time: %w", t.goroutines, t.took.Round(time.Millisecond), objfile.ErrTooCostly)
	k.w.avoid(t.proc, err, time.Duration(min(t.took.Seconds()/allowed, longestSparing.Seconds())*float64(time.Second)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// gone ends t, whose process has ended or executes another program: that is opened in the next window.
func (k *wallWorker) gone(t *walled, now time.Time) {
	k.freeze(t, now)
	k.leave(t)
}

// leave ends t, once its profiles are built.
func (k *wallWorker) leave(t *walled) {
	delete(k.open, t.proc)
	k.active = slices.DeleteFunc(k.active, func(other *walled) bool { return other == t })
	t.leave()
	if t.left = true; t.pending == 0 {
		t.shut(k.w)
	}
	k.w.count(func(s *WallsStats) { s.Targets = len(k.open) })
}

// chores does one of the other things that are to be done, if there is time. some: it did.
func (k *wallWorker) chores(ctx context.Context, now time.Time, quiet bool) (some bool) {
	if !quiet && now.Sub(k.chore) < choreWait {
		return false
	}
	b := k.ready(now)
	if b == nil && len(k.toOpen) == 0 {
		k.chore = now
		return false
	}
	k.haste.set(false)
	if b != nil {
		k.build(ctx, b)
	} else {
		p := k.toOpen[0]
		k.toOpen = k.toOpen[1:]
		k.openOne(p, now)
	}
	k.chore = time.Now()
	return true
}

// openOne opens a process, and samples it in this window, if that is early enough.
func (k *wallWorker) openOne(p Process, now time.Time) {
	if _, more := k.spent(); !more || !k.ending.IsZero() {
		return
	}
	g, err := k.goroutines(p)
	if err != nil {
		k.w.unopened(p, err)
		return
	}
	if k.w.memory != nil {
		g.mem = k.w.memory(p, g.mem)
	}
	t := &walled{wallTarget: newWallTarget(k.base, g), proc: p}
	t.kinds = []string{KindWall}
	k.open[p] = t
	k.w.count(func(s *WallsStats) { s.Targets, s.Targeted = len(k.open), s.Targeted+1 })
	if now.Sub(k.began) <= k.rates.Window/lateOpening {
		k.sample(t)
	}
}

func (k *wallWorker) goroutines(p Process) (*Goroutines, error) {
	g, err := k.reader.open(&k.opener, p.PID)
	if err == nil && g.start != p.Start {
		return nil, errors.Join(ended(p), g.space.Close())
	}
	return g, err
}

// sample has t sampled in this window.
func (k *wallWorker) sample(t *walled) {
	t.turn = k.number
	t.began, t.wallProgram.began = k.began, k.began
	t.plan(time.Now(), k.end)
	k.active = append(k.active, t)
}

// choose says which processes are sampled in the window that begins: all, or those that have waited for longest.
func (k *wallWorker) choose() (list []Process, left int) {
	w := k.w
	w.mu.Lock()
	for p := range w.wanted {
		young := (&process{start: p.Start}).age() < firstReading // its runtime may not have begun
		if !young && k.began.After(w.bad[p]) {
			list = append(list, p)
		}
	}
	w.mu.Unlock()
	turn := func(p Process) int {
		if t := k.open[p]; t != nil {
			return t.turn
		}
		return 0
	}
	slices.SortFunc(list, func(a, b Process) int {
		return cmp.Or(cmp.Compare(turn(a), turn(b)), cmp.Compare(a.PID, b.PID), cmp.Compare(a.Start, b.Start))
	})
	n := min(len(list), w.cfg.MaxTargets)
	if r := &k.rates; r.Off {
		n = 0
	} else if r.CPUs > 0 {
		n = min(n, max(1, int(r.CPUs/2*float64(r.Window)/float64(k.each))))
	}
	return list[:n], len(list) - n
}
