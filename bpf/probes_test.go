package bpf

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func load(t *testing.T, o Options) *Probes {
	t.Helper()
	needs.Root(t)
	needs.BPF(t)
	p, err := Load(o)
	if err != nil {
		if v := (*ebpf.VerifierError)(nil); errors.As(err, &v) {
			t.Log(strings.Join(v.Log[max(0, len(v.Log)-40):], "\n"))
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// drain reads what is there until the ring buffer is empty and hands each record to f.
func drain(t *testing.T, p *Probes, f func(*Record)) {
	t.Helper()
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	var r Record
	for {
		err := p.Read(&r, time.Now().Add(10*time.Second))
		if errors.Is(err, ErrFlushed) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		f(&r)
	}
}

var burnt uint64 // keeps the compiler from removing the work

//go:noinline
func burn(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		for i := range uint64(10000) {
			burnt ^= burnt<<13 ^ i
		}
	}
}

// TestSample samples this very test, whose CPU time is known well enough, and nothing else.
func TestSample(t *testing.T) {
	for name, o := range map[string]Options{
		"with bpf_loop":    {Frequency: 499, Event: EventCPUClock},
		"without bpf_loop": {Frequency: 499, Event: EventCPUClock, NoLoop: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, o)
			pid := uint32(os.Getpid())
			if err := p.SetTarget(pid, &Target{}); err != nil {
				t.Fatal(err)
			}
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			burn(time.Second)
			if err := p.Stop(); err != nil {
				t.Fatal(err)
			}
			n, untouched := uint64(0), uint64(0)
			drain(t, p, func(r *Record) {
				n++
				if !checkSample(t, r, pid) {
					untouched++
				}
			})
			if untouched > n/50 {
				t.Errorf("%d of %d samples have no stack", untouched, n)
			}
			s, err := p.Stats()
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 || n != s.Recorded || s.LostRing != 0 {
				t.Errorf("read %d samples; counted %+v", n, s)
			}
		})
	}
}

// checkSample reports whether there is stack in the sample. There is none while SP is on a page that was never written to.
func checkSample(t *testing.T, r *Record, pid uint32) bool {
	t.Helper()
	s := &r.Sample
	const period = int64(time.Second / 499)
	if r.Type != TypeSample || r.PID != pid || r.StartTime == 0 || s.Kind != KindCPU || s.Value < period || s.Value > period+1 {
		t.Fatalf("record %+v", r)
	}
	if len(s.Segments) == 0 || s.Segments[0].PC == 0 || len(s.Segments[0].Window) == 0 && s.Segments[0].End != EndFault {
		t.Fatalf("segments %+v", s.Segments)
	}
	return len(s.Segments[0].Window) > 0
}

// TestEvents: exec and exit of a target arrive in order; a target that waits for its exec is not sampled before.
func TestEvents(t *testing.T) {
	p := load(t, Options{Frequency: 999, Event: EventCPUClock})
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestEventsChild$")
	cmd.Env = append(os.Environ(), childEnv+"=exec")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // its first exec is over
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	if err := errors.Join(p.SetTarget(pid, &Target{WaitExec: true}), p.Start()); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var events []Type
	drain(t, p, func(r *Record) {
		if r.PID != pid {
			t.Errorf("record of process %d", r.PID)
		}
		if r.Type != TypeSample || len(events) == 0 {
			events = append(events, r.Type)
		}
	})
	if want := []Type{TypeExec, TypeExit}; !slices.Equal(events, want) {
		t.Errorf("events %v, want %v", events, want)
	}
}

const childEnv = "PPROFD_BPF_TEST_CHILD"

// TestEventsChild is the program that TestEvents watches: it burns, calls exec once more, and ends.
func TestEventsChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		return // on its own, or after the exec
	}
	if _, err := os.Stdout.WriteString("."); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(os.Stdin); err != nil {
		t.Fatal(err)
	}
	burn(100 * time.Millisecond)
	t.Fatal(syscall.Exec("/proc/self/exe", os.Args, nil))
}

// TestEventsFirst: nothing of a target that waits for its exec is recorded before the exec is, whenever the timer fires.
func TestEventsFirst(t *testing.T) {
	p := load(t, Options{Frequency: 4999, Event: EventCPUClock})
	const processes = 400 // of which one or two had a sample first, where the wait ended before the record was out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]Type{} // the first record, by process
	for range processes {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "read x; exec true")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := uint32(cmd.Process.Pid) // Start returns after the exec of the shell
		if err := errors.Join(p.SetTarget(pid, &Target{WaitExec: true}), in.Close(), cmd.Wait()); err != nil {
			t.Fatal(err)
		}
		drain(t, p, func(r *Record) {
			if _, ok := seen[r.PID]; !ok {
				seen[r.PID] = r.Type
			}
		})
	}
	for pid, first := range seen {
		if first != TypeExec {
			t.Errorf("process %d: a record of type %v before its exec", pid, first)
		}
	}
	if len(seen) != processes {
		t.Errorf("%d processes of %d", len(seen), processes)
	}
}

// TestStale: a process that is not the one that was meant, by its start time, is counted and not sampled.
func TestStale(t *testing.T) {
	p := load(t, Options{Frequency: 499, Event: EventCPUClock})
	if err := errors.Join(p.SetTarget(uint32(os.Getpid()), &Target{StartTime: 1}), p.Start()); err != nil {
		t.Fatal(err)
	}
	burn(300 * time.Millisecond)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	drain(t, p, func(r *Record) { t.Errorf("record %+v", r) })
	if s, err := p.Stats(); err != nil || s.Recorded != 0 || s.StalePID == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestLost: what a full ring buffer drops is counted, by process and weight.
func TestLost(t *testing.T) {
	p := load(t, Options{Frequency: 1999, Event: EventCPUClock, RingBytes: os.Getpagesize()})
	pid := uint32(os.Getpid())
	if err := errors.Join(p.SetTarget(pid, &Target{}), p.Start()); err != nil {
		t.Fatal(err)
	}
	burn(300 * time.Millisecond) // nobody reads
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	drain(t, p, func(*Record) { n++ })
	s, err := p.Stats()
	losses, errLosses := p.Losses()
	if err := errors.Join(err, errLosses); err != nil {
		t.Fatal(err)
	}
	if s.LostRing == 0 || n != s.Recorded || losses[pid].Count != s.LostRing ||
		losses[pid].Value != s.LostRing*uint64(time.Second/1999) {
		t.Errorf("read %d, counted %+v, losses %+v", n, s, losses)
	}
}

func TestReadAfterClose(t *testing.T) {
	p := load(t, Options{})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Read(&Record{}, time.Time{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v", err)
	}
}
