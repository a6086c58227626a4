package agent

import (
	"sync"

	"github.com/pprofd/pprofd/profiler"
)

// totals adds up what the sources of a kind count, one after the other: a counter never goes back.
type counted[T any] struct {
	add  func(past *T, now T)
	over func(past *T) // what else there is to do once a source has ended; may be nil

	mu   sync.Mutex
	past T
	now  func() T // of the source that runs; nil: there is none
}

type (
	totals     = counted[profiler.Stats]
	readTotals = counted[profiler.ReadingsStats]
)

func newTotals() *totals         { return &totals{add: addSamples, over: noTargets} }
func newReadTotals() *readTotals { return &readTotals{add: addReadings} }

func (c *counted[T]) begin(now func() T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func (c *counted[T]) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil {
		c.add(&c.past, c.now())
		c.now = nil
		if c.over != nil {
			c.over(&c.past)
		}
	}
}

// get is the sum up to now; running: a source counts at present.
func (c *counted[T]) get() (sum T, running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum = c.past
	if c.now == nil {
		return sum, false
	}
	c.add(&sum, c.now())
	return sum, true
}

// noTargets: one that has ended profiles nobody any more.
func noTargets(past *profiler.Stats) { past.Exited = past.Targets }

// addSamples adds counters.
func addSamples(past *profiler.Stats, now profiler.Stats) {
	past.Recorded += now.Recorded
	past.Lost += now.Lost
	past.Truncated += now.Truncated
	past.Broken += now.Broken
	past.Unwanted += now.Unwanted
	past.Failed += now.Failed
	past.StalePID += now.StalePID
	past.LostEvents += now.LostEvents
	past.NoRoom += now.NoRoom
	past.Targets += now.Targets
	past.Exited += now.Exited
	past.Ticks += now.Ticks
	past.Hits += now.Hits
	past.BPFTime += now.BPFTime
	past.UserTime += now.UserTime
	past.Throttled += now.Throttled
	past.BadSpans += now.BadSpans
	addWindows(&past.Windows, now.Windows)
}

func addWindows(past *profiler.Windows, now profiler.Windows) {
	past.Ended += now.Ended
	past.Profiles += now.Profiles
	past.Failures += now.Failures
	past.Dropped += now.Dropped
	past.Building += now.Building
	if now.Last.After(past.Last) {
		past.Last = now.Last
	}
}

func addReadings(past *profiler.ReadingsStats, now profiler.ReadingsStats) {
	past.Readings += now.Readings
	past.Failed += now.Failed
	past.Sites += now.Sites
	past.Took += now.Took
	past.CPUTime += now.CPUTime
	past.States, past.Waits = now.States, now.Waits
	past.Alive = now.Alive
}
