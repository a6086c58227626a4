package profiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// KindWall is where time passes, for each goroutine, whatever it does.
const KindWall = "wall"

// WallConfig says what to sample. The zero value of a field means its default.
type WallConfig struct {
	Log *slog.Logger
	// Frequency is how many snapshots of its goroutines are taken of a process in a second, as long as it has no more than
	// 1,000: 19. Of n thousand an n-th of that, and fewer where a snapshot takes long.
	Frequency float64
	// States and Reasons are what to look at: goroutines in one of the states, and of those that wait such with one of the
	// reasons. None: all. Where there are Reasons, States are only those that have any.
	States, Reasons []string
	Merge           bool // one profile for all processes
	Exporter        export.Exporter
	ProcRoot        string // "/proc"
	Version         string // of pprofd, for the profile's comments
}

// Wall samples what goroutines do, as snapshots at random moments tell: each stands for the time around it. Of goroutines that run no
// stack can be had in this way: those are a CPU profile's, see CPU. It belongs to one goroutine.
type Wall struct {
	cfg     WallConfig
	targets []*wallTarget
	awaited []awaited
	cpu     []*export.Profile
	opener  opener
	reader  *goroutineReader
	notes   []string

	reading  *progress
	shared   *wallRoom     // nil: each program has its own
	stretch  float64       // by which the time between two snapshots is longer than planned
	patience time.Duration // with the memory of a process
	haste    haste         // of the goroutine that takes snapshots
	ended    sync.WaitGroup
	stalled  atomic.Bool // it did not answer: all else is left to the goroutine that waits for it
}

// progress counts the beginnings and ends of what may stall.
type progress struct {
	n, seen atomic.Uint64
	state   atomic.Int32 // readsNothing, reads, givenUp
	last    time.Time    // when pieces were read; for the goroutine that reads them
}

// What the goroutine does that progress is of.
const (
	readsNothing = iota
	reads
	givenUp // it reads, and is to end with that
)

func (p *progress) begin() {
	p.n.Add(1)
	p.state.Store(reads)
}

// end ends the goroutine if it was given up: all that it had may be somebody else's by now.
func (p *progress) end() {
	p.n.Add(1)
	if !p.state.CompareAndSwap(reads, readsNothing) {
		runtime.Goexit()
	}
}

// giveUp has the goroutine end once it has read what it reads now; false: it reads nothing.
func (p *progress) giveUp() bool { return p.state.CompareAndSwap(reads, givenUp) }

// stalls says for how many looks in a row the same thing has gone on: n up to the last one.
func (p *progress) stalls(n int) int {
	now := p.n.Load()
	if before := p.seen.Swap(now); before != now || now%2 == 0 {
		return 0
	}
	return n + 1
}

// watched is memory whose reads are counted.
type watched struct {
	goruntime.Memory
	p *progress
}

// ReadAt implements io.ReaderAt.
func (m watched) ReadAt(b []byte, off int64) (int, error) {
	m.p.begin()
	n, err := m.Memory.ReadAt(b, off)
	m.p.end()
	return n, err
}

// ReadPieces implements goruntime.Memory.
func (m watched) ReadPieces(pieces []objfile.Piece) error {
	m.p.begin()
	err := m.Memory.ReadPieces(pieces)
	m.p.end()
	m.p.last = time.Now()
	return err
}

const (
	defaultWallFrequency = 19
	cheapGoroutines      = 1000 // that are sampled at the full rate
	wallBusy             = 10   // of so many parts of the time one is for snapshots at most
	nearEnd              = 1.5  // slots that are left at the end become one
	stallPatience        = 5 * time.Second
	stallSteps           = 10
)

// NewWall returns a Wall without processes.
func NewWall(c WallConfig) *Wall {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.ProcRoot = cmp.Or(c.ProcRoot, "/proc")
	c.Version = cmp.Or(c.Version, "(devel)")
	c.Frequency = cmp.Or(c.Frequency, defaultWallFrequency)
	o := newOpener(c.ProcRoot)
	return &Wall{
		cfg: c, patience: stallPatience, reading: &progress{}, opener: o, reader: newGoroutineReader(o.images, make(memLayouts), symbolize.New(o.images.Get, nil)),
	}
}

// room for what is remembered of a program.
func (w *Wall) room() *wallRoom {
	if w.shared != nil {
		return w.shared
	}
	return newWallRoom()
}

