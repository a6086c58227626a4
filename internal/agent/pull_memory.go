package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/profiler"
)

// memory takes a profile that is read, or what has changed within a duration, as net/http/pprof computes it.
func (u *puller) memory(ctx context.Context, procs []discover.Info, q pprofhttp.Request) (*profile.Profile, error) {
	before, err := u.readings(ctx, procs, q)
	defer before.done()
	if err != nil {
		return nil, err
	}
	if q.Duration == 0 {
		return before.merge()
	}
	end := time.NewTimer(q.Duration)
	defer end.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-u.ended:
		return nil, errEnding
	case <-end.C:
	}
	after, err := u.readings(ctx, procs, q)
	defer after.done()
	if err != nil {
		return nil, err
	}
	return difference(before, after)
}

// readings are what was read of some processes.
type readings struct {
	of     map[profiler.Process]*profile.Profile
	budget *budget
	taken  int64
}

// add takes p in, if there is room for it.
func (r *readings) add(of profiler.Process, p *profile.Profile) error {
	n := weight(p)
	if !r.budget.take(n) {
		return &pprofhttp.Error{Status: http.StatusServiceUnavailable, After: busyAfter, Err: errTooMuch}
	}
	r.of[of], r.taken = p, r.taken+n
	return nil
}

func (r *readings) done() { r.budget.give(r.taken) }

// merge makes one profile of r, which has one at least.
func (r *readings) merge() (*profile.Profile, error) {
	parts := slices.Collect(maps.Values(r.of))
	if len(parts) == 1 {
		return parts[0], nil
	}
	all, err := profile.Merge(parts)
	if err != nil {
		return nil, fmt.Errorf("merge %d profiles: %w", len(parts), err)
	}
	for _, p := range parts {
		all.TimeNanos = max(all.TimeNanos, p.TimeNanos)
	}
	return all, nil
}

// difference is what after has more than before, which is changed, of the processes in both.
func difference(before, after *readings) (*profile.Profile, error) {
	alone := func(p profiler.Process, _ *profile.Profile) bool { return before.of[p] == nil || after.of[p] == nil }
	maps.DeleteFunc(before.of, alone)
	maps.DeleteFunc(after.of, alone)
	if len(after.of) == 0 {
		return nil, fmt.Errorf("the processes that there were at the beginning have ended: %w", os.ErrNotExist)
	}
	was, err := before.merge()
	if err != nil {
		return nil, err
	}
	is, err := after.merge()
	if err != nil {
		return nil, err
	}
	from, to := was.TimeNanos, is.TimeNanos
	was.Scale(-1)
	p, err := profile.Merge([]*profile.Profile{was, is})
	if err != nil {
		return nil, fmt.Errorf("compute the difference of two profiles: %w", err)
	}
	p.TimeNanos, p.DurationNanos = to, to-from
	return p, nil
}

// read runs f, few at a time: each may have to search large programs.
func (u *puller) read(ctx context.Context, f func(*profiler.Memory) error) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case u.reading <- struct{}{}:
	}
	defer func() { <-u.reading }()
	m := profiler.NewMemory(profiler.MemoryConfig{Log: u.a.log, ProcRoot: u.a.o.ProcRoot, Version: u.a.o.Version})
	return errors.Join(f(m), m.Close())
}

// one reads the profile that a process has of itself now.
func (u *puller) one(ctx context.Context, m *profiler.Memory, p profiler.Process, q pprofhttp.Request) (*export.Profile, error) {
	if q.Kind == pprofhttp.KindGoroutine {
		return m.ReadGoroutines(ctx, p, q.Runtime)
	}
	return m.Read(p, recordKinds[q.Kind], q.Runtime)
}

var recordKinds = map[string]string{
	pprofhttp.KindHeap: profiler.KindHeap, pprofhttp.KindAllocs: profiler.KindAllocs, pprofhttp.KindBlock: profiler.KindBlock, pprofhttp.KindMutex: profiler.KindMutex,
}

// readings reads the profiles that processes have of themselves now: of one at least.
func (u *puller) readings(ctx context.Context, procs []discover.Info, q pprofhttp.Request) (*readings, error) {
	got := &readings{of: make(map[profiler.Process]*profile.Profile), budget: &u.budget}
	var errs []error
	err := u.read(ctx, func(m *profiler.Memory) error {
		for _, p := range keys(procs) {
			one, err := u.one(ctx, m, p, q)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if err := errors.Join(ctx.Err(), got.add(p, one.Data)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(got.of) == 0 {
		err = errors.Join(errs...)
	}
	return got, err
}
