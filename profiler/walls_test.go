package profiler

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

// runWalls runs a Walls until the returned function is called, or the test ends; then nothing is left of it.
func runWalls(t *testing.T, w *Walls) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if w.room.groups != 0 || w.room.frames != 0 || w.room.seen != 0 || w.room.habits != 0 {
			t.Errorf("left in the room: %d groups, %d frames, %d goroutines, %d habits", w.room.groups, w.room.frames, w.room.seen, w.room.habits)
		}
	}
	t.Cleanup(end)
	return end
}

// of are the profiles of a kind and process, in their order.
func (k *keep) of(kind string, p Process) (list []*export.Profile) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, one := range k.profiles {
		if one.Kind == kind && one.PID == p.PID && one.StartTicks == p.Start {
			list = append(list, one)
		}
	}
	return list
}

// encoding is a keep that encodes CPU profiles meanwhile, as the agent does.
type encoding struct {
	*keep
	t     *testing.T
	under sync.WaitGroup
}

func (e *encoding) Export(ctx context.Context, p *export.Profile) error {
	if p.Kind == KindCPU {
		e.under.Go(func() {
			if _, err := p.Encode(); err != nil {
				e.t.Error(err)
			}
		})
	}
	return e.keep.Export(ctx, p)
}

// TestWallsWindows: windows are those of the CPU profiles, whose time is what ran; one begins where the one before ends; processes come and
// go, and those that have ended have a last profile; what is not wanted any more is closed.
func TestWallsWindows(t *testing.T) {
	needs.BPF(t)
	k := &keep{}
	windows := &CPUWindows{}
	out := &encoding{keep: k, t: t}
	defer out.under.Wait()
	cpu, err := New(Config{Frequency: 499, Window: time.Second, Exporter: out, Discovery: everybody{}, Windows: windows})
	if err != nil {
		t.Fatal(err)
	}
	path := testprog.Build(t, "shares", testprog.Options{})
	a, b, c := shares(t, testprog.Options{}), testprog.Start(t, path), testprog.Start(t, path)
	pa, pb, pc := processOf(t, a.PID), processOf(t, b.PID), processOf(t, c.PID)
	w := NewWalls(WallsConfig{WallConfig: WallConfig{Frequency: 97, Exporter: k}, Window: time.Second, CPU: windows, Discovery: everybody{}})
	for _, p := range []int{a.PID, b.PID, c.PID} {
		if err := cpu.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cpu.Run(ctx) }()
	w.Set([]Process{pa, pb})
	end := runWalls(t, w)
	waitFor(t, func() bool { return len(k.of(KindWall, pa)) >= 2 && len(k.of(KindWall, pb)) >= 2 })
	w.Set([]Process{pa, pb, pc})
	waitFor(t, func() bool { return len(k.of(KindWall, pc)) >= 1 })
	if n := w.Stats().Targets; n != 3 {
		t.Errorf("%d processes are open", n)
	}
	b.Stop()
	w.Set([]Process{pa})
	waitFor(t, func() bool { return w.Stats().Targets == 1 })
	had := len(k.of(KindWall, pa))
	waitFor(t, func() bool { return len(k.of(KindWall, pa)) >= had+2 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	end()
	if err := cpu.Close(); err != nil {
		t.Error(err)
	}
	checkWindows(t, k, pa)
	if s := w.Stats(); s.Snapshots == 0 || s.Goroutines < 9*s.Snapshots || s.Lost != 0 || s.Failed != 0 || s.CPUTime == 0 || s.Windows.Ended < 4 || s.Targets != 0 {
		t.Errorf("%+v", s)
	}
}

// checkWindows compares the windows of a process with those of its CPU profiles.
func checkWindows(t *testing.T, k *keep, p Process) {
	t.Helper()
	ran := func(end time.Time) (time.Duration, bool) {
		for _, c := range k.of(KindCPU, p) {
			if c.Start.Add(c.Duration).Sub(end).Abs() < time.Millisecond {
				return wallTime(c.Data, everything), true
			}
		}
		return 0, false
	}
	var last time.Time
	all, alone := k.of(KindWall, p), 0
	for i, one := range all {
		end := one.Start.Add(one.Duration)
		if one.Service != "someone" || len(one.Labels) != 1 || one.Encoded == nil {
			t.Errorf("profile of %q, labels %v", one.Service, one.Labels)
		}
		if !last.IsZero() && one.Start.Sub(last).Abs() > time.Millisecond {
			t.Errorf("window %d begins at %v, the one before ended at %v", i, one.Start, last)
		}
		last = end
		running := wallTime(one.Data, func(s *profile.Sample) bool { return has(s, "state", "running") && !below(noCPUFrame)(s) })
		if strings.Contains(strings.Join(one.Data.Comments, "\n"), "there is no CPU profile of the same time") {
			alone++ // the CPU profiles had come to their end, or were too late
			continue
		}
		want, ok := ran(end)
		if short := one.Duration < time.Second/4; !ok && running == 0 && short && i == len(all)-1 {
			continue // the end has cut it: there was no sample
		}
		if !ok || running != want {
			t.Errorf("window %d, to %v: running %v, CPU profile %v (%v)", i, end, running, want, ok)
		}
		if err := one.Data.CheckValid(); err != nil {
			t.Error(err)
		}
	}
	if alone > len(all)/2 {
		t.Errorf("%d of %d windows have no CPU profile", alone, len(all))
	}
}

// TestWallsAlone: without CPU profiles what runs is a frame of its own, and the sum of a window is the time of all goroutines.
func TestWallsAlone(t *testing.T) {
	needs.Root(t)
	p := shares(t, testprog.Options{}, "-idle", "100")
	k := &keep{}
	w := NewWalls(WallsConfig{WallConfig: WallConfig{Frequency: 97, Exporter: k}, Window: time.Second, Discovery: everybody{}})
	proc := processOf(t, p.PID)
	w.Set([]Process{proc})
	end := runWalls(t, w)
	waitFor(t, func() bool { return len(k.of(KindWall, proc)) >= 3 })
	end()
	for _, one := range k.of(KindWall, proc)[1:3] {
		n := float64(wallTime(one.Data, everything)) / float64(one.Duration)
		if math.Abs(n-109) > 1 { // 4 that share their time, their partners, main, 100 that rest
			t.Errorf("%.2f goroutines", n)
		}
		if wallTime(one.Data, below(runningFrame)) == 0 || !strings.Contains(strings.Join(one.Data.Comments, "\n"), "there is no CPU profile of the same time") {
			t.Errorf("running %v, comments %q", wallTime(one.Data, below(runningFrame)), one.Data.Comments)
		}
	}
}

// TestWallsBudget: where there is too little for all, they take turns; nobody is left out for good; and when the kind is off nothing is open.
func TestWallsBudget(t *testing.T) {
	needs.Root(t)
	const n = 6
	k := &keep{}
	w := NewWalls(WallsConfig{WallConfig: WallConfig{Exporter: k}, Window: time.Second, Discovery: everybody{}, CPUs: 0.008}) // 2 at first
	var procs []Process
	for range n {
		procs = append(procs, processOf(t, shares(t, testprog.Options{}).PID))
	}
	w.Set(procs)
	began := time.Now()
	runWalls(t, w)
	waitFor(t, func() bool {
		return !slices.ContainsFunc(procs, func(p Process) bool { return len(k.of(KindWall, p)) == 0 })
	})
	s, passed := w.Stats(), time.Since(began)
	if s.Left == 0 || s.Unopened != 0 {
		t.Errorf("%+v", s)
	}
	const opening = 50 * time.Millisecond // of programs, which is one piece of work
	if used := s.CPUTime.Seconds() / passed.Seconds(); s.CPUTime > 2*time.Duration(0.008*float64(passed))+opening {
		t.Errorf("%v of CPU time in %v, %.2g CPUs", s.CPUTime, passed, used)
	}
	if err := w.SetRates(WallRates{Off: true, Hz: 1}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return w.Stats().Targets == 0 })
	if err := w.SetRates(WallRates{Hz: 19}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return w.Stats().Targets == n })
	for _, wrong := range []WallRates{{}, {Hz: -1}, {Hz: 1, CPUs: -1}, {Hz: 1, Window: -1}, {Hz: math.NaN()}} {
		if err := w.SetRates(wrong); err == nil {
			t.Errorf("%+v is no error", wrong)
		}
	}
}

