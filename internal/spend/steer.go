package spend

import (
	"time"

	"github.com/pprofd/pprofd/internal/governor"
	"github.com/pprofd/pprofd/profiler"
)

// Usual is how a Profiler samples where nothing limits it.
type Usual struct {
	Kind          string        // profiler.KindCPU: the governor's rate is in samples a second and CPU; KindAllocs: a part of AllocBudget
	Window        time.Duration // 0: there is but one
	NoKernel      bool
	AllocInterval int64
	AllocBudget   float64 // negative: no limit
}

// Rates are what a Profiler does as decided.
func (u *Usual) Rates(s governor.Setting, d *governor.Decision) profiler.Rates {
	r := profiler.Rates{Off: s.Off, Limit: s.Limit, NoKernel: u.NoKernel || d.NoKernel, Window: u.Window * time.Duration(max(1, d.Windows))}
	if u.Kind == profiler.KindCPU {
		r.Hz = s.Rate
		return r
	}
	r.AllocInterval = int64(float64(u.AllocInterval) / max(s.Keep, leastKept))
	r.AllocBudget = u.AllocBudget
	switch {
	case u.AllocBudget >= 0:
		r.AllocBudget *= s.Rate
	case s.Rate < 1:
		r.AllocBudget = s.Rate
	}
	return r
}

const leastKept = 0.001

// Of are the counters of a Profiler.
func Of(p *profiler.Profiler) (Counters, error) {
	c, err := p.Cost()
	return Counters{
		Ticks: c.Ticks, Hits: c.Hits, BPF: c.BPF, User: c.User, Events: c.Recorded + c.Throttled, Lost: c.Lost, Throttled: c.Throttled, Errors: c.BadSpans,
	}, err
}

// Calibrate measures Costs; hits: probes are used.
func Calibrate(hits bool) (c Costs, err error) {
	c.Tick, c.Hit, err = profiler.Calibrate(hits)
	return c, err
}
