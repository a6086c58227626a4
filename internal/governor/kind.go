package governor

import (
	"math"
	"time"
)

const (
	firstRatio         = 4.0 // user time per BPF time, before it was seen
	minRatio, maxRatio = 0.5, 16.0
	ratioEvents        = 50  // fewer say nothing of the ratio
	ratioMargin        = 1.2 // by which a load step may exceed it: code is seen that has no names yet

	maxUnthrottled = 16.0 // times the samples that were recorded, that there would have been

	safe     = 0.92 // of what a kind may cost, for what may come within a window
	ticksMay = 0.5  // of what a kind may cost, if all CPUs become busy
	ease     = 1.25 // the limit's distance from what is usual
	fastest  = 8    // times the rate that a rise may make it
	deadband = 1.1  // rises that are smaller are not worth a change

	minLimit     = 100e-6  // CPUs: BPF run time for about 20 samples a second, whatever is left
	minLimitPart = 1.0 / 8 // but no more of what the whole budget allows the kind
	lent         = 0.9     // what a kind that costs nothing gives away of its share

	lossHigh = 0.05 // of events that were lost for lack of room: the rate is not raised
)

// kind is a kind of profile as it is now, and what was seen of it. Costs are CPUs.
type kind struct {
	Kind
	on      bool    // it was part of the last window
	rate    float64 // that the next window has
	ceiling float64 // of it, for now; 0: Kind.Ceiling
	own     float64 // its share
	allowed float64 // its share, and what it is lent
	limit   float64
	ratio   float64 // user time per BPF time, of the windows that bpf and user sum up: each counts half as much as the next one
	bpf     float64
	user    float64
	cut     bool // by the last decision
	lossy   bool // events were lost
	step    int  // of keeps
	observed
	breaker breaker
}

// observed is of the last window that the kind was part of.
type observed struct {
	known             bool
	in                float64 // the rate in force
	cost              float64
	ticks, hits       float64 // interrupts; traps
	worst             float64 // both, if no CPU and no target were idle
	samples           float64 // BPF and user time, as they would have been without token bucket
	constant          float64 // of that, what may not grow with the rate: half of the user time, as no one knows
	events            float64 // a second
	lost, wrong       float64 // shares of the events
	count, wrongCount uint64
}

// runs says whether it has a part of the budget.
func (k *kind) runs() bool { return k.on && !k.breaker.off() }

// observe takes what was measured.
func (k *kind) observe(s *Spent, w time.Duration) {
	k.on = true
	o := observed{known: true, in: k.rate, ticks: share(s.Ticks, w), hits: share(s.Hits, w), count: s.Events, wrongCount: s.Errors}
	if positive(s.Rate) {
		o.in = s.Rate
	}
	bpf, user := share(s.BPF, w), share(s.User, w)
	o.cost = o.ticks + o.hits + bpf + user
	o.worst = max(o.ticks, share(s.TicksAll, w)) + max(o.hits, share(s.HitsAll, w))
	o.events = float64(s.Events) / w.Seconds()
	o.lost, o.wrong = part(s.Lost, s.Events), part(s.Errors, s.Events)
	o.samples, o.constant = (bpf+user)*min(maxUnthrottled, 1/(1-part(s.Throttled, s.Events))), user/2
	k.bpf, k.user = k.bpf/2+bpf, k.user/2+user
	if bpf > 0 && (s.Events >= ratioEvents || bpf > k.limit/10) {
		now := min(max(k.user/k.bpf, minRatio), maxRatio)
		k.ratio = max(now, (k.ratio+now)/2)
	}
	k.observed = o
}

// part is n of all, at most 1.
func part(n, all uint64) float64 {
	if n == 0 {
		return 0
	}
	return min(1, float64(n)/float64(max(all, 1)))
}

// wants is what it could use now, in CPUs, and what it needs as a reserve. Growth takes back step by step what was lent.
func (k *kind) wants() float64 {
	if !k.known {
		return k.own
	}
	full, growth := k.full(), 1.0
	if !k.fixed() {
		growth = min(max(k.Ceiling/k.in, 1), 4)
	}
	return max(full*growth/aim, k.worst/ticksMay, (1-lent)*k.own)
}

// full is the cost at the rate in force if nothing had been throttled.
func (k *kind) full() float64 { return k.ticks + k.hits + k.samples }

