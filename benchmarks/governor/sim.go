package main

import (
	"fmt"

	"github.com/pprofd/pprofd/internal/governor"
)

// simulation is one run of the governor on a host.
type simulation struct {
	*trace
	machine machine
	budget  float64 // share of the host's CPUs
	window  float64 // s
	seed    uint64
	kinds   []governor.Kind
}

// row is one window.
type row struct {
	at       float64 // s, its begin
	busy     float64 // CPUs
	load     float64
	settings governor.Decision // that were in force
	observed governor.Observation
	spent    float64 // CPUs
	reasons  []string
	kinds    []governor.Kind
}

// setting is that of a kind.
func (r *row) setting(kind string) governor.Setting {
	for _, s := range r.settings.Kinds {
		if s.Name == kind {
			return s
		}
	}
	return governor.Setting{}
}

// throttled is the share of a kind's events that the token bucket dropped.
func (r *row) throttled(kind string) float64 {
	for _, s := range r.observed.Kinds {
		if s.Name == kind && s.Events > 0 {
			return float64(s.Throttled) / float64(s.Events)
		}
	}
	return 0
}

// run plays the whole trace.
func (s *simulation) run() (rows []row, err error) {
	g, err := governor.New(governor.Config{CPU: s.budget * s.cpus, Kinds: s.kinds})
	if err != nil {
		return nil, fmt.Errorf("trace %s: %w", s.name, err)
	}
	h := newHost(s.trace, s.machine, s.seed)
	d := g.Next(governor.Observation{})
	for t := 0.0; t+s.window <= s.seconds(); t += s.window {
		r := row{at: t, kinds: s.kinds, settings: d, observed: h.window(t, s.window, &d)}
		for i := t; i < t+s.window; i++ {
			r.busy += h.at(i).busy / s.window
		}
		r.load = r.observed.Load
		d = g.Next(r.observed)
		r.spent, r.reasons = d.Spent, d.Reasons
		rows = append(rows, r)
	}
	return rows, nil
}

// verdict is how far a run kept what is promised.
type verdict struct {
	windows int
	over    []int   // windows that cost more than the budget
	most    float64 // of all windows: cost / budget
	idle    int     // the longest row of windows below half of the budget without excuse
	at      int     // where it begins
}

// within is how many windows the governor has to reach half of the budget.
const within = 5

// judge looks at all windows. Summary mode is an excuse, and what else is given.
func judge(rows []row, budget float64, excuse func(*row) bool) verdict {
	v := verdict{windows: len(rows)}
	low := 0
	for i := range rows {
		r := &rows[i]
		if r.spent > budget {
			v.over = append(v.over, i)
		}
		v.most = max(v.most, r.spent/budget)
		if r.spent >= budget/2 || r.settings.Mode == governor.Summary || excuse(r) {
			low = 0
			continue
		}
		if low++; low > v.idle {
			v.idle, v.at = low, i-low+1
		}
	}
	return v
}

// atCeiling says whether no kind could have had a higher rate: it is the highest that the configuration permits, or interrupts
// take nearly half of what the kind may cost, that samples on all CPUs would need the other half of.
func (r *row) atCeiling() bool {
	for i, s := range r.settings.Kinds {
		ticks := 0.0
		for _, o := range r.observed.Kinds {
			if o.Name == s.Name {
				ticks = o.Ticks.Seconds() / r.observed.Window.Seconds()
			}
		}
		if s.Rate < nearly*r.kinds[i].Ceiling && ticks < nearly*s.Allowed/2 {
			return false
		}
	}
	return true
}

const nearly = 0.9 // smaller rises are not made

// highest says whether no kind could have a higher rate, with what it is allowed: a part of that may be the reserve of another
// kind, whose traps nothing but its rate limits.
func (r *row) highest() bool {
	for _, s := range r.settings.Kinds {
		if !s.Off && s.Rate < nearly*s.Ceiling && r.cost(s.Name) < s.Allowed*0.6 {
			return false
		}
	}
	return true
}

// cost is what a kind cost, in CPUs.
func (r *row) cost(kind string) float64 {
	for _, s := range r.observed.Kinds {
		if s.Name == kind {
			return (s.Ticks + s.Hits + s.BPF + s.User).Seconds() / r.observed.Window.Seconds()
		}
	}
	return 0
}

func (v *verdict) String() string {
	return fmt.Sprintf("%d windows, %d over the budget (at most %.0f %% of it), at most %d in a row below half of it", v.windows, len(v.over), 100*v.most, v.idle)
}
