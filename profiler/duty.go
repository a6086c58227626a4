package profiler

import (
	"math"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// A probe costs the target a trap at each hit, whether or not a sample is taken. Where a process hits its probes more often
// than the budget allows, they are there for a part of the time only: time is cut into slots of a second or less, slots into
// cycles, and in each cycle some slots in a row, which begin at random, are probed. So each moment is probed with the same
// probability, and what is seen is divided by it. Two cycles fit into a window, so that something is seen in each; what was
// allocated in one in which nothing was seen all the same, because it was too short, counts in the next.

const (
	maxSlot    = time.Second
	minSlot    = 100 * time.Millisecond
	usualCycle = 5 * time.Second        // where there are no windows
	perWindow  = 0.4                    // of a window: a cycle. Slots end somewhat late
	turnRoom   = 20 * time.Millisecond  // of a cycle for each target, twice what its turn takes
	learning   = 200 * time.Millisecond // the first slot of all, which tells how often the probes are hit
	// hitCost is what one hit costs the target: the trap and the BPF program. coldCost is what it costs beyond that where hits
	// are rare, so that the kernel's code and data have left the caches in between: as if it were so for the first coldHits a
	// second. Measured in CPU time, probed and not in turns, on a virtual machine (25 and 31 pairs, intervals of 95 %): a program lost
	// 3.8 % (3.4 to 4.4) with 28,000 hits a second, 12.7 % (12.0 to 13.4) with 103,000; these numbers say 5.4 and 13.9 %.
	hitCost  = 1400 * time.Nanosecond
	coldCost = 1800 * time.Nanosecond
	coldHits = 10_000
	// turnCost is what it costs the target that its probes come and go once: it waits for its pages meanwhile.
	turnCost  = 500 * time.Microsecond
	maxCycle  = 60
	maxUnused = 0.95 // from this share on the probes stay
)

// duty is when a target is probed.
type duty struct {
	began, ends time.Time // the slot
	since       uint64    // the slot's beginning on the kernel's clock
	weight      float64   // of what is seen in the slot: 1 / the probability that it is probed
	before      float64   // weight of the last slot that was probed
	n, k, first int       // of a cycle: slots, how many are probed, where they begin
	at          int       // the slot's number in the cycle; -1: learning
	slot        time.Duration
	rate        float64 // hits a second while probed
	hits        uint64  // at the slot's beginning
	probed      time.Duration
	total       time.Duration
	partial     bool // there were slots that might not have been probed
}

func newDuty() duty {
	now := time.Now()
	return duty{began: now, ends: now.Add(learning), since: monotonic(), weight: 1, before: 1, at: -1, slot: learning}
}

// monotonic is the clock of bpf.Sample.Time.
func monotonic() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return uint64(t.Nano())
}

// cycleIn is how long cycles may be where windows have a length, or none: 0. It takes the profiler some milliseconds to probe a target
// again, so that with many they are longer.
func cycleIn(window time.Duration, targets int) time.Duration {
	cycle := usualCycle
	if window > 0 {
		cycle = time.Duration(perWindow * float64(window))
	}
	return max(cycle, time.Duration(targets)*turnRoom)
}

// plan begins a cycle, of the length of cycle at most if slots need not be too short for that.
func (d *duty) plan(budget float64, cycle time.Duration) {
	d.slot = maxSlot
	d.divide(share(budget, d.rate, d.slot))
	if fits := max(cycle/time.Duration(d.n), minSlot); fits < d.slot {
		d.slot = fits
		d.divide(share(budget, d.rate, d.slot))
	}
}

// divide makes a cycle of slots, of which share is probed.
func (d *duty) divide(share float64) {
	switch {
	case share >= maxUnused:
		d.n, d.k = 1, 1
	case share > 0.5:
		d.n = min(maxCycle, int(1/(1-share)))
		d.k = d.n - 1
	default:
		d.n, d.k = min(maxCycle, int(math.Ceil(1/share))), 1
	}
	d.at, d.first = 0, rand.IntN(d.n)
	d.partial = d.partial || d.n > 1
}

// on: the slot is to be probed.
func (d *duty) on() bool { return d.at < 0 || (d.at-d.first+d.n)%d.n < d.k }

// weightOf is the weight of what was seen at a time.
func (d *duty) weightOf(at uint64) float64 {
	if at < d.since {
		return d.before
	}
	return d.weight
}

