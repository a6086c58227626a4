package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/profiler"
)

// sharing samples CPU time for all who ask for it at the same time, with one profiler, which runs as long as there is somebody. When
// one comes or goes the window is cut, so that each can be given the windows of its interval, and of these its processes.
type sharing struct {
	open   func(export.Exporter) (*profiler.Profiler, error)
	budget *budget

	mu     sync.Mutex // who comes and goes, one at a time: held while profilers are opened and closed
	now    *sampling  // nil: nobody is there
	wanted map[profiler.Process]int
	over   chan struct{} // closed at the end

	list    sync.Mutex // taken by who samples, too
	clients map[*client]bool
}

// sampling is a profiler that runs.
type sampling struct {
	*profiler.Profiler
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // once ended is closed
}

// client is one that waits for its profile.
type client struct {
	of    *sampling
	procs []profiler.Process
	// The others are guarded by sharing.list.
	pieces []piece
	bytes  int64
	err    error
}

// piece is what was sampled of one process in one window. Clients share it: it is not changed.
type piece struct {
	of             profiler.Process // nobody where it is of several
	began          time.Time
	data           *profile.Profile
	recorded, lost uint64
}

const (
	livePoll  = 250 * time.Millisecond // after which it is looked whether the processes still run
	maxPieces = 32                     // beyond, they are merged
	busyAfter = 5 * time.Second
)

func newSharing(b *budget, open func(export.Exporter) (*profiler.Profiler, error)) *sharing {
	return &sharing{
		open: open, budget: b, wanted: make(map[profiler.Process]int), over: make(chan struct{}), clients: make(map[*client]bool),
	}
}

// interval is what was sampled, for how long.
type interval struct {
	parts    []piece
	from, to time.Time
}

// profile is all of it. parts there must be.
func (i *interval) profile() (*profile.Profile, error) {
	all, err := merged(i.parts, i.from)
	if err != nil {
		return nil, err
	}
	p := all.data
	p.Comments = append(p.Comments, export.SamplesComment(all.recorded, all.lost))
	p.TimeNanos, p.DurationNanos = i.from.UnixNano(), int64(i.to.Sub(i.from))
	return p, nil
}

// merged is one piece of all, whose numbers of samples are not in comments.
func merged(list []piece, began time.Time) (piece, error) {
	all := piece{began: began}
	parts := make([]*profile.Profile, len(list))
	for i := range list {
		parts[i] = list[i].data
		all.recorded, all.lost = all.recorded+list[i].recorded, all.lost+list[i].lost
	}
	var err error
	if all.data, err = profile.Merge(parts); err != nil {
		return piece{}, fmt.Errorf("merge %d profiles: %w", len(parts), err)
	}
	all.data.Comments = slices.DeleteFunc(all.data.Comments, func(c string) bool {
		_, _, of := export.ParseSamplesComment(c)
		return of
	})
	return all, nil
}

// sample samples procs for d, or until they, ctx or the agent end.
func (s *sharing) sample(ctx context.Context, procs []profiler.Process, d time.Duration) (*interval, error) {
	return s.sampleBeside(ctx, procs, d, func(context.Context) error { return nil })
}

// sampleBeside has f run while it samples, until its context ends.
func (s *sharing) sampleBeside(ctx context.Context, procs []profiler.Process, d time.Duration, f func(context.Context) error) (*interval, error) {
	c, err := s.join(procs)
	if err != nil {
		return nil, err
	}
	defer s.leave(c)
	from, err := c.of.Cut(ctx)
	if err != nil {
		return nil, c.died(err)
	}
	during, end := context.WithDeadline(ctx, from.Add(d))
	defer end()
	beside := make(chan error, 1)
	go func() { beside <- f(during) }()
	err = s.wait(ctx, c, from, d)
	end()
	if err := errors.Join(err, <-beside); err != nil {
		return nil, err
	}
	to, err := c.of.Cut(ctx)
	if err != nil {
		return nil, c.died(err)
	}
	parts, err := s.take(c, from, to)
	return &interval{parts, from, to}, err
}

// died says why the profiler ended, if it did: it may be about to close.
func (c *client) died(err error) error {
	if errors.Is(err, profiler.ErrEnded) {
		<-c.of.ended
	}
	select {
	case <-c.of.ended:
		return cmp.Or(c.of.err, err)
	default:
		return err
	}
}

