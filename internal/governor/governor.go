// Package governor decides how much profiling a host gets for a stated budget. It is a pure function of what it is told: no
// clock, no goroutine, no system call, so that a simulation can drive it (benchmarks/governor).
//
// After every window it is told what the window cost (Observation) and says how the next one is to be (Decision):
//
//  1. What the agent itself needs, whatever it profiles (Base), is taken from the budget; the rest is divided among the kinds
//     that are on, by their shares. What a kind cannot use others may have.
//  2. A kind that cost more than 0.9 of what it may is cut at once to 0.75 of it; one that cost less than 0.6 is raised, to
//     twice the rate or, where it is far away, half of the way (on a logarithmic scale), but not to more than eight times, and
//     not in the window after a cut; between the two its rate stays.
//  3. No rate is so high that, if all CPUs became busy at once, their interrupts and traps and the samples that are usual would
//     exceed what the kind may cost: nothing but the rate limits interrupts and traps within a window.
//  4. What is left beside them is the limit of BPF run time, which a token bucket in BPF keeps within the window;
//     user time follows the samples, at the ratio last seen.
//
// A busy host (Load) gets the lowest rates; kinds that misbehave are off for a while; memory that is short is given back.
package governor

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Config is the budget and what it is for. It does not change.
type Config struct {
	CPU    float64 // CPUs that profiling may use, all in all: 0.01 * 16 is 1 % of 16 CPUs
	Memory int64   // bytes of RSS; 0: no limit
	// LoadHigh is the load above which there is summary mode, LoadLow that below which there is full mode again; both 0: 0.7
	// and 0.55.
	LoadHigh, LoadLow float64
	Kinds             []Kind
}

// Kind is one kind of profile.
type Kind struct {
	Name  string
	Share float64 // of Config.CPU: a weight, normalized over the kinds that are on
	// Floor, Ceiling and Start are of the rate, with which the cost grows: samples a second and CPU; readings a second; 1/bytes
	// between two samples. All 0: an Event kind whose rate cannot be set.
	Floor, Ceiling, Start float64
	Unit                  string // of the rate, for Reasons: "Hz"; of "1/B" the inverse is shown: "512 KiB"
	Event                 bool   // its events are counted, and beyond 1,000 and 5,000 a second only a part of them is kept
}

// Observation is what the window that has just ended cost.
type Observation struct {
	Window time.Duration
	CPUs   float64       // capacity; for Reasons only
	Load   float64       // of the host, 0..1 and more: PSI where there is, else load average / CPUs; NaN: unknown
	RSS    int64         // bytes; 0: unknown
	Base   time.Duration // CPU time of the agent that belongs to no kind (scans, web, writing)
	Kinds  []Spent       // by the names of Config.Kinds; a kind that is missing is off
}

// Spent is what one kind cost in the window. CPU times are sums over all CPUs.
type Spent struct {
	Name        string
	Ticks, Hits time.Duration // interrupts and traps at their calibrated cost, whether or not a sample came of them
	// TicksAll is what Ticks would be at this rate if no CPU had been idle: window x rate x CPUs that have an event x cost of a
	// tick; 0: unknown, then a load step may exceed the budget within its window.
	TicksAll time.Duration
	// HitsAll is what Hits could be at this rate at most, as far as something else than the rate bounds them: targets x what the
	// probes of each may cost; 0: unknown, as above.
	HitsAll         time.Duration
	BPF             time.Duration // run time of its programs
	User            time.Duration // CPU time of the agent for it
	Events          uint64        // samples, hits, readings: what was seen, before Keep
	Lost, Throttled uint64        // of these: no room; dropped by the token bucket
	Errors          uint64        // events that went wrong (bad span, failed reading)
	Rate            float64       // that was in force; 0: the one last decided
}

// Mode says how much is profiled.
type Mode int

// Full is the usual mode. In Summary the host is busy: lowest rates, longer windows, no kernel stacks.
const (
	Full Mode = iota
	Summary
)

func (m Mode) String() string {
	if m == Summary {
		return "summary"
	}
	return "full"
}

// Decision is how the next window is to be.
type Decision struct {
	Mode     Mode
	Windows  int       // a profile's window is so many times as long as usual
	NoKernel bool      // no kernel stacks
	Trim     bool      // memory is short: give back what can be
	Kinds    []Setting // one for each of Config.Kinds, in their order
	// Spent and Budget are CPUs: of the observed window, and of Config.
	Spent, Budget float64
	Reasons       []string // for people, short: "cpu: 0.9 % of 0.8 %: rate 19 -> 12 Hz"; only what changed
}