// next ends the slot, of which hits were seen if it was probed, and begins the next one.
func (d *duty) next(now time.Time, hits uint64, budget float64, cycle time.Duration) {
	length := now.Sub(d.began)
	d.total += length
	if d.on() {
		d.before = d.weight
		d.probed += length
		d.learn(float64(hits-min(d.hits, hits)) / length.Seconds())
	}
	d.hits = hits
	if d.at++; d.at <= 0 || d.at >= d.n {
		d.plan(budget, cycle)
	}
	d.weight = float64(d.n) / float64(d.k)
	d.began, d.since, d.ends = now, monotonic(), now.Add(d.slot)
}

// finish counts the slot that the end of the recording cuts.
func (d *duty) finish() {
	if d.began.IsZero() {
		return
	}
	now := time.Now()
	d.total += now.Sub(d.began)
	if d.on() {
		d.probed += now.Sub(d.began)
	}
	d.began = now
}

// resume begins a slot behind a time in which nothing was probed, whatever the plan was.
func (d *duty) resume(now time.Time, hits uint64) {
	if d.began.IsZero() {
		return
	}
	d.total += now.Sub(d.began)
	d.partial = true
	d.hits = hits
	d.began, d.since, d.ends = now, monotonic(), now.Add(d.slot)
}

// cost is the share of a CPU that so many hits a second take.
func cost(rate float64) float64 {
	return rate*hitCost.Seconds() + min(rate, coldHits)*coldCost.Seconds()
}

// share is for which part of the time a budget pays, with the turns: there is at most one in 1 / share slots. One below 0 has no end.
func share(budget, rate float64, slot time.Duration) float64 {
	if all := cost(max(rate, 1)); budget >= 0 && all*maxUnused > budget {
		return budget / (all + turnCost.Seconds()/slot.Seconds())
	}
	return 1
}

func (d *duty) learn(rate float64) {
	if d.rate == 0 {
		d.rate = rate
	}
	d.rate += (rate - d.rate) / 2
}

// turnAllocs ends a slot where its time has come: probes come or go.
func (p *Profiler) turnAllocs(t *target, now time.Time) {
	a := t.alloc
	if a == nil || a.rate > 0 || p.cfg.AllocBudget < 0 && !a.duty.partial || p.rate.off || t.gone || p.started.IsZero() || now.Before(a.duty.ends) {
		return
	}
	first := a.duty.at < 0
	was := a.duty.on()
	p.keepTotals(t, a.duty.weight)
	a.duty.next(now, a.hits(), p.cfg.AllocBudget, cycleIn(p.cfg.Window, len(p.targets)))
	on := a.duty.on()
	if was && !on {
		p.beginDetach(t)
	}
	p.keepTotals(t, a.duty.before)
	if first {
		a.checkTotal(t)
	}
	if on && !was {
		if err := p.attachAllocs(t); err != nil && p.alive(&t.process) {
			p.note("process %d (%s): %v", t.pid, t.comm, err)
		}
	}
}

// countTotal begins to follow the runtime's own count of bytes.
func (a *allocTarget) countTotal(t *target) {
	a.ownKnown = false
	if a.sites.TotalAlloc == 0 || a.rate > 0 || len(a.totals) > 0 { // the latter are of the program before its exec
		return
	}
	n, err := a.sites.ReadTotalAlloc(memory{t.space}, t.bias)
	a.own, a.ownKnown = n, err == nil
}

// checkTotal believes the runtime's count if it agrees with what was counted while all was seen. Spans in use are in neither,
// but not the same ones.
func (a *allocTarget) checkTotal(t *target) {
	if !a.ownKnown {
		return
	}
	const inUse = 4 << 20
	n, err := a.sites.ReadTotalAlloc(memory{t.space}, t.bias)
	counted := 0.0
	for _, c := range a.totals {
		counted += c.bytes
	}
	own := float64(n - a.own)
	a.ownKnown = err == nil && n >= a.own && math.Abs(own-counted) <= inUse+counted/10
}

// ownTotal is what the runtime says that was allocated since countTotal; ok is false where that is not known.
func (a *allocTarget) ownTotal(t *target) (bytes float64, ok bool) {
	if !a.ownKnown || t.space == nil {
		return 0, false
	}
	n, err := a.sites.ReadTotalAlloc(memory{t.space}, t.bias)
	return float64(n - min(a.own, n)), err == nil && n > a.own
}

// restart begins to count anew, for the next window: what the runtime has counted in one in which nothing was seen goes there, too.
func (a *allocTarget) restart(t *target) {
	owed := a.duty.partial && len(a.totals) == 0
	a.totals = nil
	a.duty.probed, a.duty.total, a.duty.partial = 0, 0, a.duty.n > 1
	if a.ownKnown && !owed {
		a.countTotal(t)
	}
}
