// Package top shows what one Go process does at present: where its CPU time goes, what its goroutines wait for, and its heap; and what
// showing it costs. Watch finds out, View makes lines of it, Screen keeps them on a terminal.
package top

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/profiler"
)

// Config says what to watch.
type Config struct {
	PID       int
	ProcRoot  string
	GoVersion string        // of the process's program
	Interval  time.Duration // between two snapshots
	Reading   time.Duration // between two readings of the runtime, at least; 0: as Interval
	Frequency int           // samples per second and CPU
	Version   string        // of pprofd
}

// Watch watches one process. Run runs once; Close comes last.
type Watch struct {
	cfg      Config
	profiler *profiler.Profiler
	sink     sink
	hot      *hot
	reader   *reader
	use      usage
	cost     cost
	began    time.Time
	start    uint64 // of the process: with the PID it is its name
	comm     string
}

// Snapshot is what is known at one moment. It is not changed once it is made.
type Snapshot struct {
	At           time.Time
	Watched      time.Duration
	PID          int
	Comm         string
	GoVersion    string
	Age          time.Duration // of the process
	Use          Use
	GC           float64 // share of one CPU that the garbage collector takes of late
	Sampled      float64 // share of one CPU that samples show of late
	Late         time.Duration
	Samples      int64 // of late
	Funcs, Lines []Row
	Runtime      Runtime
	Cost         Cost
	Frequency    int
	Lost         uint64
	Notes        []string
}

// sink keeps the newest profile until it is taken.
type sink struct {
	mu   sync.Mutex
	list []*export.Profile
}

// Export implements export.Exporter.
func (s *sink) Export(_ context.Context, p *export.Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, p)
	return nil
}

// Close implements export.Exporter.
func (s *sink) Close() error { return nil }

func (s *sink) take() []*export.Profile {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// longest is how long the names of addresses are remembered.
const longest = 10 * time.Minute

// Open loads what samples, and makes the process its target. Errors of the kernel's consent are those of profiler.New, the others of
// Profiler.Add.
func Open(c Config) (*Watch, error) {
	w := &Watch{cfg: c, hot: newHot(), began: time.Now()}
	stat, err := procfs.New(c.ProcRoot).Proc(c.PID).Stat()
	if err != nil {
		return nil, err
	}
	w.start, w.comm = stat.StartTime, stat.Comm
	w.profiler, err = profiler.New(profiler.Config{
		Log: slog.New(slog.DiscardHandler), Event: "auto", MaxTargets: 1, Frequency: c.Frequency, Window: longest, Exporter: &w.sink,
		ProcRoot: c.ProcRoot, Version: c.Version, TuneGC: true,
	})
	if err != nil {
		return nil, err
	}
	if err := w.profiler.Add(c.PID); err != nil {
		return nil, errors.Join(err, w.profiler.Close())
	}
	w.reader = newReader(c.PID, c.ProcRoot, cmp.Or(c.Reading, c.Interval))
	w.use = usage{proc: procfs.New(c.ProcRoot).Proc(c.PID)}
	return w, nil
}

// Close gives everything back.
func (w *Watch) Close() error { return w.profiler.Close() }

// Stacks says whether snapshots are to have the stacks of goroutines, too, which cost more to read.
func (w *Watch) Stacks(on bool) { w.reader.wantStacks(on) }

// Run watches until ctx ends or the process does, which is what ended says, and hands each snapshot to show.
func (w *Watch) Run(ctx context.Context, show func(*Snapshot)) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.profiler.Run(ctx) })
	g.Go(func() error { return w.reader.run(ctx) })
	g.Go(func() error {
		defer cancel()
		var err error
		ended, err = w.tick(ctx, show)
		return err
	})
	err = g.Wait()
	w.take()
	return ended, err
}

// tick makes the snapshots.
func (w *Watch) tick(ctx context.Context, show func(*Snapshot)) (ended bool, err error) {
	w.cost.begin(w.profiler)
	if err := w.use.begin(); err != nil {
		return w.gone(), w.unlessGone(err)
	}
	ticker := time.NewTicker(w.cfg.Interval)
	defer ticker.Stop()
	show(w.snapshot(time.Now()))
	for {
		select {
		case <-ctx.Done():
			return w.gone(), nil
		case now := <-ticker.C:
			if _, err := w.profiler.Cut(ctx); err != nil {
				if ctx.Err() != nil {
					return w.gone(), nil
				}
				return false, fmt.Errorf("sample process %d: %w", w.cfg.PID, err)
			}
			w.take()
			if w.gone() {
				return true, nil
			}
			show(w.snapshot(now))
		}
	}
}

func (w *Watch) unlessGone(err error) error {
	if w.gone() {
		return nil
	}
	return err
}

// gone says whether the process has ended, or nothing but its entry is left.
func (w *Watch) gone() bool {
	stat, err := w.use.proc.Stat()
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	return stat.StartTime != w.start || stat.State == 'Z' || stat.State == 'X'
}

// take counts what was sampled.
func (w *Watch) take() {
	for _, p := range w.sink.take() {
		w.hot.add(p.Data, p.Duration)
	}
}

func (w *Watch) snapshot(now time.Time) *Snapshot {
	s := &Snapshot{
		At: now, Watched: now.Sub(w.began), PID: w.cfg.PID, GoVersion: w.cfg.GoVersion, Use: w.use.read(now), Frequency: w.cfg.Frequency,
		GC:      w.hot.share(func(s *slice) time.Duration { return s.gc }),
		Sampled: w.hot.share(func(s *slice) time.Duration { return s.total }), Late: w.hot.length(), Funcs: w.hot.rows(false), Lines: w.hot.rows(true),
		Runtime: w.reader.newest(),
	}
	for i := range w.hot.recent {
		s.Samples += w.hot.recent[i].samples
	}
	if s.Use.Comm != "" {
		w.comm = s.Use.Comm
	}
	s.Comm, s.Age = w.comm, s.Use.Age
	stats := w.profiler.Stats()
	s.Lost, s.Notes = stats.Lost, stats.Notes
	s.Cost = w.cost.read(now)
	return s
}

// Notes tell what the user should know.
func (w *Watch) Notes() []string { return w.profiler.Stats().Notes }

// Summary says in one line what was seen.
func (w *Watch) Summary(ended bool) string {
	what := "watched process"
	if ended {
		what = "process"
	}
	text := fmt.Sprintf("%s %d (%s)", what, w.cfg.PID, w.comm)
	if ended {
		text += " has ended: watched"
	}
	text += fmt.Sprintf(" for %v: %v of CPU time sampled", time.Since(w.began).Round(100*time.Millisecond), w.hot.total.Round(10*time.Millisecond))
	if name, share := w.hot.hottest(); name != "" {
		text += fmt.Sprintf(", most in %s (%.0f %%)", name, 100*share)
	}
	return text
}