// TestWallsStall: a process whose memory does not answer is given up, with the thread that waits for it; the others go on.
func TestWallsStall(t *testing.T) {
	needs.Root(t)
	bad, good := processOf(t, shares(t, testprog.Options{}).PID), processOf(t, shares(t, testprog.Options{}).PID)
	k, letGo := &keep{}, make(chan struct{})
	w := NewWalls(WallsConfig{WallConfig: WallConfig{Exporter: k, Frequency: 97}, Window: time.Second, Discovery: everybody{}})
	w.patience = 200 * time.Millisecond
	w.memory = func(p Process, m goruntime.Memory) goruntime.Memory {
		if p == bad {
			return stuck{m, letGo}
		}
		return m
	}
	w.Set([]Process{bad, good})
	end := runWalls(t, w)
	waitFor(t, func() bool { return w.Stats().Stalled == 1 })
	had := len(k.of(KindWall, good))
	waitFor(t, func() bool { return len(k.of(KindWall, good)) >= had+2 })
	if s := w.Stats(); s.Targets != 1 || len(k.of(KindWall, bad)) != 0 {
		t.Errorf("%+v, %d profiles of what does not answer", s, len(k.of(KindWall, bad)))
	}
	end()
	close(letGo)
	w.goroutines.Wait()
}

