package governor

import (
	"testing"
)

func TestBreaker(t *testing.T) {
	tests := map[string]struct {
		bad Observation
		why string
	}{
		"events that go wrong": {
			both(spent("cpu", 0.01, 0), Spent{Name: "heap", Events: 10, Errors: 4}), "heap: off for 4 windows: 40 % of its events went wrong"},
		"three times its share": {
			both(spent("cpu", budget*0.4, 0), spent("heap", budget*1.6, 0)), "heap: off for 4 windows: it costs 3.2 times its share"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newGovernor(t, twoKinds)
			good := both(spent("cpu", budget*0.4, 0), spent("heap", budget*0.4, 0))
			g.Next(good)
			g.Next(tt.bad)
			g.Next(tt.bad)
			if d := g.Next(good); d.Kinds[1].Off {
				t.Error("off after two bad windows")
			}
			if d := bad(g, tt.bad, patience); !d.Kinds[1].Off || d.Kinds[1].Retry != firstWait || !mentions(d, tt.why) || d.Kinds[0].Off {
				t.Errorf("after three: %+v", d)
			}
		})
	}
}

// bad shows the same window n times.
func bad(g *Governor, o Observation, n int) (d Decision) {
	for range n {
		d = g.Next(o)
	}
	return d
}

// A kind that is tried again may be bad for one window, and is then off for twice as long; where it is good for as long as it
// was off, the next time counts as the first.
func TestBreakerTriesAgain(t *testing.T) {
	g := newGovernor(t, twoKinds)
	wrong := both(spent("cpu", budget*0.4, 0), Spent{Name: "heap", Events: 10, Errors: 10})
	off := Observation{Window: window, Kinds: []Spent{spent("cpu", budget*0.4, 0)}}
	bad(g, wrong, patience)
	for _, wait := range []int{firstWait, 2 * firstWait, 4 * firstWait} {
		d := g.Next(Observation{}) // as it is
		for left := wait; left > 0; left-- {
			if k := d.Kinds[1]; !k.Off || k.Retry != left || k.Rate != 0.01 {
				t.Fatalf("%d windows before it is tried again: %+v", left, k)
			}
			d = g.Next(off)
		}
		if k := d.Kinds[1]; k.Off || k.Rate != 0.01 || k.Limit <= 0 || !mentions(d, "heap: tried again") {
			t.Fatalf("tried again: %+v %q", k, d.Reasons)
		}
		g.Next(wrong)
	}
	bad(g, off, 8*firstWait)
	good := both(spent("cpu", budget*0.4, 0), spent("heap", budget*0.01, 0))
	if d := bad(g, good, 8*firstWait); d.Kinds[1].Off {
		t.Fatalf("off though nothing is wrong: %+v", d)
	}
	if d := bad(g, wrong, patience); d.Kinds[1].Retry != firstWait {
		t.Errorf("after a long good time: %+v", d.Kinds[1])
	}
}

func TestBreakerWaitsNoLongerThanItsMost(t *testing.T) {
	var b breaker
	for range 100 {
		b.trip()
	}
	if b.wait != maxWait {
		t.Errorf("%d windows", b.wait)
	}
}
