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

// ReadGoroutines returns the goroutine profile that p has now; root is "/proc". atRuntime: with addresses of the program as p has
// them, else as its file does. Where p has ended errors wrap os.ErrNotExist, where its goroutines cannot be read ErrNoMemoryProfile.
func ReadGoroutines(ctx context.Context, p Process, root, version string, atRuntime bool) (_ *export.Profile, err error) {
	g, err := OpenGoroutines(p.PID, root)
	if err != nil {
		return nil, unreadGoroutines(p, err)
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if g.start != p.Start {
		return nil, ended(p)
	}
	var groups GoroutineGroups
	start := time.Now()
	_, err = g.Read(ctx, GoroutineQuery{Labels: true}, func(one *Goroutine) error {
		groups.Add(one)
		return nil
	})
	if err != nil {
		return nil, unreadGoroutines(p, err)
	}
	out := g.Profile(&groups, start, version)
	if atRuntime {
		move(out.Data, g.bias)
	}
	return out, nil
}

// unreadGoroutines says what an error means to who asked for the goroutines of p.
func unreadGoroutines(p Process, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, objfile.ErrProcessGone):
		return ended(p)
	case errors.Is(err, goruntime.ErrNoGoroutines), errors.Is(err, goruntime.ErrUnverified):
		return fmt.Errorf("%w: %w", ErrNoMemoryProfile, err)
	}
	return err
}

// readGoroutines reads p's goroutines and hands them on; as says of whom they are.
func (r *Readings) readGoroutines(ctx context.Context, p Process, as *export.Profile) error {
	out, err := ReadGoroutines(ctx, p, r.m.cfg.ProcRoot, r.m.cfg.Version, false)
	if err != nil {
		return err
	}
	out.Service, out.Labels = as.Service, as.Labels
	out.Data.Comments = append(out.Data.Comments, r.m.comments()...)
	return r.cfg.Exporter.Export(ctx, out)
}
