// Package spend keeps profiling within its budget: it measures what each window has cost, asks the governor, and sets the rates.
package spend

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/pprofd/pprofd/internal/governor"
)

// Counters say what a kind of profile has done and cost since it began. They only grow.
type Counters struct {
	Ticks, Hits             uint64        // interrupts of all CPUs, and traps at probes, whether or not samples came of them
	BPF                     time.Duration // run time of its programs
	User                    time.Duration // CPU time of this process for it
	Events, Lost, Throttled uint64        // see governor.Spent
	Errors                  uint64
}

// Kind is a kind of profile whose rate can be set. Count and Set are called from Keeper.Run's goroutine.
type Kind struct {
	governor.Kind
	Count func() (c Counters, running bool)
	// EachCPU: the rate is that of interrupts of each CPU. Idle ones need not take all of them, and do once they have to work.
	EachCPU bool
	// Most is how many CPUs its probes may take from their targets at a rate of 1; nil: it has none, or there is no limit.
	Most func() float64
	Set  func(s governor.Setting, d *governor.Decision) error
}

// Costs are what a tick and a hit cost on this machine.
type Costs struct{ Tick, Hit time.Duration }

// Config says what may be spent. The zero value of a field means its default.
type Config struct {
	Share    float64       // of the machine's CPUs: 0.01
	Memory   int64         // bytes of RSS; 0: no limit but that of the process's cgroup
	Load     float64       // of the machine, above which as little as possible is done: 0.7
	Interval time.Duration // of the governor: 10 s
	Begin    time.Duration // for how long nothing is measured, while profiling begins
	Kinds    []Kind
	// Calibrate measures Costs, as Run begins; it may take a while.
	Calibrate func() (Costs, error)
	Children  bool                                       // processes that this one starts and waits for belong to it
	ProcRoot  string                                     // "/proc"
	Changed   func(mode governor.Mode, reasons []string) // is told what a decision changes; may be nil
	Failed    func(error)                                // is told what goes wrong while Run goes on; may be nil
}

const (
	defaultShare    = 0.01
	defaultLoad     = 0.7
	loadBack        = 0.8 // of Config.Load, below which all is as usual again
	defaultInterval = 10 * time.Second

	usualTick = 10 * time.Microsecond // between a physical machine's and a virtual one's
	usualHit  = 3 * time.Microsecond
)

// Keeper keeps the budget. State is safe to call while Run runs.
type Keeper struct {
	cfg      Config
	host     *host
	governor *governor.Governor
	costs    Costs

	last   time.Time
	cpu    time.Duration
	before map[string]Counters
	blind  bool // the last window could not be measured

	mu    sync.Mutex
	state State
}

// State is what the Keeper last measured and decided.
type State struct {
	governor.Decision
	Observation governor.Observation
	Share       float64 // that was asked for
	Windows     uint64  // that were measured
	Over        uint64  // of these, those that cost more than the budget
	Memory      int64   // the budget, in bytes; 0: none
}

// New checks the budget; nothing is set yet.
func New(c Config) (*Keeper, error) {
	c.Share, c.Load, c.Interval = cmp.Or(c.Share, defaultShare), cmp.Or(c.Load, defaultLoad), cmp.Or(c.Interval, defaultInterval)
	c.ProcRoot = cmp.Or(c.ProcRoot, "/proc")
	if c.Changed == nil {
		c.Changed = func(governor.Mode, []string) {}
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	h, err := newHost(c.ProcRoot)
	if err != nil {
		return nil, err
	}
	rules := governor.Config{CPU: h.budget(c.Share), Memory: h.memory(c.Memory), LoadHigh: c.Load, LoadLow: c.Load * loadBack}
	for _, k := range c.Kinds {
		rules.Kinds = append(rules.Kinds, k.Kind)
	}
	g, err := governor.New(rules)
	if err != nil {
		return nil, fmt.Errorf("budget of %.3g %% of %v CPUs: %w", 100*c.Share, h.cpus, err)
	}
	k := &Keeper{cfg: c, host: h, governor: g, before: make(map[string]Counters)}
	k.state = State{Share: c.Share, Memory: rules.Memory, Decision: g.Next(governor.Observation{})}
	return k, nil
}

// Run keeps the budget until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	var costs Costs
	if k.cfg.Calibrate != nil {
		var err error
		if costs, err = k.cfg.Calibrate(); err != nil {
			k.cfg.Failed(fmt.Errorf("interrupts and traps could not be measured: they are believed to cost as much as usual: %w", err))
		}
	}
	k.mu.Lock()
	k.costs = Costs{Tick: cmp.Or(costs.Tick, usualTick), Hit: cmp.Or(costs.Hit, usualHit)}
	k.mu.Unlock()
	select { // what it costs to begin says nothing of what is to come
	case <-ctx.Done():
		return
	case <-time.After(k.cfg.Begin):
	}
	k.measured(time.Now())
	tick := time.NewTicker(k.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			k.window(now)
		}
	}
}

