package spend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/governor"
)

// source is a kind whose cost follows its rate: each second it takes rate times each.
type source struct {
	rate, each float64 // CPUs for each unit of the rate
	sum        Counters
	set        []governor.Setting
	fails      bool
}

func (s *source) kind() Kind {
	return Kind{
		Kind:  governor.Kind{Name: "k", Share: 1, Floor: 1, Ceiling: 100, Start: s.rate, Unit: "Hz"},
		Count: func() (Counters, bool) { return s.sum, true },
		Set: func(to governor.Setting, _ *governor.Decision) error {
			if s.fails {
				return errors.New("no")
			}
			s.rate = to.Rate
			s.set = append(s.set, to)
			return nil
		},
	}
}

// pass lets a second pass.
func (s *source) pass(t *testing.T, k *Keeper, now *time.Time) {
	t.Helper()
	*now = now.Add(time.Second)
	s.sum.BPF += time.Duration(s.rate * s.each * float64(time.Second))
	s.sum.Events += uint64(s.rate)
	k.window(*now)
}

// TestKeeper: what costs too much is cut until it fits, and rises again when it costs less.
func TestKeeper(t *testing.T) {
	s := &source{rate: 50, each: 0.01}
	changes, failures := 0, 0
	k, err := New(Config{
		Share: 0.5, Load: 1000, Kinds: []Kind{s.kind()}, ProcRoot: "/proc",
		Changed: func(governor.Mode, []string) { changes++ }, Failed: func(error) { failures++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	k.cfg.Interval = time.Second
	k.governor, err = governor.New(governor.Config{CPU: 0.1, LoadHigh: 1000, LoadLow: 900, Kinds: []governor.Kind{k.cfg.Kinds[0].Kind}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if _, err := k.measure(now); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		s.pass(t, k, &now)
	}
	state := k.State()
	if cost := s.rate * s.each; cost > 0.1 || cost < 0.02 || state.Spent > state.Budget || state.Windows != 10 || state.Over == 0 || state.Over > 2 {
		t.Errorf("rate %v, state %+v", s.rate, state)
	}
	low := s.rate
	s.each /= 10
	for range 10 {
		s.pass(t, k, &now)
	}
	if s.rate < 2*low {
		t.Errorf("samples cost a tenth: rate from %v to %v", low, s.rate)
	}
	k.cfg.Kinds[0].Most, k.cfg.Kinds[0].EachCPU, k.costs.Tick = func() float64 { return 0.001 }, true, 10*time.Microsecond
	s.pass(t, k, &now)
	o := k.State().Observation.Kinds[0]
	if all := time.Duration(float64(10*time.Microsecond) * o.Rate * k.host.cpus); o.TicksAll != all || all == 0 || o.Ticks != 0 {
		t.Errorf("ticks of CPUs that idle now would cost %v more: %+v", all, o)
	}
	if o.HitsAll != time.Duration(0.001*o.Rate*float64(time.Second)) || o.HitsAll == 0 {
		t.Errorf("%+v", o)
	}
	if c := k.Comments(); len(c) != 1 || !strings.HasPrefix(c[0], "mode full: spent ") {
		t.Errorf("comments %q", c)
	}
	s.sum = Counters{} // it has begun anew
	s.pass(t, k, &now)
	if got := k.State(); got.Spent > got.Budget {
		t.Errorf("a kind that began anew: %+v", got)
	}
	s.fails = true
	s.pass(t, k, &now)
	if changes == 0 || failures != 1 {
		t.Errorf("told of %d changes and %d failures", changes, failures)
	}
}

// TestRun: a real clock; it ends with its context, before and after it has begun to measure.
func TestRun(t *testing.T) {
	s := &source{rate: 1}
	calibrated := false
	calibrate := func() (Costs, error) { calibrated = true; return Costs{Tick: time.Microsecond}, nil }
	k, err := New(Config{Kinds: []Kind{s.kind()}, Interval: 10 * time.Millisecond, Calibrate: calibrate, Children: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { defer close(done); k.Run(ctx) }()
	for k.State().Windows < 3 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if <-done; !calibrated || k.Costs() != (Costs{time.Microsecond, usualHit}) {
		t.Errorf("calibrated %v, %+v", calibrated, k.Costs())
	}
	if len(s.set) == 0 || k.State().Budget <= 0 {
		t.Errorf("nothing was set; %+v", k.State())
	}
	k, err = New(Config{Kinds: []Kind{s.kind()}, Begin: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	k.Run(ctx)
	if _, err := New(Config{ProcRoot: t.TempDir(), Kinds: []Kind{s.kind()}}); err == nil {
		t.Error("no /proc, and no error")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no kinds, and no error")
	}
}

// TestBlindness: what cannot be measured for a while changes nothing, is told once, and ends.
func TestBlindness(t *testing.T) {
	self := fmt.Sprint(os.Getpid())
	line, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	root := proc(t, map[string]string{"stat": stat, self + "/stat": string(line)})
	if err := os.Symlink(self, filepath.Join(root, "self")); err != nil {
		t.Fatal(err)
	}
	s := &source{rate: 1, each: 0.001}
	var failures []error
	k, err := New(Config{Kinds: []Kind{s.kind()}, ProcRoot: root, Failed: func(err error) { failures = append(failures, err) }})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k.measured(now)
	s.pass(t, k, &now)
	if k.State().Windows != 1 || len(failures) != 0 {
		t.Fatalf("%+v, %v", k.State(), failures)
	}
	hidden := filepath.Join(root, "hidden")
	for range 2 {
		if err := os.Rename(filepath.Join(root, self), hidden); err != nil {
			t.Fatal(err)
		}
		before := len(failures)
		s.pass(t, k, &now)
		s.pass(t, k, &now)
		if len(failures) != before+1 {
			t.Errorf("failures %v", failures)
		}
		if err := os.Rename(hidden, filepath.Join(root, self)); err != nil {
			t.Fatal(err)
		}
		s.pass(t, k, &now)
	}
	if got := k.State().Windows; got != 3 {
		t.Errorf("%d windows were measured, want 3", got)
	}
}
