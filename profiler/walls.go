package profiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
)

// WallsConfig says what to sample of whom. The zero value of a field means its default. Of WallConfig States, Reasons and Merge have no
// meaning here.
type WallsConfig struct {
	WallConfig
	Window     time.Duration // 10 s; where CPU has windows, those are Walls' windows, too
	CPU        *CPUWindows   // where the profiles come from of goroutines that run; nil: there are none
	Discovery  Discovery     // names the processes; must be safe for concurrent use
	MaxTargets int           // 4,096
	CPUs       float64       // see WallRates, until these are set
	Comments   func() []string
}

// WallRates are how Walls samples from now on.
type WallRates struct {
	Off bool
	Hz  float64 // snapshots of a process with up to 1,000 goroutines in a second, at most
	// CPUs is how many CPUs it may use: half of that is for snapshots, of which each process has one in a window at least; half for
	// opening processes and building profiles. Where there are too many processes for that, they take turns from window to window.
	// 0: no limit.
	CPUs   float64
	Window time.Duration // 0: as it is
}

// Walls samples what goroutines of many processes do, as Wall does, window by window, for years: processes come and go. Snapshots are
// taken by one thread, which also builds profiles between them. Set, SetRates and Stats are safe to call while Run runs.
type Walls struct {
	cfg      WallsConfig
	patience time.Duration                                    // with the memory of a process
	room     *wallRoom                                        // the worker's
	memory   func(Process, goruntime.Memory) goruntime.Memory // for tests: in place of a process's memory; nil: that itself

	mu     sync.Mutex
	wanted map[Process]bool
	news   bool // wanted has changed
	rates  WallRates
	stats  WallsStats
	bad    map[Process]time.Time // that cannot be read: until when they are left alone
	woken  []*walled             // whose memory has answered after all
	over   bool                  // Run has ended

	goroutines sync.WaitGroup // that take snapshots, those that were given up as well
	cpuTime    atomic.Int64   // ns
}

// WallsStats counts since NewWalls.
type WallsStats struct {
	Targets    int     // processes that are open
	Targeted   int     // that ever were
	Unopened   uint64  // that could not be opened
	Stalled    uint64  // that were given up, since their memory did not answer
	Snapshots  uint64  // that were taken
	Failed     uint64  // that were not, of processes that still run
	Goroutines uint64  // in all snapshots
	Lost       uint64  // of these, those that are in profiles as [lost]: there were too many different stacks
	Left       uint64  // processes that had no profile in a window, since it was not their turn
	Hz         float64 // snapshots in a second of each process that was sampled in the last window
	Windows    Windows
	CPUTime    time.Duration // of all that it does
	Alive      time.Time     // when it last did something
}

const (
	defaultWallWindow = 10 * time.Second
	wallsGroups       = 1 << 15 // different stacks of all processes together
	wallsFrames       = 1 << 19 // of these, with their labels: 8 MiB
	wallsSeen         = 1 << 16 // goroutines of all processes together that are remembered
	wallsHabits       = 1 << 14 // of these goroutines, where each of them stops
	wallsBad          = 1 << 12
)

// NewWalls samples nothing yet.
func NewWalls(c WallsConfig) *Walls {
	c.WallConfig = NewWall(c.WallConfig).cfg
	c.States, c.Reasons, c.Merge = nil, nil, false
	c.Window = cmp.Or(c.Window, defaultWallWindow)
	c.MaxTargets = cmp.Or(c.MaxTargets, defaultMaxTargets)
	return &Walls{
		cfg: c, patience: stallPatience, room: &wallRoom{maxGroups: wallsGroups, maxFrames: wallsFrames, maxSeen: wallsSeen, maxHabits: wallsHabits}, wanted: make(map[Process]bool), bad: make(map[Process]time.Time),
		rates: WallRates{Hz: c.Frequency, CPUs: c.CPUs, Window: c.Window},
	}
}

// Set says which processes there are. One that comes is sampled from the next window on.
func (w *Walls) Set(now []Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.wanted)
	for _, p := range now {
		w.wanted[p] = true
	}
	for p := range w.bad {
		if !w.wanted[p] {
			delete(w.bad, p)
		}
	}
	w.news = true
}

// SetRates changes how it samples.
func (w *Walls) SetRates(r WallRates) error {
	if !(r.Hz > 0) || r.CPUs < 0 || r.Window < 0 {
		return fmt.Errorf("wall: rate %v, %v CPUs, window %v: they must be positive", r.Hz, r.CPUs, r.Window)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Window = cmp.Or(r.Window, w.rates.Window)
	r.Hz = min(r.Hz, w.cfg.Frequency)
	w.rates = r
	return nil
}

// Stats counts.
func (w *Walls) Stats() WallsStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.CPUTime = time.Duration(w.cpuTime.Load())
	return s
}

func (w *Walls) count(f func(*WallsStats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.stats)
}

// Run samples until ctx ends; the last window is handed on then. A process whose memory does not answer, which may be somebody's to serve,
// is given up together with the thread that waits for it; the others go on in another one.
func (w *Walls) Run(ctx context.Context) error {
	k := newWallWorker(w)
	for {
		done := make(chan struct{})
		w.goroutines.Go(func() {
			defer k.ended()
			k.run(ctx)
			close(done)
		})
		if w.watch(k, done) {
			return k.close()
		}
		k = k.successor()
	}
}

// watch waits until k has ended. false: it was given up.
func (w *Walls) watch(k *wallWorker, done chan struct{}) bool {
	tick := time.NewTicker(w.patience / stallSteps)
	defer tick.Stop()
	for stalled := 0; ; {
		select {
		case <-done:
			return true
		case <-tick.C:
			if stalled = k.base.reading.stalls(stalled); stalled > stallSteps && k.base.reading.giveUp() {
				return false
			}
		}
	}
}

// avoid leaves a process alone for a while.
func (w *Walls) avoid(p Process, err error, d time.Duration) {
	w.cfg.Log.Warn("goroutines cannot be sampled", "pid", p.PID, "error", err, "again in", d)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.bad) >= wallsBad {
		clear(w.bad)
	}
	w.bad[p] = time.Now().Add(d)
}

// unopened counts a process that could not be opened, unless it has just ended.
func (w *Walls) unopened(p Process, err error) {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, objfile.ErrProcessGone) {
		return
	}
	w.count(func(s *WallsStats) { s.Unopened++ })
	w.avoid(p, err, 10*time.Minute)
}

// Close waits for nothing: Run has given everything back, but for what waits for memory that does not answer.
func (w *Walls) Close() error { return nil }