// measured is measure where that is possible. Descriptors, say, may have run out, and come back: rates stay as they are meanwhile.
func (k *Keeper) measured(now time.Time) (o governor.Observation, ok bool) {
	o, err := k.measure(now)
	if err != nil && !k.blind {
		k.cfg.Failed(fmt.Errorf("what profiling costs is not known now; rates stay as they are: %w", err))
	}
	k.blind = err != nil
	return o, err == nil
}

// window ends one window and begins the next one.
func (k *Keeper) window(now time.Time) {
	o, ok := k.measured(now)
	if !ok {
		return
	}
	d := k.governor.Next(o)
	k.apply(&d)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state.Decision, k.state.Observation = d, o
	k.state.Windows++
	if d.Spent > d.Budget {
		k.state.Over++
	}
}

// measure says what has been spent since it was asked last.
func (k *Keeper) measure(now time.Time) (o governor.Observation, err error) {
	cpu, err := ownCPU(k.cfg.Children)
	if err != nil {
		return o, fmt.Errorf("read the CPU time of this process: %w", err)
	}
	if o.RSS, err = k.host.rss(); err != nil {
		return o, fmt.Errorf("read the memory of this process: %w", err)
	}
	o.Window, o.CPUs, o.Load, o.Base = now.Sub(k.last), k.host.cpus, k.host.load(now), cpu-k.cpu
	k.last, k.cpu = now, cpu
	for _, kind := range k.cfg.Kinds {
		c, running := kind.Count()
		if !running {
			continue
		}
		s := k.spent(&kind, since(k.before[kind.Name], c), o.Window)
		k.before[kind.Name] = c
		o.Kinds = append(o.Kinds, s)
		o.Base -= s.User
	}
	o.Base = max(0, o.Base)
	return o, nil
}

func (k *Keeper) spent(kind *Kind, c Counters, window time.Duration) governor.Spent {
	s := governor.Spent{
		Name: kind.Name, Ticks: k.costs.Tick * time.Duration(c.Ticks), Hits: k.costs.Hit * time.Duration(c.Hits), BPF: c.BPF, User: c.User, Events: c.Events, Lost: c.Lost,
		Throttled: c.Throttled, Errors: c.Errors, Rate: kind.Start,
	}
	for _, now := range k.State().Kinds {
		if now.Name == kind.Name {
			s.Rate = now.Rate
		}
	}
	if kind.EachCPU {
		s.TicksAll = max(s.Ticks, time.Duration(float64(k.costs.Tick)*s.Rate*k.host.cpus*window.Seconds()))
	}
	if kind.Most != nil {
		s.HitsAll = time.Duration(kind.Most() * s.Rate * float64(window))
	}
	return s
}

// since is what came after before; a kind that has begun anew has counted from zero.
func since(before, now Counters) Counters {
	return Counters{
		Ticks: less(now.Ticks, before.Ticks), Hits: less(now.Hits, before.Hits), BPF: less(now.BPF, before.BPF), User: less(now.User, before.User),
		Events: less(now.Events, before.Events), Lost: less(now.Lost, before.Lost), Throttled: less(now.Throttled, before.Throttled),
		Errors: less(now.Errors, before.Errors),
	}
}

func less[T uint64 | time.Duration](now, before T) T {
	if now < before {
		return now
	}
	return now - before
}

// apply sets what was decided. A kind that cannot be set goes on as it is, and says so.
func (k *Keeper) apply(d *governor.Decision) {
	for _, s := range d.Kinds {
		i := slices.IndexFunc(k.cfg.Kinds, func(kind Kind) bool { return kind.Name == s.Name })
		if i < 0 {
			continue
		}
		if err := k.cfg.Kinds[i].Set(s, d); err != nil {
			k.cfg.Failed(fmt.Errorf("the rate of %s could not be set: %w", s.Name, err))
		}
	}
	if d.Trim {
		debug.FreeOSMemory()
	}
	if len(d.Reasons) > 0 {
		k.cfg.Changed(d.Mode, d.Reasons)
	}
}

// State is what was measured and decided last.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.state
	s.Kinds, s.Reasons, s.Observation.Kinds = slices.Clone(s.Kinds), slices.Clone(s.Reasons), slices.Clone(s.Observation.Kinds)
	return s
}

// Comments are lines for a profile.
func (k *Keeper) Comments() []string {
	s := k.State()
	spent := "spent what is not measured yet"
	if s.Windows > 0 {
		spent = fmt.Sprintf("spent %.2g %%", 100*s.Spent/k.host.cpus)
	}
	line := fmt.Sprintf("mode %v: %s of a budget of %.2g %% of %v CPUs", s.Mode, spent, 100*s.Budget/k.host.cpus, k.host.cpus)
	for _, kind := range s.Kinds {
		if kind.Off {
			line += fmt.Sprintf("; %s is off", kind.Name)
		}
	}
	return []string{line}
}

// Costs are what is counted for a tick and for a hit.
func (k *Keeper) Costs() Costs {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.costs
}