// Setting is how one kind is to be in the next window.
type Setting struct {
	Name    string
	Rate    float64
	Ceiling float64       // above which Rate cannot be now: Kind.Ceiling or less, see the package's third rule; in Summary the floor
	Allowed float64       // CPUs that it may cost: its share and what others lend it
	Keep    float64       // Event kinds: probability of an event to be kept, 1, 0.2 or 0.05; else 1
	Limit   time.Duration // BPF run time a second that the token bucket allows, all CPUs; more than 0 unless Off
	Off     bool          // detach it
	Retry   int           // Off: windows until it is tried again
}

const (
	minWindow = 10 * time.Millisecond // shorter ones say nothing

	high = 0.9  // of what a kind may cost: above, it is cut
	low  = 0.6  // below, it is raised
	aim  = 0.75 // what it is cut or raised to

	baseDecay = 0.5 // by which the agent's own cost is believed to fall from window to window

	defaultLoadHigh, defaultLoadLow = 0.7, 0.55
)

// Governor holds what is remembered of earlier windows. It is not safe for concurrent use.
type Governor struct {
	Config
	kinds   []*kind
	mode    Mode
	unknown int     // windows in a row without a load
	calm    int     // windows in a row with a low one
	base    float64 // CPUs
	starved bool    // base takes all of the budget
	memory  memory
	last    Decision
}

// New checks c. The first decision, before anything is known, is Next(Observation{}).
func New(c Config) (*Governor, error) {
	if c.LoadHigh == 0 && c.LoadLow == 0 {
		c.LoadHigh, c.LoadLow = defaultLoadHigh, defaultLoadLow
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("governor: %w", err)
	}
	g := &Governor{Config: c}
	for _, k := range c.Kinds {
		g.kinds = append(g.kinds, &kind{Kind: k, rate: k.Start, ratio: firstRatio, on: true})
	}
	g.allot()
	for _, k := range g.kinds {
		k.restrict(c.CPU)
	}
	g.last = g.decision(Decision{})
	return g, nil
}

func (c *Config) check() error {
	if !sensible(c.CPU) {
		return fmt.Errorf("a budget of %v CPUs: it must be from %v to %v", c.CPU, 1/most, most)
	}
	if c.Memory < 0 {
		return fmt.Errorf("a budget of %d bytes: it must not be below 0", c.Memory)
	}
	if !positive(c.LoadLow) || !positive(c.LoadHigh) || c.LoadLow >= c.LoadHigh {
		return fmt.Errorf("loads %v and %v: the lower must be above 0 and below the higher", c.LoadLow, c.LoadHigh)
	}
	if len(c.Kinds) == 0 {
		return errors.New("no kinds")
	}
	for i, k := range c.Kinds {
		if err := k.check(); err != nil {
			return fmt.Errorf("kind %q: %w", k.Name, err)
		}
		if slices.ContainsFunc(c.Kinds[:i], func(other Kind) bool { return other.Name == k.Name }) {
			return fmt.Errorf("kind %q: twice", k.Name)
		}
	}
	return nil
}

func (k *Kind) check() error {
	switch {
	case k.Name == "":
		return errors.New("no name")
	case !sensible(k.Share):
		return fmt.Errorf("a share of %v: it must be from %v to %v", k.Share, 1/most, most)
	case k.fixed():
		return nil
	case !positive(k.Floor) || !positive(k.Ceiling) || !(k.Floor <= k.Start && k.Start <= k.Ceiling):
		return fmt.Errorf("rates %v, %v, %v: floor, start and ceiling must be above 0 and ascend", k.Floor, k.Start, k.Ceiling)
	}
	return nil
}

// fixed says whether there is no rate to set.
func (k *Kind) fixed() bool { return k.Event && k.Floor == 0 && k.Start == 0 && k.Ceiling == 0 }

// most is more of anything than there is; its inverse is less.
const most = 1e6

func sensible(f float64) bool { return f >= 1/most && f <= most }

func positive(f float64) bool { return f > 0 && !math.IsInf(f, 0) }

