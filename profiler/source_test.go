package profiler

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// tee records what is read.
type tee struct {
	*bpf.Probes
	rec *bpf.Recorder
}

func (s tee) Read(r *bpf.Record, deadline time.Time) error {
	if err := s.Probes.Read(r, deadline); err != nil {
		return err
	}
	return s.rec.Write(r)
}

// TestSource: what was recorded of a process gives the same profile when it is replayed, without the kernel.
func TestSource(t *testing.T) {
	needs.BPF(t)
	proc := testprog.Start(t, testprog.Build(t, "mixed", testprog.Options{}), "-seconds", "600")
	probes, err := bpf.Load(bpf.Options{Frequency: 199, Event: bpf.EventCPUClock})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	live := profileFrom(t, tee{probes, bpf.NewRecorder(&file)}, proc.PID)
	copied := *bytes.NewBuffer(file.Bytes())
	again := profileFrom(t, bpf.NewReplay(&file), proc.PID)
	if len(live) == 0 {
		t.Fatal("no samples")
	}
	if d := cmp.Diff(live, again); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(live, profileFrom(t, oneByOne{bpf.NewReplay(&copied)}, proc.PID)); d != "" {
		t.Errorf("one at a time: %s", d)
	}
}

// oneByOne never has another record ready.
type oneByOne struct{ *bpf.Replay }

func (s oneByOne) Read(r *bpf.Record, deadline time.Time) error {
	err := s.Replay.Read(r, deadline)
	r.More = false
	return err
}

// profileFrom runs a profiler over a source, and tells the weight of each stack with its labels.
func profileFrom(t *testing.T, s Source, pid int) map[string]int64 {
	t.Helper()
	var k keep
	p, err := New(Config{Source: s, Exporter: &k})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(pid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	stats := p.Stats()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	sum, weights := uint64(0), map[string]int64{}
	for _, s := range k.profiles[0].Data.Sample {
		weights[stackOf(s)] += s.Value[1]
		sum += uint64(s.Value[0])
	}
	if sum != stats.Recorded {
		t.Errorf("%d samples were recorded, %d are in the profile", stats.Recorded, sum)
	}
	return weights
}

func stackOf(s *profile.Sample) string {
	text := fmt.Sprint(s.Label)
	for _, l := range s.Location {
		for _, line := range l.Line {
			text += fmt.Sprintf(";%s:%d", line.Function.Name, line.Line)
		}
	}
	return text
}

// flood is a source that never runs dry before it is flushed.
type flood struct {
	*bpf.Replay
	flushed atomic.Bool
}

func (s *flood) Flush() error {
	s.flushed.Store(true)
	return nil
}

func (s *flood) Read(r *bpf.Record, _ time.Time) error {
	if s.flushed.Load() {
		return bpf.ErrFlushed
	}
	r.Type, r.PID = bpf.TypeExit, 1<<31 // of nobody
	return nil
}

// TestWindowsEndInAFlood: the reader need not run dry for profiles to be exported.
func TestWindowsEndInAFlood(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
	r := runWindows(t, Config{Source: &flood{Replay: bpf.NewReplay(&bytes.Buffer{})}, Window: 100 * time.Millisecond})
	if err := r.p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	r.holds(t, "two windows", func() bool {
		r.keep.mu.Lock()
		defer r.keep.mu.Unlock()
		return len(r.keep.profiles) >= 2
	})
}
