package agent

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/governor"
	"github.com/pprofd/pprofd/internal/spend"
	"github.com/pprofd/pprofd/profiler"
)

// keep makes what holds the kinds of p to the budget; nil: there is none.
func (a *Agent) keep(c *config.Config, p *pipeline) (*spend.Keeper, error) {
	if c.Overhead.CPU == 0 {
		return nil, nil
	}
	s := spend.Config{
		Share: c.Overhead.CPU / 100, Memory: c.Overhead.Memory, Load: c.Overhead.Load, Interval: min(c.Window, governInterval), Begin: min(c.Window, governInterval),
		Calibrate: func() (spend.Costs, error) {
			return spend.Calibrate(c.Allocs.Enabled && slices.Contains([]string{sourceAuto, sourceProbe}, c.Allocs.Source))
		},
		Children: true, ProcRoot: a.o.ProcRoot,
		Changed: func(mode governor.Mode, reasons []string) {
			a.log.Info("sampling adapts", "mode", mode, "changes", strings.Join(reasons, "; "))
		},
		Failed: func(err error) { a.log.Warn("budget", "error", err) },
	}
	for _, k := range p.kinds {
		s.Kinds = append(s.Kinds, a.governed(c, k))
	}
	return spend.New(s)
}

const governInterval = 10 * time.Second // at most

// Shares of the budget, as weights: what is sampled all the time is what most look at. Of those that are equal the last in the list of
// kinds goes first where there is too little memory: wall, then allocs.
const (
	shareCPU    = 3
	shareMemory = 1
	shareAllocs = 1
	shareWall   = 1
)

// governed says what may be set of a kind.
func (a *Agent) governed(c *config.Config, k *kind) spend.Kind {
	g := spend.Kind{Set: func(s governor.Setting, d *governor.Decision) error { return k.govern(c, s, d) }}
	switch k.name {
	case profiler.KindCPU:
		g.Kind = governor.Kind{
			Name: k.name, Share: shareCPU, Floor: float64(c.CPU.MinHz), Ceiling: float64(c.CPU.Highest()), Start: float64(c.CPU.Hz), Unit: "Hz",
		}
		g.Count, g.EachCPU = k.count, true
	case profiler.KindAllocs:
		if c.Allocs.Budget > 0 {
			g.Most = func() float64 { return a.metrics.targets() * c.Allocs.Budget / 100 }
		}
		g.Kind = governor.Kind{Name: k.name, Share: shareAllocs, Floor: leastAllocs, Ceiling: 1, Start: 1, Unit: "of allocs.budget", Event: true}
		g.Count = k.count
	case kindMemory:
		rate := 1 / readingInterval(c).Seconds()
		g.Kind = governor.Kind{Name: k.name, Share: shareMemory, Floor: rate / longestReading, Ceiling: rate, Start: rate, Unit: "/s"}
		g.Count = k.count
	case profiler.KindWall:
		hz := float64(c.Wall.Hz)
		g.Kind = governor.Kind{Name: k.name, Share: shareWall, Floor: min(1/c.Window.Seconds(), hz), Ceiling: hz, Start: hz, Unit: "Hz"}
		g.Count = k.count
	}
	return g
}

const (
	leastAllocs    = 0.02 // of allocs.budget
	offReading     = 24 * time.Hour
	longestReading = 30 // times the interval between two readings of a process
)

// targets is how many processes have probes for allocations.
func (m *metrics) targets() float64 {
	n, _ := m.allocs.get()
	return float64(n.Targets - n.Exited)
}

// steered is a source whose rate can be set while it runs, and that knows what it has cost.
type steered interface {
	steer(c *config.Config, s governor.Setting, d *governor.Decision) error
	count() (c spend.Counters, running bool)
}

// count is of the source that runs now.
func (k *kind) count() (spend.Counters, bool) {
	k.mu.Lock()
	now, can := k.now.(steered)
	k.mu.Unlock()
	if !can {
		return spend.Counters{}, false
	}
	return now.count()
}

func (s *sampler) count() (spend.Counters, bool) {
	c, err := spend.Of(s.p)
	if err != nil {
		s.log.Debug("what sampling costs could not be read", "error", err)
	}
	return c, err == nil
}

func (r *reader) count() (spend.Counters, bool) {
	n := r.r.Stats()
	return spend.Counters{User: n.CPUTime, Events: n.Readings + n.Failed, Errors: n.Failed}, !n.Alive.IsZero()
}

// govern sets how the kind is to be, now and when it begins anew.
func (k *kind) govern(c *config.Config, s governor.Setting, d *governor.Decision) error {
	steer := func(now source) error {
		if now, can := now.(steered); can {
			return now.steer(c, s, d)
		}
		return nil
	}
	k.mu.Lock()
	k.steer = steer
	now := k.now
	k.mu.Unlock()
	if now == nil {
		return nil
	}
	return steer(now)
}