// burning is memory that takes CPU time.
type burning struct{ goruntime.Memory }

func (b burning) ReadPieces(pieces []objfile.Piece) error {
	for began := threadTime(); threadTime()-began < dearSnapshot; {
		burnt++
	}
	return b.Memory.ReadPieces(pieces)
}

var burnt int

// TestWallsDear: a process of which one snapshot takes what there is for all is left alone then, for so long that this is what it takes on average;
// the others have their turns.
func TestWallsDear(t *testing.T) {
	needs.Root(t)
	dear, good := processOf(t, shares(t, testprog.Options{}).PID), processOf(t, shares(t, testprog.Options{}).PID)
	k := &keep{}
	w := NewWalls(WallsConfig{WallConfig: WallConfig{Exporter: k}, Window: time.Second, Discovery: everybody{}, CPUs: 0.01})
	w.memory = func(p Process, m goruntime.Memory) goruntime.Memory {
		if p == dear {
			return burning{m}
		}
		return m
	}
	w.Set([]Process{dear, good})
	runWalls(t, w)
	waitFor(t, func() bool { return len(k.of(KindWall, dear)) > 0 })
	had := len(k.of(KindWall, good))
	waitFor(t, func() bool { return len(k.of(KindWall, good)) >= had+4 })
	if n := len(k.of(KindWall, dear)); n != 1 {
		t.Errorf("%d profiles of what takes %v a snapshot", n, dearSnapshot)
	}
}

// TestWallsRefuses: what is no Go program, or has ended, is counted or not, and others go on.
func TestWallsRefuses(t *testing.T) {
	needs.Root(t)
	good := processOf(t, shares(t, testprog.Options{}).PID)
	other := Process{PID: good.PID, Start: good.Start - 1}
	one := processOf(t, 1)
	k := &keep{}
	w := NewWalls(WallsConfig{WallConfig: WallConfig{Exporter: k}, Window: time.Second, Discovery: everybody{}})
	w.Set([]Process{good, other, one})
	runWalls(t, w)
	waitFor(t, func() bool { return len(k.of(KindWall, good)) >= 2 })
	if s := w.Stats(); s.Targets != 1 || s.Unopened > 1 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}
