package profiler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pprofd/pprofd/internal/goruntime"
)

// readingRound reads the processes whose time has come, in a goroutine of its own, which reads their memory directly: it is given up where it
// waits for memory that does not answer, together with the process that it waits for.
type readingRound struct {
	progress *progress
	done     chan struct{} // closed at its end
	process  Process
	taking   *memTarget // process, while it is read; nil: none is
}

func newReadingRound() *readingRound {
	return &readingRound{progress: &progress{}, done: make(chan struct{})}
}

// over is closed when k has ended; nil: there is no k.
func (k *readingRound) over() <-chan struct{} {
	if k == nil {
		return nil
	}
	return k.done
}

// stalledAgain is when a process is read again at the earliest whose memory did not answer.
const stalledAgain = time.Hour

// Run reads until ctx ends. Errors of single processes are counted. One round is under way at a time, or none: all that is not under r.mu
// is that round's, else Run's.
func (r *Readings) Run(ctx context.Context) error {
	tick := time.NewTicker(min(readingTick, r.patience/stallSteps))
	defer tick.Stop()
	var k *readingRound
	for end, stalled := ctx.Done(), 0; end != nil || k != nil; {
		select {
		case <-end:
			end = nil
		case <-k.over():
			k = nil
		case now := <-tick.C:
			if k == nil {
				k, stalled = r.begin(ctx, now), 0
			} else if stalled = k.progress.stalls(stalled); stalled > stallSteps && k.progress.giveUp() {
				r.giveUp(k, now)
				k = nil
			}
		}
	}
	return nil
}

// begin begins a round, if there is anything to read.
func (r *Readings) begin(ctx context.Context, now time.Time) *readingRound {
	r.closeWoken()
	list := r.due(now)
	if len(list) == 0 {
		r.forget(now)
		return nil
	}
	k := newReadingRound()
	r.round, r.m.watch = k, k.progress
	r.rounds.Go(func() {
		defer r.left(k)
		for _, p := range list {
			r.alive()
			if ctx.Err() != nil {
				break
			}
			r.one(ctx, p, now)
		}
		r.forget(now)
		close(k.done)
	})
	return k
}

func (r *Readings) alive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Alive = time.Now()
}

// due are the processes whose time has come, the longest waiting first.
func (r *Readings) due(now time.Time) []Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Alive = now
	var list []Process
	for p, s := range r.wait {
		if !now.Before(s.next) && !s.stuck {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Process) int { return r.wait[a].next.Compare(r.wait[b].next) })
	return list
}

// giveUp leaves k, which waits for a process's memory, to itself, with all that it reads into.
func (r *Readings) giveUp(k *readingRound, now time.Time) {
	r.buffer, r.waits = goruntime.MemRecords{Reuse: true}, goruntime.ContentionRecords{}
	r.m.goroutines.buffers = &goruntime.GoroutineBuffers{}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.wait[k.process]
	if s == nil { // it is not wanted any more
		return
	}
	o := r.unopened(fmt.Errorf("process %d (%s): %w", k.process.PID, k.taking.comm, errStalled))
	r.judge(k.process, s, &o)
	s.next, s.stuck = now.Add(stalledAgain), true
}

// left is called when k's goroutine ends. If it was given up, the process that it has waited for is left to be closed.
func (r *Readings) left(k *readingRound) {
	if k.taking == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.wait[k.process]; s != nil {
		s.stuck = false
	}
	if r.ended {
		r.shut(k.taking)
		return
	}
	r.woken = append(r.woken, k.taking)
}

// closeWoken closes the processes whose memory has answered after all.
func (r *Readings) closeWoken() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.woken {
		r.shut(t)
	}
	r.woken = nil
}

func (r *Readings) shut(t *memTarget) {
	if err := t.close(); err != nil {
		r.m.cfg.Log.Warn("close a process", "pid", t.pid, "error", err)
	}
}

// Close gives everything back, but for what waits for memory that does not answer.
func (r *Readings) Close() error {
	r.closeWoken()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	return r.m.Close()
}