func (s *sampler) steer(c *config.Config, to governor.Setting, d *governor.Decision) error {
	u := spend.Usual{
		Kind: to.Name, Window: c.Window, NoKernel: !c.CPU.Kernel, AllocInterval: c.Allocs.AllocInterval, AllocBudget: share(c.Allocs.Budget),
	}
	return s.p.SetRates(u.Rates(to, d))
}

func (r *reader) steer(_ *config.Config, to governor.Setting, _ *governor.Decision) error {
	interval := time.Duration(float64(time.Second) / to.Rate)
	if to.Off {
		interval = offReading
	}
	return r.r.SetInterval(interval)
}

// comments are lines for all profiles.
func (p *pipeline) comments() []string {
	if p.keeper == nil {
		return nil
	}
	return p.keeper.Comments()
}

// hertz is at which rate CPU time is sampled now.
func (p *pipeline) hertz(c *config.Config) float64 {
	if p.keeper != nil {
		for _, s := range p.keeper.State().Kinds {
			if s.Name == profiler.KindCPU {
				return s.Rate
			}
		}
	}
	return float64(c.CPU.Hz)
}

var (
	descBudget    = desc("overhead_budget_cpus", "CPUs that profiling may use.")
	descSpent     = desc("overhead_spent_cpus", "CPUs that profiling used in the governor's last window.")
	descOf        = desc("overhead_cpus", "The same by kind (agent: what belongs to none) and part.", "kind", "part")
	descAllowed   = desc("overhead_memory_budget_bytes", "Memory (RSS) that the agent may use; 0: there is no limit.")
	descGoverned  = desc("overhead_windows_total", "Windows of the governor.")
	descOver      = desc("overhead_windows_over_budget_total", "Windows that cost more than the budget.")
	descLoad      = desc("host_load", "Load of the machine in the governor's last window, by which it is full or summary mode.")
	descMode      = desc("mode", "1 for the mode that profiling is in.", "mode")
	descKindOff   = desc("kind_off", "Whether the governor has switched this kind off for a while, since it misbehaves.", "kind")
	descRate      = desc("rate", "Rate of the kind: CPU in Hz, memory in readings a second of each process, allocs in parts of allocs.budget, wall in snapshots a second of each process, at most.", "kind")
	descRateMost  = desc("rate_ceiling", "The rate that the kind cannot exceed now.", "kind")
	descThrottled = desc("samples_throttled_total", "Samples that the token bucket dropped; the others weigh more for it.", "kind")
	descBPF       = desc("bpf_seconds_total", "Run time of the BPF programs.", "kind")
	descUser      = desc("kind_cpu_seconds_total", "CPU time of the agent for this kind.", "kind")
	descTicks     = desc("ticks_total", "Interrupts for samples that found a CPU at work, whether or not with a target.", "kind")
	descHits      = desc("probe_hits_total", "Traps at probes.", "kind")
)

// budget says what profiling costs, and what it may.
func (s scrape) budget(k *spend.Keeper) {
	if k == nil {
		return
	}
	n := k.State()
	s.gauge(descBudget, n.Budget)
	s.gauge(descSpent, n.Spent)
	s.gauge(descAllowed, float64(n.Memory))
	s.counter(descGoverned, float64(n.Windows))
	s.counter(descOver, float64(n.Over))
	for _, mode := range []governor.Mode{governor.Full, governor.Summary} {
		s.gauge(descMode, number(mode == n.Mode), mode.String())
	}
	for _, kind := range n.Kinds {
		s.gauge(descKindOff, number(kind.Off), kind.Name)
		s.gauge(descRate, kind.Rate, kind.Name)
		s.gauge(descRateMost, kind.Ceiling, kind.Name)
	}
	o := &n.Observation
	if o.Window <= 0 {
		return
	}
	if !math.IsNaN(o.Load) {
		s.gauge(descLoad, o.Load)
	}
	s.gauge(descOf, o.Base.Seconds()/o.Window.Seconds(), "agent", "user")
	for _, kind := range o.Kinds {
		for part, d := range map[string]time.Duration{"interrupts": kind.Ticks, "probes": kind.Hits, "bpf": kind.BPF, "user": kind.User} {
			s.gauge(descOf, d.Seconds()/o.Window.Seconds(), kind.Name, part)
		}
	}
}

// cost is what a kind that samples has cost.
func (s scrape) cost(kind string, n *profiler.Stats) {
	s.counter(descThrottled, float64(n.Throttled), kind)
	s.counter(descBPF, n.BPFTime.Seconds(), kind)
	s.counter(descUser, n.UserTime.Seconds(), kind)
	s.counter(descTicks, float64(n.Ticks), kind)
	s.counter(descHits, float64(n.Hits), kind)
}
