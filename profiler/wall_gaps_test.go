package profiler

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestGaps simulates goroutines that wait, at known times, and what snapshots see of it: how many waits are estimated, by how they are distributed. The
// bounds say what the bias is: chance is no part of it in an hour, and what was seen alone would be 1 in 500 of the shortest.
func TestGaps(t *testing.T) {
	always := func(d time.Duration) func(*rand.Rand) time.Duration {
		return func(*rand.Rand) time.Duration { return d }
	}
	exponential := func(d time.Duration) func(*rand.Rand) time.Duration {
		return func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(d)) }
	}
	for name, c := range map[string]struct {
		span      func(*rand.Rand) time.Duration
		low, high float64 // of what is estimated, against the truth
	}{
		"100 µs":                  {always(100 * time.Microsecond), 0.5, 1.1}, // most are over at the second look
		"1 ms":                    {always(time.Millisecond), 1, 1.8},         // they end more often than exponential ones that are as short
		"5 ms":                    {always(5 * time.Millisecond), 1, 1.8},
		"20 ms":                   {always(20 * time.Millisecond), 0.95, 1.2},
		"60 ms":                   {always(60 * time.Millisecond), 0.85, 1.05},
		"200 ms":                  {always(200 * time.Millisecond), 0.98, 1.02},
		"exponential, 1 ms":       {exponential(time.Millisecond), 0.85, 1.05},
		"exponential, 20 ms":      {exponential(20 * time.Millisecond), 0.85, 1.05},
		"1 ms, a fifth 200 ms":    {mixture(time.Millisecond, 200*time.Millisecond, 0.2), 0.8, 1.2},
		"5 ms, a third 0.5 s":     {mixture(5*time.Millisecond, 500*time.Millisecond, 0.33), 0.8, 1.6},
		"20 ms, a half of 0.2 ms": {mixture(20*time.Millisecond, 200*time.Microsecond, 0.5), 0.5, 1}, // the short ones are hardly met
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			sim := simulation{r: r, span: c.span}
			for range 400 {
				sim.run(10 * time.Second)
			}
			ratio, seen := float64(sim.estimated)/float64(sim.waits), float64(sim.seen)/float64(sim.waits)
			t.Logf("%s: estimated %.2f of what there was; seen %.3f", name, ratio, seen)
			if ratio < c.low || ratio > c.high {
				t.Errorf("estimated %.2f of what there was, want %v to %v", ratio, c.low, c.high)
			}
		})
	}
}

func mixture(a, b time.Duration, share float64) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration {
		if r.Float64() < share {
			return b
		}
		return a
	}
}

// simulation is of one goroutine.
type simulation struct {
	r                      *rand.Rand
	span                   func(*rand.Rand) time.Duration
	waits, seen, estimated int64
}

// run is a profile of some time.
func (s *simulation) run(d time.Duration) {
	const slot = time.Second / defaultWallFrequency
	g := &wallGroup{once: &gaps{}}
	var last *stopped
	begin, end := time.Duration(0), time.Duration(0) // of the wait
	snapshots := int64(0)
	for from := time.Duration(0); from < d; from += slot {
		at := from + time.Duration(s.r.Int64N(int64(slot)))
		snapshots++
		for end < at {
			begin = end + time.Duration(s.r.Int64N(int64(2*time.Millisecond))) // it does something else
			end = begin + s.span(s.r)
			s.waits++
		}
		if at < begin {
			continue
		}
		g.count++
		g.weight += slot
		if last != nil && last.id == uint64(s.waits) {
			last.repeated()
			last.last++
			continue
		}
		g.stops++
		last = &stopped{id: uint64(s.waits), group: g, looked: &glance{at: time.Unix(0, int64(at))}}
		g.once.waits++
		second := at + 130*time.Microsecond
		last.note(0, time.Unix(0, int64(second)), second < end)
		if second < end {
			third := second + againAfter(s.r.Float64())
			last.note(1, time.Unix(0, int64(third)), third < end)
		}
	}
	s.seen += g.stops
	s.estimated += g.contentions(0, snapshots)
}