// join makes a client of whoever wants procs, of which one at least must run.
func (s *sharing) join(procs []profiler.Process) (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.over:
		return nil, errEnding
	default:
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	c := &client{of: s.now}
	var errs []error
	for _, p := range procs {
		if err := s.add(p); err != nil {
			errs = append(errs, err)
			continue
		}
		c.procs = append(c.procs, p)
	}
	s.list.Lock()
	s.clients[c] = true
	s.list.Unlock()
	if len(c.procs) == 0 {
		s.leaveLocked(c)
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// add makes p a target, if it is none.
func (s *sharing) add(p profiler.Process) error {
	if s.wanted[p] == 0 {
		if err := s.now.Add(p.PID); err != nil {
			return err
		}
		if !s.now.runs(p) {
			s.release(p.PID)
			return fmt.Errorf("process %d has ended: %w", p.PID, os.ErrNotExist)
		}
	}
	s.wanted[p]++
	return nil
}

// release ends the sampling of the process that has a PID by now, unless somebody wants it.
func (s *sharing) release(pid int) {
	for p := range s.wanted {
		if p.PID == pid && s.now.runs(p) {
			return
		}
	}
	_ = s.now.Remove(pid) // which fails if it has ended since
}

// runs says whether p is sampled: another process may have its PID.
func (s *sampling) runs(p profiler.Process) bool { return len(s.Missing([]profiler.Process{p})) == 0 }

// begin starts the profiler, if it does not run.
func (s *sharing) begin() error {
	if s.now != nil {
		select {
		case <-s.now.ended: // by itself: those who wait for it are told so
			clear(s.wanted)
		default:
			return nil
		}
	}
	p, err := s.open(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	now := &sampling{Profiler: p, cancel: cancel, ended: make(chan struct{})}
	s.now = now
	go func() {
		defer close(now.ended)
		now.err = errors.Join(p.Run(ctx), p.Close())
	}()
	return nil
}

// leave lets c go, and ends the profiler with the last one.
func (s *sharing) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(c)
}

func (s *sharing) leaveLocked(c *client) {
	s.list.Lock()
	delete(s.clients, c)
	s.budget.give(c.bytes)
	c.pieces, c.bytes = nil, 0
	s.list.Unlock()
	if c.of != s.now {
		return // it had ended before
	}
	others := false
	for other := range s.clients {
		others = others || other.of == s.now
	}
	if !others {
		s.now.cancel()
		<-s.now.ended
		s.now = nil
		clear(s.wanted)
		return
	}
	for _, p := range c.procs {
		s.drop(p)
	}
}

// drop ends the sampling of p if nobody else wants it.
func (s *sharing) drop(p profiler.Process) {
	if s.wanted[p]--; s.wanted[p] > 0 {
		return
	}
	delete(s.wanted, p)
	if s.now.runs(p) {
		_ = s.now.Remove(p.PID) // which fails if it has ended since
	}
}

// wait waits until the interval has passed, or there is no reason to wait any longer.
func (s *sharing) wait(ctx context.Context, c *client, from time.Time, d time.Duration) error {
	end := time.NewTimer(time.Until(from.Add(d)))
	defer end.Stop()
	tick := time.NewTicker(livePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.of.ended:
			return cmp.Or(c.of.err, errors.New("sampling has ended"))
		case <-s.over:
			return nil
		case <-end.C:
			return nil
		case <-tick.C:
		}
		if err := s.merge(c, from); err != nil || len(c.of.Missing(c.procs)) == len(c.procs) {
			return err
		}
	}
}

// Export gives a piece to those who want it.
func (s *sharing) Export(_ context.Context, p *export.Profile) error {
	proc := profiler.Process{PID: p.PID, Start: p.StartTicks}
	one := piece{of: proc, began: p.Start, data: p.Data}
	for _, c := range p.Data.Comments {
		if recorded, lost, ok := export.ParseSamplesComment(c); ok {
			one.recorded, one.lost = recorded, lost
		}
	}
	s.list.Lock()
	defer s.list.Unlock()
	for c := range s.clients {
		if slices.Contains(c.procs, proc) {
			s.give(c, one)
		}
	}
	return nil
}

// Close has nothing to do.
func (*sharing) Close() error { return nil }

var errTooMuch = errors.New("what is being sampled takes too much memory")

func (s *sharing) give(c *client, p piece) {
	n := weight(p.data)
	if !s.budget.take(n) {
		c.err = &pprofhttp.Error{Status: http.StatusServiceUnavailable, After: busyAfter, Err: errTooMuch}
		return
	}
	c.pieces, c.bytes = append(c.pieces, p), c.bytes+n
}

// merge makes one of many pieces. from is where the client's interval begins.
func (s *sharing) merge(c *client, from time.Time) error {
	s.list.Lock()
	pieces, err := c.pieces, c.err
	s.list.Unlock()
	if err != nil || len(pieces) < max(maxPieces, 2*len(c.procs)) {
		return err
	}
	var kept []piece
	for of, list := range byProcess(within(pieces, from, time.Time{})) {
		all, err := merged(list, from)
		if err != nil {
			return err
		}
		all.of = of
		kept = append(kept, all)
	}
	s.list.Lock()
	defer s.list.Unlock()
	rest := c.pieces[len(pieces):]
	s.budget.give(c.bytes)
	c.pieces, c.bytes = nil, 0
	for _, p := range append(kept, rest...) {
		s.give(c, p)
	}
	return c.err
}

func byProcess(list []piece) map[profiler.Process][]piece {
	of := make(map[profiler.Process][]piece)
	for _, p := range list {
		of[p.of] = append(of[p.of], p)
	}
	return of
}

// within are the pieces of [from, to); to may be zero.
func within(pieces []piece, from, to time.Time) (list []piece) {
	for _, p := range pieces {
		if !p.began.Before(from) && (to.IsZero() || p.began.Before(to)) {
			list = append(list, p)
		}
	}
	return list
}

func (s *sharing) take(c *client, from, to time.Time) ([]piece, error) {
	s.list.Lock()
	defer s.list.Unlock()
	return within(c.pieces, from, to), c.err
}

// end lets all clients take what there is, and no other come.
func (s *sharing) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.over:
	default:
		close(s.over)
	}
}
