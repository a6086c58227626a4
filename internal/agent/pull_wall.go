package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/profiler"
)

// wall takes a profile of what goroutines do, with the CPU profile of the same time.
func (u *puller) wall(ctx context.Context, procs []discover.Info, d time.Duration) (_ *profile.Profile, err error) {
	select {
	case u.walls <- struct{}{}:
		defer func() { <-u.walls }()
	default:
		return nil, pprofhttp.Busy(busyAfter, "goroutines are being sampled for %d others: try again later", maxWalls)
	}
	if d == 0 {
		d = pullDuration
	}
	got := &gathered{budget: &u.budget}
	defer got.done()
	w := profiler.NewWall(profiler.WallConfig{Log: u.a.log, Exporter: got, ProcRoot: u.a.o.ProcRoot, Version: u.a.o.Version})
	defer func() { err = errors.Join(err, w.Close()) }()
	list, err := addAll(w, keys(procs))
	if err != nil {
		return nil, err
	}
	cpu, err := u.cpu.sampleBeside(ctx, list, d, w.Run)
	if err != nil {
		return nil, err
	}
	for of, parts := range byProcess(cpu.parts) {
		all, err := merged(parts, cpu.from)
		if err != nil {
			return nil, err
		}
		if err := w.CPU(nil).Export(ctx, &export.Profile{Kind: profiler.KindCPU, PID: of.PID, StartTicks: of.Start, Data: all.data}); err != nil {
			return nil, err
		}
	}
	if err := w.Export(ctx); err != nil {
		return nil, err
	}
	p, err := got.merge()
	if err != nil {
		return nil, err
	}
	p.TimeNanos, p.DurationNanos = cpu.from.UnixNano(), int64(cpu.to.Sub(cpu.from))
	return p, nil
}

// addAll makes targets of those that can be read, of which there must be one.
func addAll(w *profiler.Wall, procs []profiler.Process) (added []profiler.Process, err error) {
	var errs []error
	for _, p := range procs {
		if err := w.AddProcess(p); err != nil {
			errs = append(errs, unreadable(err))
			continue
		}
		added = append(added, p)
	}
	if len(added) == 0 {
		return nil, errors.Join(errs...)
	}
	return added, nil
}

// unreadable says of programs whose goroutines nobody can read that there is no such profile.
func unreadable(err error) error {
	if profiler.NoGoroutines(err) {
		return fmt.Errorf("%w: %w", profiler.ErrNoMemoryProfile, err)
	}
	return err
}

// gathered is an exporter that keeps profiles, as long as there is room for them.
type gathered struct {
	budget *budget
	taken  int64
	all    []*profile.Profile
}

// Export implements export.Exporter.
func (g *gathered) Export(_ context.Context, p *export.Profile) error {
	n := weight(p.Data)
	if !g.budget.take(n) {
		return pprofhttp.Busy(busyAfter, "%w", errTooMuch)
	}
	g.all, g.taken = append(g.all, p.Data), g.taken+n
	return nil
}

// Close implements export.Exporter.
func (*gathered) Close() error { return nil }

func (g *gathered) done() { g.budget.give(g.taken) }

func (g *gathered) merge() (*profile.Profile, error) {
	switch len(g.all) {
	case 0:
		return nil, errors.New("there is no profile")
	case 1:
		return g.all[0], nil
	}
	p, err := profile.Merge(g.all)
	if err != nil {
		return nil, fmt.Errorf("merge %d profiles: %w", len(g.all), err)
	}
	return p, nil
}
