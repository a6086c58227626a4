package profiler

import (
	"cmp"
	"math"
	"testing"
	"time"
)

// TestEachSlotIsProbedAsOften: whatever the share, each slot of a cycle is probed with the probability by which what is seen
// in it is divided, so that the estimate is unbiased.
func TestEachSlotIsProbedAsOften(t *testing.T) {
	for _, share := range []float64{1, 0.97, 0.9, 0.8, 0.51, 0.5, 0.4, 0.16, 0.02, 0.0001} {
		const cycles = 20000
		var d duty
		d.divide(share)
		probed := make([]int, d.n)
		for range cycles {
			d.divide(share)
			for d.at = range d.n {
				if d.on() {
					probed[d.at]++
				}
			}
		}
		want := float64(d.k) / float64(d.n)
		for slot, n := range probed {
			if sd := math.Sqrt(want * (1 - want) / cycles); math.Abs(float64(n)/cycles-want) > 5*sd+1e-9 {
				t.Errorf("share %v: slot %d of %d is probed in %.4f of the cycles, want %.4f", share, slot, d.n, float64(n)/cycles, want)
			}
		}
		if share >= 1.0/maxCycle && want > share+0.06 {
			t.Errorf("share %v: probed for %v of the time", share, want)
		}
	}
}

// TestDutyIsUnbiased: a program that allocates by the second number n times as much is estimated right.
func TestDutyIsUnbiased(t *testing.T) {
	const seconds, runs = 40, 3000
	sum, want := 0.0, 0.0
	for range runs {
		d, now, hits := newDuty(), time.Now(), uint64(0)
		for n := range seconds {
			if d.on() {
				hits += 40_000 // four times the budget
				sum += d.weight * float64(n)
			}
			want += float64(n)
			now = now.Add(maxSlot)
			d.next(now, hits, 0.01, time.Minute)
		}
	}
	if sum < 0.98*want || sum > 1.02*want {
		t.Errorf("estimated %.0f, want %.0f", sum/runs, want/runs)
	}
}

// TestBudgetIsKept: hits stay within what the budget pays for, but for the moment of learning.
func TestBudgetIsKept(t *testing.T) {
	for _, rate := range []float64{100, 3_000, 9_000, 13_000, 60_000, 1e6} {
		d, now, hits := newDuty(), time.Now(), 0.0
		const seconds = 600
		for range seconds {
			if d.on() {
				hits += rate
			}
			now = now.Add(maxSlot)
			d.next(now, uint64(hits), 0.01, maxCycle*maxSlot)
		}
		if took := cost(rate) * hits / rate; cost(rate) < 0.01*maxCycle && took > 0.01*1.1*seconds+cost(rate) {
			t.Errorf("%v hits a second: they took %.2f s of %d s", rate, took, seconds)
		}
		if cost(rate) < 0.01*maxUnused && d.probed != d.total {
			t.Errorf("%v hits a second: probed for %v of %v", rate, d.probed, d.total)
		}
	}
}

// TestCyclesFitIntoWindows: two cycles end within a window, unless their slots would be too short.
func TestCyclesFitIntoWindows(t *testing.T) {
	for _, rate := range []float64{1_000, 9_000, 30_000, 100_000} {
		for _, window := range []time.Duration{0, 10 * time.Second, 15 * time.Second, time.Minute, time.Hour} {
			d := newDuty()
			d.rate = rate
			d.plan(defaultAllocBudget, cycleIn(window, 50))
			fits := cmp.Or(window, 15*time.Second)
			if length := time.Duration(d.n) * d.slot; length > fits/2 || d.slot > maxSlot || d.slot < minSlot {
				t.Errorf("%v hits a second, windows of %v: %d slots of %v", rate, window, d.n, d.slot)
			}
			if took := cost(rate)*float64(d.k)/float64(d.n) + turnCost.Seconds()/(float64(d.n)*d.slot.Seconds()); d.n > 1 && d.n < maxCycle && took > 1.01*defaultAllocBudget {
				t.Errorf("%v hits a second, windows of %v: %.3f %% of a CPU", rate, window, 100*took)
			}
		}
	}
}
