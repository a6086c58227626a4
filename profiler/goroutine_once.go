package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
)

// ReadGoroutines returns the goroutine profile that p has now. atRuntime: with addresses of the program as p has them, else as its file
// does. Where p has ended errors wrap os.ErrNotExist, where its goroutines cannot be read ErrNoMemoryProfile.
func (m *Memory) ReadGoroutines(ctx context.Context, p Process, atRuntime bool) (_ *export.Profile, err error) {
	proc, err := m.open(p.PID)
	if err != nil {
		return nil, unreadGoroutines(p, err)
	}
	defer func() { err = errors.Join(err, proc.space.Close()) }()
	if proc.start != p.Start {
		return nil, ended(p)
	}
	out, bias, err := m.goroutineProfile(ctx, proc)
	if err != nil {
		return nil, unreadGoroutines(p, err)
	}
	if atRuntime {
		move(out.Data, bias)
	}
	return out, nil
}

func (m *Memory) goroutinesOf(p process) (*Goroutines, error) {
	if m.goroutines == nil {
		m.goroutines = newGoroutineReader(m.images, m.layouts, m.symbolizer())
	}
	return m.goroutines.of(p, 0) // no profile says for how long they wait
}

// goroutineProfile is what the goroutines of an open process do now.
func (m *Memory) goroutineProfile(ctx context.Context, p process) (*export.Profile, uint64, error) {
	g, err := m.goroutinesOf(p)
	if err != nil {
		return nil, 0, err
	}
	var groups GoroutineGroups
	start := time.Now()
	_, err = g.Read(ctx, GoroutineQuery{Labels: true}, func(one *Goroutine) error {
		groups.Add(one)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return g.Profile(&groups, start, m.cfg.Version), g.bias, nil
}

// NoGoroutines says whether an error means that the goroutines of a program cannot be read, whoever tries.
func NoGoroutines(err error) bool {
	return errors.Is(err, goruntime.ErrNoGoroutines) || errors.Is(err, goruntime.ErrUnverified)
}

// unreadGoroutines says what an error means to who asked for the goroutines of p.
func unreadGoroutines(p Process, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, objfile.ErrProcessGone):
		return ended(p)
	case NoGoroutines(err):
		return fmt.Errorf("%w: %w", ErrNoMemoryProfile, err)
	}
	return err
}

// readGoroutines reads t's goroutines and hands them on; as says of whom they are.
func (r *Readings) readGoroutines(ctx context.Context, t *memTarget, as *export.Profile) error {
	out, _, err := r.m.goroutineProfile(ctx, t.process)
	if err != nil {
		return unreadGoroutines(Process{as.PID, as.StartTicks}, err)
	}
	out.Service, out.Labels = as.Service, as.Labels
	out.Data.Comments = append(out.Data.Comments, r.m.comments()...)
	return r.cfg.Exporter.Export(ctx, out)
}