// Running says whether goroutines that run are asked for: then CPU must have its profiles before Export.
func (w *Wall) Running() bool { return w.wants(goruntime.Running, "") }

func (w *Wall) wants(s goruntime.State, reason string) bool {
	if len(w.cfg.Reasons) > 0 && !slices.Contains(w.cfg.Reasons, reason) {
		return false
	}
	return len(w.cfg.States) == 0 || slices.Contains(w.cfg.States, s.String())
}

// Add makes a running process a target. Errors are those of OpenGoroutines.
func (w *Wall) Add(pid int) error {
	g, err := w.reader.open(&w.opener, pid)
	if err != nil {
		return err
	}
	w.add(g)
	return nil
}

// AddProcess is Add for a process that has not ended since it was found: where it has, errors wrap os.ErrNotExist.
func (w *Wall) AddProcess(p Process) error {
	g, err := w.reader.open(&w.opener, p.PID)
	if err != nil {
		return err
	}
	if g.start != p.Start {
		return errors.Join(ended(p), g.space.Close())
	}
	w.add(g)
	return nil
}

func (w *Wall) add(g *Goroutines) {
	t := newWallTarget(w, g)
	t.kinds = []string{KindWall}
	w.targets = append(w.targets, t)
}

// Estimate has a profile of contention, KindBlock or KindMutex, estimated of a process. Errors are those of Add.
func (w *Wall) Estimate(pid int, kind string) error {
	i := slices.IndexFunc(w.targets, func(t *wallTarget) bool { return int(t.g.pid) == pid })
	if i < 0 {
		if err := w.Add(pid); err != nil {
			return err
		}
		i = len(w.targets) - 1
		w.targets[i].kinds = nil
	}
	w.targets[i].kinds = append(w.targets[i].kinds, kind)
	return nil
}

// AddAtExec makes a process a target once it has executed another program than the one that it runs now.
func (w *Wall) AddAtExec(pid int) error {
	stat, err := procfs.New(w.cfg.ProcRoot).Proc(pid).Stat()
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	w.awaited = append(w.awaited, awaited{pid, stat.StartTime, stat.StartStack})
	return nil
}

// awaited is a process that is to execute its program.
type awaited struct {
	pid          int
	start, stack uint64 // when it started, and where its stack began when it had not executed it yet
}

const awaitInterval = 5 * time.Millisecond

// await makes targets of those that have executed their program.
func (w *Wall) await(now, end time.Time) {
	fs := procfs.New(w.cfg.ProcRoot)
	w.awaited = slices.DeleteFunc(w.awaited, func(a awaited) bool {
		stat, err := fs.Proc(a.pid).Stat()
		switch {
		case err != nil, stat.StartTime != a.start:
			return true // a CPU profile says so
		case stat.StartStack == 0, stat.StartStack == a.stack:
			return false
		}
		if err := w.Add(a.pid); err != nil {
			w.note("%v", err)
			return true
		}
		w.targets[len(w.targets)-1].begin(now, end)
		return true
	})
}

// Run takes snapshots until ctx ends or all processes have, which is no error. It is one that a process's memory does not answer, which may be
// somebody's to serve: then there are no profiles.
func (w *Wall) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	w.ended.Go(func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with its priority
		w.haste = newHaste()
		w.run(ctx)
	})
	watch := time.NewTicker(w.patience / stallSteps)
	defer watch.Stop()
	for stalled := 0; ; {
		select {
		case <-done:
			return nil
		case <-watch.C:
			if stalled = w.reading.stalls(stalled); stalled > stallSteps {
				w.stalled.Store(true)
				return fmt.Errorf("sample goroutines: no answer from the memory of a process in %v: %w", w.patience, objfile.ErrTooCostly)
			}
		}
	}
}

func (w *Wall) run(ctx context.Context) {
	end, _ := ctx.Deadline()
	for _, t := range w.targets {
		t.begin(time.Now(), end)
	}
	for {
		t, moment := w.next(time.Now())
		w.haste.set(t != nil && t.snapshots > 0 && t.took < hasty)
		if moment.IsZero() || !sleepUntil(ctx, moment) {
			break
		}
		if t == nil {
			w.await(time.Now(), end)
		} else {
			w.take(ctx, t, end)
		}
	}
	w.haste.set(false)
	for _, t := range w.targets {
		if t.ended.IsZero() && t.snapshots == 0 {
			w.take(ctx, t, end)
		}
	}
	now := time.Now()
	for _, t := range w.targets {
		if t.ended.IsZero() {
			t.finish(now)
		}
	}
}

