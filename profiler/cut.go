package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/symbolize"
)

// ErrEnded is what Cut returns once Run has ended.
var ErrEnded = errors.New("sampling has ended")

// cut is what Cut waits for: when the window that it began began.
type cut chan time.Time

// Cut ends the window now, and returns when the next one began, once the profiles have been handed on of what was sampled before;
// those of what is sampled from then on have no earlier Start. Cuts that are asked for at the same time are one. It needs
// Config.Window, and Run to run.
func (p *Profiler) Cut(ctx context.Context) (time.Time, error) {
	done := make(cut, 1)
	p.mu.Lock()
	ended := p.ended
	p.cutting.Store(true)
	if !ended {
		p.cuts = append(p.cuts, done)
	}
	p.mu.Unlock()
	if ended {
		return time.Time{}, ErrEnded
	}
	if err := p.probes.Flush(); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended {
			return time.Time{}, ErrEnded
		}
		return time.Time{}, fmt.Errorf("end a window: %w", err)
	}
	select {
	case at, ok := <-done:
		if !ok {
			return time.Time{}, ErrEnded
		}
		return at, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// keptNames keeps what was found out of addresses from one cut to the next.
type keptNames struct {
	sym   *symbolize.Symbolizer
	began time.Time
}

// symbolizer is a new one for each window, but for those that a cut has ended, which may be as short as can be: these share one for
// as long as a window lasts otherwise.
func (p *Profiler) symbolizer(now time.Time) *symbolize.Symbolizer {
	n := &p.names
	if n.sym == nil || n.sym.Overflowed() || now.Sub(n.began) >= p.cfg.Window {
		*n = keptNames{symbolize.New(p.images.Get, p.cfg.symbols()), now}
	}
	sym := n.sym
	if !p.cutting.Load() {
		n.sym = nil
	}
	return sym
}

// takeCuts are those that wait.
func (p *Profiler) takeCuts() []cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.cuts
	p.cuts = nil
	return list
}

// flushed does what is to be done where the ring buffer was read to its end since somebody asked for that. end: there will be
// nothing more.
func (p *Profiler) flushed(ctx context.Context) (end bool, err error) {
	if !p.cutting.Load() {
		return true, nil
	}
	if p.stopped.Load() {
		return true, p.drain(ctx)
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	p.endGone()
	if list := p.takeCuts(); len(list) > 0 {
		p.readStats()
		p.endWindow(ctx)
		for _, done := range list {
			done <- p.started
		}
	}
	return false, nil
}

// drain reads what came into the ring buffer between a cut and the end of sampling.
func (p *Profiler) drain(ctx context.Context) error {
	for {
		list, got := p.batch.read(p.probes, time.Unix(1, 0))
		end := errors.Is(got, os.ErrDeadlineExceeded)
		if end {
			got = bpf.ErrFlushed
		}
		if _, err := p.take(ctx, list, got); err != nil || end {
			return err
		}
	}
}

// endCuts lets those go that wait for a window that will not begin.
func (p *Profiler) endCuts() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	for _, done := range p.takeCuts() {
		close(done)
	}
}