// Next takes what the last window cost, and says how the next one is to be. A window that is too short to say anything
// changes nothing. It mutates only g.
func (g *Governor) Next(o Observation) Decision {
	if o.Window < minWindow {
		d := g.last
		d.Kinds, d.Reasons = slices.Clone(d.Kinds), nil
		return d
	}
	d := Decision{Spent: g.observe(&o)}
	g.breakers(&d)
	g.load(o.Load, &d)
	g.remember(o.RSS, &d)
	g.allot()
	for _, k := range g.kinds {
		g.next(k, &o, &d)
	}
	if starved := g.base >= g.CPU; starved != g.starved {
		g.starved = starved
		d.reason("the agent itself: %s%s", of(g.base, g.CPU, o.CPUs), map[bool]string{true: ": profiling is at its lowest"}[starved])
	}
	d = g.decision(d)
	g.last = d
	return d
}

// next decides for one kind, and says what changes.
func (g *Governor) next(k *kind, o *Observation, d *Decision) {
	rate, step := k.rate, k.step
	k.govern(g.state())
	k.restrict(g.CPU)
	if k.Event && k.on {
		k.count()
	}
	if k.breaker.off() {
		return
	}
	if k.step != step {
		d.reason("%s: %s events/s: %s of them are kept", k.Name, number(k.events), percent(keeps[k.step]))
	}
	if math.Abs(k.rate-rate) > 1e-3*rate {
		d.reason("%s: %s: rate %s", k.Name, of(k.cost, k.allowed, o.CPUs), k.change(rate))
	}
	if lossy := k.on && k.lost >= lossHigh; lossy != k.lossy {
		k.lossy = lossy
		d.reason("%s: %s of its events were lost", k.Name, percent(k.lost))
	}
}

// state is what the rates of all kinds depend on.
func (g *Governor) state() state {
	switch {
	case g.mode == Summary:
		return lowest
	case g.memory.over > 0:
		return halves
	case g.memory.short:
		return holds
	}
	return usual
}

// observe takes what was measured, and adds up what was spent, in CPUs.
func (g *Governor) observe(o *Observation) float64 {
	base := share(o.Base, o.Window)
	sum := base
	g.base = max(base, g.base*baseDecay)
	for _, k := range g.kinds {
		k.on = false
		for i := range o.Kinds {
			if o.Kinds[i].Name == k.Name {
				k.observe(&o.Kinds[i], o.Window)
				sum += k.cost
			}
		}
	}
	return sum
}

// decision adds what is the same whatever was observed.
func (g *Governor) decision(d Decision) Decision {
	d.Mode, d.Windows, d.Budget, d.Trim = g.mode, 1, g.CPU, g.memory.short
	if g.mode == Summary {
		d.Windows, d.NoKernel = summaryWindows, true
	}
	d.NoKernel = d.NoKernel || g.memory.over > 0
	for _, k := range g.kinds {
		d.Kinds = append(d.Kinds, k.setting(g.mode))
	}
	return d
}

// allot divides what the agent itself leaves of the budget among the kinds that are on. All of it is given away: to those that
// can use it, and what nobody can use to all, by their shares.
func (g *Governor) allot() {
	left, weights := max(0, g.CPU-g.base), 0.0
	for _, k := range g.kinds {
		k.allowed = 0
		if k.runs() {
			weights += k.Share
		}
	}
	if weights == 0 {
		return
	}
	pool := 0.0
	for _, k := range g.kinds {
		if k.runs() {
			k.own = left * (k.Share / weights)
			k.allowed = min(k.own, k.wants())
			pool += k.own - k.allowed
		}
	}
	for range g.kinds { // each round satisfies one, or empties the pool
		pool = g.lend(pool, func(k *kind) float64 { return k.wants() - k.allowed })
	}
	g.lend(pool, func(*kind) float64 { return math.Inf(1) })
}

// lend divides CPUs by share among the kinds that lack some, and returns what is left.
func (g *Governor) lend(pool float64, lack func(*kind) float64) float64 {
	weights := 0.0
	for _, k := range g.kinds {
		if k.runs() && lack(k) > 0 {
			weights += k.Share
		}
	}
	if weights == 0 || pool <= 0 {
		return max(0, pool)
	}
	rest := pool
	for _, k := range g.kinds {
		if n := lack(k); k.runs() && n > 0 {
			give := min(n, pool*(k.Share/weights))
			k.allowed += give
			rest -= give
		}
	}
	return max(0, rest)
}

// share is a CPU time as CPUs; what went backward counts as nothing.
func share(d, window time.Duration) float64 { return max(0, d.Seconds()) / window.Seconds() }
