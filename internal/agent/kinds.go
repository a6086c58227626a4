package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/pprofd/pprofd/profiler"
)

// source makes profiles of one kind or several until its context ends; then what was gathered is handed on.
type source interface {
	run(context.Context) error
	set([]profiler.Process) // which processes there are; safe to call while it runs
}

// kindMemory is the kind of source that reads memory profiles, of whatever kind.
const kindMemory = "memory"

// kind is a source that is made anew where it fails: the other kinds go on.
type kind struct {
	name string
	open func() (source, error)
	log  *slog.Logger
	// changed is told when it has begun, and when it turns out that it cannot: processes that came meanwhile are not known.
	changed func()

	mu    sync.Mutex
	now   source             // nil: it does not run
	steer func(source) error // sets its rates as the budget wants them; nil: it begins as configured
	procs []profiler.Process
	why   error // why it does not run
	fails int
}

// Waits before a kind that has failed is tried again. A missing capability does not come back by itself, but a full
// descriptor table or a lack of memory passes.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	longRun    = time.Minute // after which the waits begin anew
)

// run keeps the kind running until ctx ends.
func (k *kind) run(ctx context.Context) {
	wait := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := k.once(ctx)
		if err == nil && ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		if time.Since(began) > longRun {
			wait = firstRetry
		}
		k.failed(err)
		k.log.Error("this kind of profile is off; the others go on", "kind", k.name, "error", err, "again in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, lastRetry)
	}
}

func (k *kind) once(ctx context.Context) error {
	s, err := k.open()
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.now, k.why = s, nil
	procs, steer := k.procs, k.steer
	k.mu.Unlock()
	if steer != nil {
		if err := steer(s); err != nil {
			k.log.Warn("the rate could not be set", "kind", k.name, "error", err)
		}
	}
	s.set(procs)
	k.changed()
	err = s.run(ctx)
	k.mu.Lock()
	k.now = nil
	k.mu.Unlock()
	return err
}

func (k *kind) failed(err error) {
	k.mu.Lock()
	k.why = err
	k.fails++
	k.mu.Unlock()
	k.changed()
}

// set tells which processes there are, now and whenever the kind begins anew.
func (k *kind) set(procs []profiler.Process) {
	k.mu.Lock()
	k.procs = procs
	now := k.now
	k.mu.Unlock()
	if now != nil {
		now.set(procs)
	}
}

// settled says whether it is known whether it runs.
func (k *kind) settled() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now != nil || k.why != nil
}

// state says whether it runs, else why not, and how often it has failed.
func (k *kind) state() (up bool, fails int, why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now != nil, k.fails, k.why
}

// sampler is a source that samples: CPU time, or allocations by probes.
type sampler struct {
	p     *profiler.Profiler
	log   *slog.Logger
	total *totals
	only  func(profiler.Process) bool // nil: all

	mu     sync.Mutex
	ended  bool
	failed map[profiler.Process]int // scans until it is tried again
	full   bool                     // there are more than may be targets
}

// retryScans is for how many scans a process is left alone that could not be added.
const retryScans = 30

func newSampler(c profiler.Config, t *totals, only func(profiler.Process) bool) (*sampler, error) {
	p, err := profiler.New(c)
	if err != nil {
		return nil, err
	}
	t.begin(p.Stats)
	return &sampler{p: p, log: c.Log, total: t, only: only, failed: make(map[profiler.Process]int)}, nil
}

func (s *sampler) run(ctx context.Context) error {
	err := s.p.Run(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.total.end()
	return errors.Join(err, s.p.Close())
}

// set adds those that are no targets yet. Those that are not wanted any more leave by themselves.
func (s *sampler) set(procs []profiler.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	failed := make(map[profiler.Process]int)
	tooMany := 0
	for _, p := range s.p.Missing(procs) {
		if s.only != nil && !s.only(p) {
			continue
		}
		if n := s.failed[p]; n > 0 {
			failed[p] = n - 1
			continue
		}
		switch err := s.p.Add(p.PID); {
		case err == nil, errors.Is(err, os.ErrNotExist):
		case errors.Is(err, profiler.ErrTooManyTargets): // tried again with the next scan: it costs nothing
			tooMany++
		default:
			s.log.Warn("process cannot be profiled", "pid", p.PID, "error", err)
			failed[p] = retryScans
		}
	}
	s.failed = failed
	s.tellTooMany(tooMany)
}

// tellTooMany tells, once, of processes for which there is no room.
func (s *sampler) tellTooMany(n int) {
	if n > 0 && !s.full {
		s.log.Warn("there are more processes than max_targets: some are not profiled", "processes", n)
	}
	s.full = n > 0
}

// reader is a source that reads what the runtimes of the processes keep of themselves.
type reader struct {
	r     *profiler.Readings
	total *readTotals
}

func newReader(c profiler.ReadingsConfig, t *readTotals) *reader {
	r := profiler.NewReadings(c)
	t.begin(r.Stats)
	return &reader{r: r, total: t}
}

func (r *reader) run(ctx context.Context) error {
	err := r.r.Run(ctx)
	r.total.end()
	return errors.Join(err, r.r.Close())
}

func (r *reader) set(procs []profiler.Process) { r.r.Set(procs) }
