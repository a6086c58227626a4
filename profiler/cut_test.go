package profiler

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/testprog"
)

// taken are the profiles so far.
func (r *running) taken() []*export.Profile {
	r.keep.mu.Lock()
	defer r.keep.mu.Unlock()
	return slices.Clone(r.keep.profiles)
}

func (r *running) cut(t *testing.T) time.Time {
	t.Helper()
	at, err := r.p.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// sampled is the CPU time in the profiles of a process of windows that began in [from, to).
func sampled(list []*export.Profile, pid int, from, to time.Time) (sum time.Duration) {
	for _, p := range list {
		if p.PID != pid || p.Start.Before(from) || !p.Start.Before(to) {
			continue
		}
		for _, s := range p.Data.Sample {
			sum += time.Duration(s.Value[1])
		}
	}
	return sum
}

// TestCut: what is between two cuts is what a process did between them, and all windows together have all samples.
func TestCut(t *testing.T) {
	spin := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=1", "-seconds=60")
	r := runWindows(t, Config{Frequency: 1999, Window: time.Minute, NoEmpty: true})
	if err := r.p.Add(spin.PID); err != nil {
		t.Fatal(err)
	}
	began := r.cut(t)
	var times []time.Time
	var used [][2]time.Duration // before and after each cut
	for _, d := range []time.Duration{0, 500 * time.Millisecond, time.Second, 1500 * time.Millisecond} {
		began := usedCPU(t, spin.PID)
		waitFor(t, func() bool { return usedCPU(t, spin.PID) >= began+d })
		before := usedCPU(t, spin.PID)
		times = append(times, r.cut(t))
		used = append(used, [2]time.Duration{before, usedCPU(t, spin.PID)})
	}
	for i := 1; i < len(times); i++ {
		got, least, most := sampled(r.taken(), spin.PID, times[i-1], times[i]), used[i][0]-used[i-1][1], used[i][1]-used[i-1][0]
		if got < least*9/10-20*time.Millisecond || got > most*11/10+20*time.Millisecond {
			t.Errorf("between cuts %d and %d: %v sampled, %v to %v used", i-1, i, got, least, most)
		}
	}
	if !slices.IsSortedFunc(times, time.Time.Compare) || times[0].Before(began) {
		t.Errorf("windows began at %v", times)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	var n uint64
	for _, p := range r.taken() {
		for _, s := range p.Data.Sample {
			n += uint64(s.Value[0])
		}
	}
	if s := r.p.Stats(); n != s.Recorded || n == 0 {
		t.Errorf("%d samples in the windows, %d were recorded", n, s.Recorded)
	}
	if _, err := r.p.Cut(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("cut after the end: %v", err)
	}
}

// TestCutsTogether: those that are asked for at the same time are few windows, nobody waits for ever, also not at the end, and there
// are no profiles without samples.
func TestCutsTogether(t *testing.T) {
	spin := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=1", "-seconds=60")
	idle := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-quiet", "-life", "1m")
	r := runWindows(t, Config{Frequency: 99, Window: time.Minute, NoEmpty: true})
	for _, pid := range []int{spin.PID, idle.PID} {
		if err := r.p.Add(pid); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	const n = 50
	done := make(chan error, n)
	for range n {
		go func() {
			_, err := r.p.Cut(t.Context())
			done <- err
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, p := range r.taken() {
		if len(p.Data.Sample) == 0 {
			t.Errorf("process %d has a profile without samples", p.PID)
		}
	}
	for range n {
		go func() {
			_, err := r.p.Cut(t.Context())
			done <- err
		}()
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := <-done; err != nil && !errors.Is(err, ErrEnded) {
			t.Error(err)
		}
	}
}

// usedCPU is what the threads of a process have used so far, by the scheduler (Documentation/scheduler/sched-stats.rst).
func usedCPU(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(list) == 0 {
		t.Fatalf("threads of process %d: %d, %v", pid, len(list), err)
	}
	for _, f := range list {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(b), &ns); err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
