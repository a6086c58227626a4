package profiler

import "time"

// How long Run waits while the ring buffer is not as full as is worth waking up for.
const (
	pollInterval    = 200 * time.Millisecond
	calmInterval    = 3 * time.Second // the same once no target is new: to wake up costs more than a hundred samples
	watchedInterval = time.Second     // the same while somebody asks for Stats
	calmAfter       = 5 * time.Second
	leastWait       = time.Millisecond
	leastTurn       = 20 * time.Millisecond // the same where the probes of many come and go
)

// patience is for how long Run may wait from now on. What is not known of a new target is looked up soon; windows, and slots of
// probes, end when they should.
func (p *Profiler) patience(now time.Time) time.Duration {
	wait := calmInterval
	if p.watched(now) {
		wait = watchedInterval
	}
	if p.allocs != nil || now.Sub(p.changed) < calmAfter {
		wait = pollInterval
	}
	if p.allocs != nil {
		wait = p.untilTurn(wait, now)
	}
	if p.cfg.Window > 0 {
		wait = max(min(wait, p.cfg.Window-now.Sub(p.started)), leastWait)
	}
	return wait
}

// untilTurn is how long it is until probes of allocations come or go, most at most.
func (p *Profiler) untilTurn(most time.Duration, now time.Time) time.Duration {
	for _, t := range p.targets {
		if t.alloc != nil && t.alloc.duty.n > 1 {
			most = min(most, max(t.alloc.duty.ends.Sub(now), leastTurn))
		}
	}
	return most
}

// watched reports whether Stats has been called lately.
func (p *Profiler) watched(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.asked) < 2*watchedInterval
}
