package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// running is a Profiler whose Run runs.
type running struct {
	p    *Profiler
	keep *keep
	stop func() error // ends Run and returns its error; may be called again
}

func runWindows(t *testing.T, c Config) *running {
	t.Helper()
	p, k := start(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var ended bool
	r := &running{p: p, keep: k}
	r.stop = func() (err error) {
		if cancel(); !ended {
			ended, err = true, <-done
		}
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// holds waits for a state of the profiler, which is looked at between two records.
func (r *running) holds(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		r.p.turn.Lock()
		ok := is()
		r.p.turn.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s; %+v", what, r.p.Stats())
		}
	}
}

// nothing is held of targets, but for live ones. Their programs are kept for a window more.
func (r *running) nothing(t *testing.T, live int) {
	t.Helper()
	var ended uint64
	r.holds(t, fmt.Sprintf("%d targets", live), func() bool {
		ended = r.p.past.windows.Ended
		return len(r.p.all) == live && len(r.p.targets) == live
	})
	if live == 0 {
		r.holds(t, "another window", func() bool { return len(r.p.kept) == 0 || r.p.past.windows.Ended > ended+1 })
	}
	r.p.turn.Lock()
	defer r.p.turn.Unlock()
	use, err := r.p.probes.(*bpf.Probes).Use()
	if err != nil || use.Targets != live || use.Losses != 0 {
		t.Errorf("BPF maps hold %+v, %v", use, err)
	}
	if n := r.p.images.Len(); live == 0 && n != 1 {
		t.Errorf("%d images", n)
	}
	if n := len(r.p.layouts); live == 0 && n != 0 {
		t.Errorf("%d layouts", n)
	}
	if n := len(r.p.counted.lost) + len(r.p.counted.throttled); n != 0 {
		t.Errorf("losses of %d processes are remembered", n)
	}
}

// total of all profiles: samples and what is recorded of pid.
func (k *keep) total(pid int) (samples uint64, ns int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.profiles {
		for _, s := range p.Data.Sample {
			samples += uint64(s.Value[0])
			if p.PID == pid {
				ns += s.Value[1]
			}
		}
	}
	return samples, ns
}

// TestTargetsComeAndGo: processes are added while others are sampled, end by themselves or by force, and after the
// window nothing is held of them. Every sample is in one profile.
func TestTargetsComeAndGo(t *testing.T) {
	spin := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "600")
	short := testprog.Build(t, "churn", testprog.Options{})
	r := runWindows(t, Config{Frequency: 499, NoKernel: true, Window: 300 * time.Millisecond})
	if err := r.p.Add(spin.PID); err != nil {
		t.Fatal(err)
	}
	var added int
	for i := range 40 {
		cmd := exec.Command(short, "-ms", strconv.Itoa(1+i*3))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		switch err := r.p.Add(cmd.Process.Pid); {
		case err == nil:
			added++
		case !errors.Is(err, os.ErrNotExist):
			t.Error(err)
		}
		if i%3 == 0 {
			cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil && i%3 != 0 {
			t.Error(err)
		}
	}
	r.nothing(t, 1)
	if s := r.p.Stats(); added < 20 || s.Targets != added+1 || s.Exited != added {
		t.Errorf("added %d of 40; %+v", added, s)
	}
	if err := r.p.Remove(spin.PID); err != nil {
		t.Error(err)
	}
	r.nothing(t, 0)
	if err := r.p.Remove(spin.PID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed again: %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	samples, ns := r.keep.total(spin.PID)
	if s := r.p.Stats(); samples != s.Recorded || s.Recorded == 0 {
		t.Errorf("%d samples in the profiles, %+v", samples, s)
	}
	if ns < int64(500*time.Millisecond) {
		t.Errorf("%v of the process that ran all the time", time.Duration(ns))
	}
}

// TestLossesOfWindows: what found no room is counted once, in the window in which it was lost.
func TestLossesOfWindows(t *testing.T) {
	needs.BPF(t)
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "600")
	probes, err := bpf.Load(bpf.Options{Frequency: 4999, Event: bpf.EventCPUClock, RingBytes: os.Getpagesize()})
	if err != nil {
		t.Fatal(err)
	}
	r := runWindows(t, Config{Source: probes, Window: 250 * time.Millisecond})
	if err := r.p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	r.holds(t, "losses in three windows", func() bool { return r.keep.lossy() >= 3 })
	proc.Stop()
	r.nothing(t, 0)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	samples, _ := r.keep.total(0)
	if s := r.p.Stats(); s.Lost == 0 || samples != s.Recorded {
		t.Errorf("%d samples in the profiles, %+v", samples, s)
	}
}

// lossy counts profiles with a loss.
func (k *keep) lossy() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.profiles {
		for _, s := range p.Data.Sample {
			if len(s.Label["lost"]) > 0 {
				n++
			}
		}
	}
	return n
}

// TestGoneBeforeItsFirstEvent: a process that ends after its map was read, and before events tell of it, is no target.
func TestGoneBeforeItsFirstEvent(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "600")
	p, _ := start(t, Config{})
	opened, err := p.open(proc.PID)
	if err != nil {
		t.Fatal(err)
	}
	tg := &target{process: opened}
	proc.Stop()
	if err := p.register(tg, false); err != nil {
		t.Fatal(err)
	}
	if err := p.settle(tg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if use, err := p.probes.(*bpf.Probes).Use(); err != nil || use.Targets != 0 || len(p.targets)+len(p.all) != 0 || p.images.Len() != 1 {
		t.Errorf("%+v, %v; %d targets, %d images", use, err, len(p.all), p.images.Len())
	}
}

// TestAddDuringVfork: a process that is added before its first exec, when it has its parent's memory, is followed.
func TestAddDuringVfork(t *testing.T) {
	spin := testprog.Build(t, "spin", testprog.Options{})
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	parent := testprog.StartWith(t, testprog.StartOptions{Stdin: in}, testprog.Build(t, "vforker", testprog.Options{Cgo: true}), "-input", spin, "-seconds", "600")
	var child int
	if _, err := fmt.Sscanf(parent.Lines()[0], "ready %d", &child); err != nil {
		t.Fatal(err)
	}
	r := runWindows(t, Config{Frequency: 199, Window: 500 * time.Millisecond})
	if err := errors.Join(r.p.Add(child), out.Close()); err != nil { // it waits for the latter
		t.Fatal(err)
	}
	var last *export.Profile
	r.holds(t, "samples of the program", func() bool {
		r.keep.mu.Lock()
		defer r.keep.mu.Unlock()
		if n := len(r.keep.profiles); n > 0 {
			last = r.keep.profiles[n-1]
		}
		return last != nil && len(last.Data.Sample) > 0
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if file := last.Data.Mapping[0].File; file != spin {
		t.Errorf("the profile is of %s, not of the program after the exec", file)
	}
}

// TestWindowsEndInTime: a window ends when it should, also where nothing happens.
func TestWindowsEndInTime(t *testing.T) {
	const window = 1250 * time.Millisecond
	r := runWindows(t, Config{Frequency: 19, Window: window})
	var ends []time.Time
	for n := range uint64(3) {
		var end time.Time
		r.holds(t, fmt.Sprintf("%d windows", n+1), func() bool {
			end = r.p.past.windows.Last
			return r.p.past.windows.Ended > n
		})
		ends = append(ends, end)
	}
	took := []time.Duration{ends[1].Sub(ends[0]), ends[2].Sub(ends[1])}
	if least := slices.Min(took); least < window || least > window+50*time.Millisecond {
		t.Errorf("windows of %v", took)
	}
}
