package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pprofd/pprofd/profiler"
)

// scripted is a source that runs for a while and then fails, or ends with its context.
type scripted struct {
	lives time.Duration // 0: until the context ends
	procs chan []profiler.Process
}

func (s *scripted) run(ctx context.Context) error {
	if s.lives == 0 {
		<-ctx.Done()
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(s.lives):
		return errors.New("broken")
	}
}

func (s *scripted) set(p []profiler.Process) { s.procs <- p }

// TestKindBeginsAgain: a kind that cannot be opened, or fails, is tried again, less and less often; it is told of the processes each
// time; after it has run for long, the waits are short again.
func TestKindBeginsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var opened []time.Duration
		lives := []time.Duration{-1, -1, 10 * time.Second, -1, 2 * time.Minute, 0} // -1: it cannot be opened
		told := make(chan []profiler.Process, 10)
		var changes int
		k := &kind{name: "test", log: slog.New(slog.DiscardHandler), changed: func() { changes++ }, open: func() (source, error) {
			life := lives[len(opened)]
			opened = append(opened, time.Since(began))
			if life < 0 {
				return nil, errors.New("no capability")
			}
			return &scripted{lives: life, procs: told}, nil
		}}
		k.set([]profiler.Process{{PID: 7}})
		if k.settled() {
			t.Error("settled before it was tried")
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			k.run(ctx)
		}()
		time.Sleep(time.Millisecond)
		if up, fails, why := k.state(); up || fails != 1 || why == nil || !k.settled() {
			t.Errorf("after the first failure: %v, %d, %v", up, fails, why)
		}
		time.Sleep(time.Hour)
		cancel()
		<-ended
		want := []float64{0, 1, 3, 17, 25, 146} // s: waits of 1, 2, 4, 8 and, after a long run, 1 again
		for i, s := range want {
			if i >= len(opened) || opened[i].Seconds() != s {
				t.Fatalf("opened after %v, not %v s", opened, want)
			}
		}
		if len(opened) != len(want) || len(told) != 3 || changes != 5+3 {
			t.Errorf("opened %d times, told %d times, %d changes", len(opened), len(told), changes)
		}
		if p := <-told; len(p) != 1 || p[0].PID != 7 {
			t.Errorf("told of %v", p)
		}
	})
}

// TestCountersGoOn: what sources count, one after the other, adds up.
func TestCountersGoOn(t *testing.T) {
	c := newTotals()
	for i, n := range []uint64{5, 7} {
		c.begin(func() profiler.Stats { return profiler.Stats{Recorded: n, Targets: 3, Exited: 2} })
		if s, running := c.get(); !running || s.Recorded != map[int]uint64{0: 5, 1: 12}[i] {
			t.Errorf("%d: %+v", i, s)
		}
		c.end()
		c.end()
	}
	if s, running := c.get(); running || s.Recorded != 12 || s.Targets != 6 || s.Exited != 6 {
		t.Errorf("%+v", s)
	}
}
