package agent

import (
	"context"
	"errors"

	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/governor"
	"github.com/pprofd/pprofd/internal/spend"
	"github.com/pprofd/pprofd/profiler"
)

// waller is a source that samples what goroutines do.
type waller struct {
	w     *profiler.Walls
	total *wallTotals
}

type wallTotals = counted[profiler.WallsStats]

func newWallTotals() *wallTotals { return &wallTotals{add: addWalls, over: noWalls} }

func newWaller(c profiler.WallsConfig, t *wallTotals) *waller {
	w := profiler.NewWalls(c)
	t.begin(w.Stats)
	return &waller{w: w, total: t}
}

func (s *waller) run(ctx context.Context) error {
	err := s.w.Run(ctx)
	s.total.end()
	return errors.Join(err, s.w.Close())
}

func (s *waller) set(procs []profiler.Process) { s.w.Set(procs) }

func (a *Agent) wall(c *config.Config, p *pipeline) profiler.WallsConfig {
	w := profiler.WallsConfig{
		WallConfig: profiler.WallConfig{Log: a.log, Frequency: float64(c.Wall.Hz), Exporter: p.queue, ProcRoot: a.o.ProcRoot, Version: a.o.Version},
		Window:     c.Window, CPU: p.cpu, Discovery: a.discovery, MaxTargets: c.MaxTargets, Comments: p.comments,
	}
	if p.keeper != nil {
		for _, s := range p.keeper.State().Kinds {
			if s.Name == profiler.KindWall {
				w.CPUs = wallCPUs(s)
			}
		}
	}
	return w
}

// wallCPUs is what it may use: somewhat less than what the governor cuts its rate for.
func wallCPUs(s governor.Setting) float64 {
	const part, least = 0.8, 1e-4
	return max(part*s.Allowed, least)
}

func (s *waller) count() (spend.Counters, bool) {
	n := s.w.Stats()
	return spend.Counters{User: n.CPUTime, Events: n.Snapshots + n.Failed, Errors: n.Failed}, !n.Alive.IsZero()
}

func (s *waller) steer(c *config.Config, to governor.Setting, d *governor.Decision) error {
	u := spend.Usual{Kind: to.Name, Window: c.Window}
	return s.w.SetRates(profiler.WallRates{Off: to.Off, Hz: to.Rate, CPUs: wallCPUs(to), Window: u.Rates(to, d).Window})
}

func addWalls(past *profiler.WallsStats, now profiler.WallsStats) {
	past.Targets = now.Targets
	past.Targeted += now.Targeted
	past.Unopened += now.Unopened
	past.Stalled += now.Stalled
	past.Snapshots += now.Snapshots
	past.Failed += now.Failed
	past.Goroutines += now.Goroutines
	past.Lost += now.Lost
	past.Left += now.Left
	past.CPUTime += now.CPUTime
	past.Hz = now.Hz
	past.Alive = now.Alive
	addWindows(&past.Windows, now.Windows)
}

// noWalls: one that has ended samples nobody any more.
func noWalls(past *profiler.WallsStats) { past.Targets, past.Hz = 0, 0 }
