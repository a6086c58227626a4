package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/bpf"
)

// read handles records until the ring buffer has been flushed; it calls stop once there is nothing to wait for.
func (p *Profiler) read(ctx context.Context, stop func()) error {
	var watch stopwatch
	defer watch.stop()
	deadline := time.Now()
	p.poll = pollInterval
	for n := 0; ; {
		list, got := p.batch.read(p.probes, deadline)
		watch.start()
		if n += len(list); n >= floodRecords {
			n = 0
			if time.Since(deadline) > pollInterval {
				p.tickInFlood(ctx)
				deadline = time.Now().Add(p.poll)
			}
		}
		waiting, err := p.take(ctx, list, got)
		if err != nil {
			return err
		}
		if errors.Is(got, bpf.ErrFlushed) {
			if end, err := p.flushed(ctx); end || err != nil {
				return err
			}
		}
		if errors.Is(got, os.ErrDeadlineExceeded) { // p.poll is how long there is nothing to do
			deadline = time.Now().Add(p.poll)
		}
		if !waiting {
			stop()
		}
		if len(list) == 0 || !list[len(list)-1].record.More { // the next one may have to be waited for
			p.userTime.Add(int64(watch.stop()))
		}
	}
}

// take handles what was read: records, and why there are no more, if that is known. waiting: there are, or may come, targets.
func (p *Profiler) take(ctx context.Context, list []pending, got error) (waiting bool, err error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.handle(list)
	switch {
	case got == nil:
	case errors.Is(got, os.ErrDeadlineExceeded):
		p.tick(ctx)
	case errors.Is(got, bpf.ErrFlushed):
		p.readStats()
	case errors.Is(got, bpf.ErrMalformed):
		return false, fmt.Errorf("bug in pprofd: the BPF program wrote a %w", got)
	default:
		return false, fmt.Errorf("read samples: %w", got)
	}
	return len(p.targets) > 0 || p.cfg.Window > 0, nil
}

// stopwatch measures CPU time of the goroutine that starts and stops it, which stays on its thread meanwhile.
type stopwatch struct {
	running bool
	began   time.Duration
}

func (w *stopwatch) start() {
	if w.running {
		return
	}
	runtime.LockOSThread()
	w.running, w.began = true, threadTime()
}

// stop returns the time since start; 0: it was not running.
func (w *stopwatch) stop() time.Duration {
	if !w.running {
		return 0
	}
	spent := threadTime() - w.began
	w.running = false
	runtime.UnlockOSThread()
	return spent
}

// threadTime is the CPU time of this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// publish makes numbers that Stats returns.
func (p *Profiler) publish() {
	a, k := p.table.Stats(), &p.lastRead
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.stats
	s.Recorded = k.Recorded + k.LostRing
	s.Lost = k.LostRing + a.Lost
	s.Unwanted, s.Failed, s.Windows = p.past.unwanted, p.past.failed, p.past.windows
	s.StalePID, s.LostEvents, s.NoRoom = k.StalePID, k.LostEvents, k.NoRoom
	s.Truncated, s.Broken = a.Truncated, a.Broken
	s.Targets = p.past.targets + len(p.all)
	s.Exited = s.Targets - len(p.targets)
	s.Ticks, s.Hits, s.Throttled, s.BadSpans = k.Ticks, k.Hits, k.Throttled, k.BadSpans
	s.BPFTime, s.UserTime = k.RunTime.All(), time.Duration(p.userTime.Load())
}
