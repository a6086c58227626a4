package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/profiler"
)

// ours is the name of the agent that the goal is for.
const ours = "pprofd"

// keep is an exporter that keeps the profile.
type keep struct{ profiles []*export.Profile }

func (k *keep) Export(_ context.Context, p *export.Profile) error {
	k.profiles = append(k.profiles, p)
	return nil
}

func (*keep) Close() error { return nil }

// sampleOurs runs the pipeline of pprofd, as the command record does.
func sampleOurs(ctx context.Context, pid int, d time.Duration) (t taken, err error) {
	end := time.Now().Add(d)
	k := &keep{}
	p, err := profiler.New(profiler.Config{Frequency: hz, Exporter: k})
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.Add(pid); err != nil {
		return t, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before, err := cpuTime(pid)
	if err != nil {
		return t, err
	}
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx) })
	select {
	case <-time.After(time.Until(end)):
	case <-ctx.Done():
	}
	after, errClock := cpuTime(pid)
	cancel()
	if err := errors.Join(g.Wait(), errClock); err != nil {
		return t, err
	}
	if len(k.profiles) != 1 {
		return t, fmt.Errorf("pprofd made %d profiles of process %d, want one: %v", len(k.profiles), pid, p.Stats().Notes)
	}
	return taken{agent: ours, profile: k.profiles[0].Data, used: after - before, stats: p.Stats()}, nil
}

// cpuTime is the user and system time of a process by the kernel's clock of it: what rusage tells the process itself, to
// the nanosecond.
func cpuTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED, include/linux/posix-timers_types.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