func (t *wallTarget) begin(now, end time.Time) {
	t.began, t.wallProgram.began = now, now
	t.plan(now, end)
}

func (t *wallTarget) finish(now time.Time) {
	t.ended = now
	t.end(now)
}

// next is what is due next: a snapshot of a target, or, where that is nil, to look at those that are awaited; and when. It is never, the zero
// time, where all have ended.
func (w *Wall) next(now time.Time) (first *wallTarget, at time.Time) {
	if len(w.awaited) > 0 {
		at = now.Add(awaitInterval)
	}
	for _, t := range w.targets {
		if t.ended.IsZero() && (at.IsZero() || t.moment.Before(at)) {
			first, at = t, t.moment
		}
	}
	return first, at
}

// take takes a snapshot of t. One that has begun is brought to its end.
func (w *Wall) take(ctx context.Context, t *wallTarget, end time.Time) {
	if w.stalled.Load() {
		return
	}
	now, used := time.Now(), threadTime()
	err := t.snapshot(context.WithoutCancel(ctx), now)
	if err == nil && t.estimates() && w.estimated() <= maxAgain {
		err = t.again(ctx)
	}
	if w.stalled.Load() {
		return
	}
	t.paid(threadTime() - used)
	switch {
	case err == nil:
		t.spent += t.took
		t.snapshots++
	case errors.Is(err, objfile.ErrProcessGone), errors.Is(err, os.ErrNotExist):
		w.follow(t)
	default:
		t.failed++
		t.failure = err
	}
	next := t.slot.Add(t.length)
	if now := time.Now(); now.After(next) {
		next = now
	}
	t.plan(next, end)
}

// follow opens what a process executes now.
func (w *Wall) follow(t *wallTarget) {
	w.haste.set(false)
	g, err := w.reader.open(&w.opener, int(t.g.pid))
	if err != nil || g.start != t.g.start {
		if err == nil {
			err = g.space.Close()
		}
		t.finish(time.Now())
		w.note("process %d (%s) has exited, or executes what is no Go program", t.g.pid, t.g.comm)
		w.cfg.Log.Debug("follow a process", "error", err)
		return
	}
	w.note("process %d (%s) has executed another program", t.g.pid, t.g.comm)
	t.execute(g, time.Now())
}

// plan chooses the moment of the next snapshot, at random in the slot of time that begins at from: no rhythm of the program's makes a
// difference to what is expected of the sum. end is when all is over, or zero.
func (t *wallTarget) plan(from, end time.Time) {
	t.slot, t.length = from, t.interval()
	if left := end.Sub(from); !end.IsZero() && left > 0 && float64(left) < nearEnd*float64(t.length) {
		t.length = left
	}
	t.moment = from.Add(time.Duration(rand.Int64N(int64(t.length))))
}

// interval is how long a slot is: what is planned for as many goroutines as there were, and not less than snapshots may take.
func (t *wallTarget) interval() time.Duration {
	d := float64(time.Second) / t.w.cfg.Frequency * max(1, float64(t.goroutines)/cheapGoroutines)
	return max(time.Duration(d*max(t.w.stretch, 1)), t.cost.next*wallBusy)
}

// paid notes the CPU time of a snapshot.
func (t *wallTarget) paid(took time.Duration) {
	t.took = took
	t.cost.paid(took)
}

// Notes tell what the user should know.
func (w *Wall) Notes() []string {
	notes := w.notes
	for _, t := range w.targets {
		if t.failed > 0 {
			notes = append(notes, fmt.Sprintf("%d of %d snapshots of process %d (%s) failed: %v", t.failed, t.failed+t.snapshots, t.g.pid, t.g.comm, t.failure))
		}
	}
	return notes
}

func (w *Wall) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// Close gives everything back.
func (w *Wall) Close() error {
	if w.stalled.Load() {
		return nil
	}
	var errs []error
	for _, t := range w.targets {
		for _, p := range t.programs {
			errs = append(errs, p.g.space.Close())
		}
	}
	w.targets = nil
	return errors.Join(append(errs, w.reader.layouts.forget(w.opener.images))...)
}