// state is what the rates of all kinds depend on.
type state int

const (
	usual  state = iota
	holds        // nothing is raised: memory is short
	halves       // rates are cut in each window: there is too little memory
	lowest       // summary mode
)

// govern sets the rate for what the kind may cost.
func (k *kind) govern(s state) {
	switch {
	case k.fixed():
		return
	case !k.on: // nothing is known of the window in which it will be on again
		k.rate, k.known = min(k.rate, k.Start), false
	}
	before := k.rate
	k.ceiling = k.bound()
	if k.known {
		k.follow(s)
	}
	switch {
	case s == lowest || k.breaker.off():
		k.rate, k.ceiling = k.Floor, k.Floor
	case s == halves:
		k.rate *= memoryCut
	}
	k.rate = max(k.Floor, min(k.rate, k.ceiling))
	k.cut = k.rate < before
}

// follow changes the rate by what the kind cost.
func (k *kind) follow(s state) {
	switch cost := k.full(); {
	case cost > high*k.allowed:
		k.rate = min(k.rate, k.in*aim*k.allowed/cost)
	case cost < low*k.allowed && !k.cut && s == usual && k.lost < lossHigh:
		k.rise(cost)
	}
}

// rise raises the rate toward where it would cost what the kind may. Of a kind that cost nothing it is not known where that is.
func (k *kind) rise(cost float64) {
	factor := 2.0
	if cost > 0 {
		possible := (aim*k.allowed - k.constant) / (cost - k.constant)
		factor = min(possible, max(2, min(math.Sqrt(possible), fastest)))
	}
	if to := min(k.in*factor, k.ceiling); to > k.rate*deadband || to >= k.Ceiling {
		k.rate = max(k.rate, to)
	}
}

// bound is the highest rate at which a load step stays within what the kind may cost: interrupts and traps at most, and the usual
// samples, with which the limit must not interfere.
func (k *kind) bound() float64 {
	if !k.known || k.in <= 0 || k.worst <= 0 {
		return k.Ceiling
	}
	worst, samples := k.worst/k.in, (k.samples-k.constant)/k.in
	b := min(ticksMay*k.allowed/worst, (safe*k.allowed-k.constant)/(worst+ease*samples))
	return max(k.Floor, min(k.Ceiling, b))
}

// restrict sets the limit of BPF run time: what interrupts and traps leave, without the user time that follows.
func (k *kind) restrict(budget float64) {
	left := k.allowed / 2 // nothing is known of interrupts
	if k.known {
		left = safe*k.allowed - k.worst*k.scale()
	}
	k.limit = max(left/(1+k.ratio*ratioMargin), min(minLimit, budget*minLimitPart))
}

// scale is by how much the rate differs from the one that was in force.
func (k *kind) scale() float64 {
	if k.in <= 0 || k.rate <= 0 {
		return 1
	}
	return k.rate / k.in
}

// setting is what the decision says of it.
func (k *kind) setting(m Mode) Setting {
	s := Setting{Name: k.Name, Rate: k.rate, Ceiling: k.Ceiling, Allowed: k.allowed, Keep: 1}
	if k.ceiling > 0 {
		s.Ceiling = k.ceiling
	}
	if k.Event {
		s.Keep = k.keep(m)
	}
	if k.breaker.off() {
		s.Off, s.Retry, s.Rate = true, k.breaker.wait, k.Floor
		return s
	}
	s.Limit = max(time.Duration(min(k.limit, 1e6)*float64(time.Second)), time.Microsecond)
	return s
}

// The static steps of event kinds: what is kept, from how many events a second.
var (
	keeps     = [...]float64{1, 0.2, 0.05}
	keepsFrom = [...]float64{0, 1000, 5000}
)

// back is the part of a threshold below which the step before it is taken again.
const back = 0.8

// count takes the static step for the events that were seen.
func (k *kind) count() {
	for k.step+1 < len(keeps) && k.events >= keepsFrom[k.step+1] {
		k.step++
	}
	for k.step > 0 && k.events < back*keepsFrom[k.step] {
		k.step--
	}
}

func (k *kind) keep(m Mode) float64 {
	if m == Summary {
		return keeps[len(keeps)-1]
	}
	return keeps[k.step]
}
