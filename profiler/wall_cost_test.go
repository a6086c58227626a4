package profiler

import (
	"testing"
	"time"
)

// recorded are the snapshots of a recording, each of which costs what the function says of its number, from 0 on: how many there are, and the CPU time of
// all but the first; owed is what later slots would pay of that.
func recorded(d time.Duration, cost func(i int) time.Duration) (n int, rest, owed time.Duration) {
	target := &wallTarget{w: NewWall(WallConfig{})}
	began := time.Unix(0, 0)
	end := began.Add(d)
	now := began
	target.plan(now, end)
	for target.moment.Before(end) {
		took := cost(n)
		if n > 0 {
			rest, owed = rest+took, owed/2+took
		}
		n++
		now = later(now, target.moment).Add(took)
		target.paid(took)
		target.plan(later(target.slot.Add(target.length), now), end)
	}
	return n, rest, owed
}

// TestWallCost: a first snapshot that costs much, as it does on a slow machine, leaves a short recording its others; all others together take a tenth of
// the time at most, however their costs change; and where each costs as much as the first there is one more than there may be.
func TestWallCost(t *testing.T) {
	const ms = time.Millisecond
	always := func(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }
	for name, c := range map[string]struct {
		length    time.Duration
		cost      func(i int) time.Duration
		low, high int // snapshots
	}{
		"cheap": {10 * time.Second, always(ms), 188, 192},
		"a cold one": {10 * time.Second, func(i int) time.Duration {
			if i == 0 {
				return 2 * time.Second
			}
			return 10 * ms
		}, 35, 90},
		"two cold ones": {10 * time.Second, func(i int) time.Duration {
			if i < 2 {
				return 500 * ms
			}
			return 10 * ms
		}, 25, 60},
		"in turns":      {time.Minute, func(i int) time.Duration { return time.Duration(1+99*(i%2)) * ms }, 110, 140},
		"more and more": {time.Minute, func(i int) time.Duration { return time.Duration(i) * ms }, 60, 115},
		"a slow one": {20 * time.Second, func(i int) time.Duration {
			if i == 50 {
				return 400 * ms
			}
			return 2 * ms
		}, 250, 330},
		"costly":                    {time.Minute, always(2 * time.Second), 4, 6},
		"longer than the recording": {10 * time.Second, always(20 * time.Second), 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // moments are random
				n, rest, owed := recorded(c.length, c.cost)
				if n < c.low || n > c.high {
					t.Errorf("%d snapshots, want %d to %d", n, c.low, c.high)
				}
				if limit := c.length/wallBusy + owed + c.cost(0)/2; rest > limit { // one that costs as much as the first was not expected
					t.Errorf("%v for %d snapshots besides the first: want %v at most", rest, n-1, limit)
				}
			}
		})
	}
}
