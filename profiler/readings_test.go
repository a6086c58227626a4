package profiler

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// everybody is a Discovery that wants all and names them by PID.
type everybody struct{}

func (everybody) Look(int, uint64) bool { return true }

func (everybody) NotGo(int) (procfs.FileID, bool) { return procfs.FileID{}, false }
func (everybody) Labels(int, uint64) (string, []export.Label, bool) {
	return "someone", []export.Label{{Name: "a", Value: "b"}}, true
}
func (everybody) Forget(int, uint64) {}

func processOf(t testing.TB, pid int) Process {
	t.Helper()
	start, err := procfs.New("/proc").Proc(pid).StartTime()
	if err != nil {
		t.Fatal(err)
	}
	return Process{PID: pid, Start: start}
}

func runReadings(t *testing.T, c ReadingsConfig) (*Readings, *keep) {
	t.Helper()
	needs.Root(t)
	k := &keep{}
	c.Exporter, c.Discovery = k, everybody{}
	r := NewReadings(c)
	runThese(t, r)
	return r, k
}

// runThese runs r until the returned function is called, or the test ends.
func runThese(t *testing.T, r *Readings) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, r.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

// TestReadings: each process is read again and again, what it has allocated meanwhile sums up, and a process that is gone
// leaves nothing.
func TestReadings(t *testing.T) {
	busy := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-busy", "-quiet", "-life", "5m")
	none := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads", "1", "-seconds", "600")
	r, k := runReadings(t, ReadingsConfig{
		MemoryConfig: MemoryConfig{Kinds: []string{KindHeap, KindAllocs}, Version: "test"}, Interval: time.Second,
	})
	a, b := processOf(t, busy.PID), processOf(t, none.PID)
	r.Set([]Process{a, b, {PID: busy.PID, Start: a.Start - 1}}) // the last one has ended, and busy has its PID
	waitFor(t, func() bool { return r.Stats().Readings >= 4 && r.Stats().States[MemoryLinkedOut] == 1 })
	r.Set([]Process{b})
	stats := r.Stats()
	if stats.Failed != 0 || stats.Sites == 0 || stats.Took == 0 {
		t.Errorf("%+v", stats)
	}
	time.Sleep(50 * time.Millisecond)
	k.mu.Lock()
	defer k.mu.Unlock()
	kinds := map[string]int{}
	var last time.Time
	for _, p := range k.profiles {
		kinds[p.Kind]++
		if p.PID != busy.PID || p.StartTicks != a.Start || p.Service != "someone" || len(p.Labels) != 1 {
			t.Fatalf("profile of process %d, %q", p.PID, p.Service)
		}
		if err := p.Data.CheckValid(); err != nil {
			t.Error(err)
		}
		if p.Kind != KindAllocs {
			continue
		}
		if !last.IsZero() && !p.Start.Equal(last) {
			t.Errorf("allocs from %v, the one before to %v", p.Start, last)
		}
		last = p.Start.Add(p.Duration)
	}
	if kinds[KindHeap] < 4 || kinds[KindAllocs] < 3 {
		t.Errorf("profiles: %v", kinds)
	}
	if r.kept != 0 {
		t.Errorf("%d sites of processes that are gone are remembered", r.kept)
	}
}

func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within a minute")
		}
	}
}

// TestReadingsForget: a program stays open as long as its processes are read, and no longer.
func TestReadingsForget(t *testing.T) {
	needs.Root(t)
	proc := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-busy", "-quiet", "-life", "5m")
	k := &keep{}
	r := NewReadings(ReadingsConfig{MemoryConfig: MemoryConfig{Kinds: []string{KindHeap}, Exporter: k}, Discovery: everybody{}})
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	empty, now := r.m.images.Len(), time.Now()
	step := func() {
		now = now.Add(forgetAfter * r.cfg.Interval)
		r.forget(now)
	}
	for range 3 {
		if o := r.read(t.Context(), processOf(t, proc.PID), &reading{}); o.memory != nil || o.gone {
			t.Fatal(o)
		}
		if step(); len(r.m.layouts) != 1 || r.m.images.Len() != empty+1 {
			t.Fatalf("%d programs and %d images are known beside %d, of one that was read", len(r.m.layouts), r.m.images.Len()-empty, empty)
		}
	}
	if step(); len(r.m.layouts) != 0 || r.m.images.Len() != empty {
		t.Errorf("%d programs and %d images are known, of one that was not read", len(r.m.layouts), r.m.images.Len()-empty)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.profiles) != 3 {
		t.Errorf("%d profiles", len(k.profiles))
	}
}

// TestReadingsSpread: processes that were first read together are read one after the other from then on.
func TestReadingsSpread(t *testing.T) {
	const interval, n = time.Minute, 1000
	now := time.Now()
	var sum, last time.Duration
	for pid := range n {
		s, p := &reading{}, Process{PID: pid}
		s.again(p, interval, now)
		second := s.next.Sub(now)
		if second < interval/2 || second >= 3*interval/2 {
			t.Fatalf("the second reading comes %v after the first", second)
		}
		sum, last = sum+second, max(last, second)
		if s.again(p, interval, s.next); s.next.Sub(now) != second+interval {
			t.Errorf("the third reading comes %v after the second", s.next.Sub(now)-second)
		}
	}
	if mean := sum / n; mean < 55*time.Second || mean > 65*time.Second || last < 85*time.Second {
		t.Errorf("second readings come %v after the first on average, at most %v", mean, last)
	}
}
