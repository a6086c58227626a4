package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/unwind"
)

// Bounds on looking for the stacks of goroutines that ran.
const (
	maxSampled = 1024 // goroutines; as many run at a time as there are CPUs, or a little more
	sampledHz  = 997
	sampledGap = 4 * time.Millisecond // between two looks at what was sampled
)

// ran is a goroutine that ran when it was read.
type ran struct {
	Goroutine
	at int64 // when, by CLOCK_MONOTONIC, ns
}

// keepRunning keeps a goroutine that runs until its stack was sampled. It says whether it has.
func (g *Goroutines) keepRunning(q *GoroutineQuery, out *Goroutine) bool {
	if q.Running <= 0 || g.threads != nil || out.State != goruntime.Running || len(out.Stack) > 0 || out.Inconsistent || len(g.ran) >= maxSampled {
		return false
	}
	raw := *out.Goroutine
	raw.Labels = slices.Clone(raw.Labels)
	kept := ran{*out, monotonicNow()}
	kept.Goroutine.Goroutine = &raw
	g.ran = append(g.ran, kept)
	return true
}

// visitRunning samples the stacks of those that ran for at most so long, and hands them on, those that were not seen without one.
func (g *Goroutines) visitRunning(ctx context.Context, atMost time.Duration, visit func(*Goroutine) error) error {
	if len(g.ran) == 0 {
		return nil
	}
	defer func() { g.ran = nil }()
	if atMost > 0 {
		if err := g.sample(ctx, atMost); err != nil {
			g.notes = append(g.notes, fmt.Sprintf("the stacks of %d goroutines that run are not known: %v", len(g.ran), err))
		}
	}
	for i := range g.ran {
		if err := visit(&g.ran[i].Goroutine); err != nil {
			return err
		}
	}
	return nil
}

// sample fills in the stacks of g.ran, as far as they are seen to run within atMost.
func (g *Goroutines) sample(ctx context.Context, atMost time.Duration) (err error) {
	probes, err := bpf.Load(bpf.Options{Frequency: sampledHz, Event: bpf.EventCPUClock, NoKernel: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, probes.Close()) }()
	t := target{process: g.process, layout: g.layout.Layout, bias: g.bias, known: true}
	if err := t.layout.ResolveTLS(g.mem, g.bias); err != nil {
		return err
	}
	if err := probes.SetTarget(g.pid, t.probeTarget()); err != nil {
		return err
	}
	wanted := make(map[uint64]*ran, len(g.ran))
	for i := range g.ran {
		wanted[g.ran[i].ID] = &g.ran[i]
	}
	if err := probes.Start(); err != nil {
		return err
	}
	end := time.Now().Add(atMost)
	for len(wanted) > 0 && time.Now().Before(end) && ctx.Err() == nil {
		if err := g.takeSamples(probes, wanted); err != nil {
			return err
		}
	}
	return probes.Stop()
}

// takeSamples reads what there is.
func (g *Goroutines) takeSamples(probes *bpf.Probes, wanted map[uint64]*ran) error {
	var rec bpf.Record
	deadline := time.Now().Add(sampledGap)
	for len(wanted) > 0 {
		switch err := probes.Read(&rec, deadline); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case rec.PID != g.pid || rec.StartTime != g.start:
			continue
		case rec.Type != bpf.TypeSample:
			return objfile.ErrProcessGone
		}
		if one := wanted[rec.Sample.Goid]; one != nil && g.takeSample(&rec.Sample, one) {
			delete(wanted, one.ID)
		}
	}
	return nil
}

// takeSample takes the stack of a sample, if it is one of the goroutine down to its first function.
func (g *Goroutines) takeSample(s *bpf.Sample, one *ran) bool {
	var in unwind.Input
	toInput(&in, s)
	stack, status := g.unwinder.Complete(nil, g.space, &in)
	later := int64(s.Time) - one.at
	if status != unwind.Complete || len(stack) == 0 || later <= 0 {
		return false
	}
	first := g.sym.Frames(stack[len(stack)-1])
	if len(first) == 0 || one.Start == "" || first[len(first)-1].Func != one.Start {
		return false
	}
	one.Stack, one.Complete, one.Later = stack, true, time.Duration(later)
	return true
}

// monotonicNow is the clock that samples have.
func monotonicNow() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail
	return now.Nano()
}
