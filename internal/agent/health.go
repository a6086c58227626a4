package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/profiler"
)

// healthy says what is stuck: nothing can be profiled, or nothing is, while the process looks alive. A kind that is off is no
// reason to end the others.
func (a *Agent) healthy() error {
	c, pipe, _ := a.present()
	var errs []error
	for _, k := range pipe.kinds {
		if up, _, _ := k.state(); up {
			errs = append(errs, a.progress(c, k.name))
		}
	}
	return errors.Join(errs...)
}

// progress says since when a kind that runs is stuck.
func (a *Agent) progress(c *config.Config, kind string) error {
	var last time.Time
	var running bool
	what := "window of " + kind + " profiles ended"
	switch kind {
	case profiler.KindCPU:
		var n profiler.Stats
		n, running = a.metrics.cpu.get()
		last = n.Windows.Last
	case profiler.KindAllocs:
		var n profiler.Stats
		n, running = a.metrics.allocs.get()
		last = n.Windows.Last
	case profiler.KindWall:
		var n profiler.WallsStats
		n, running = a.metrics.wall.get()
		last = n.Windows.Last
	case kindMemory:
		var n profiler.ReadingsStats
		n, running = a.metrics.memory.get()
		last, what = n.Alive, "reading of what runtimes keep of themselves ended"
	}
	if running && !last.IsZero() && time.Since(last) > overdue(c) {
		return fmt.Errorf("the last %s %v ago", what, time.Since(last).Round(time.Second))
	}
	return nil
}

// overdue is how long a window may take at the most: a minute more than it should, for machines that are overloaded, and for
// files that are slow.
func overdue(c *config.Config) time.Duration { return 2*c.Window + time.Minute }

var errNotScanned = errors.New("the processes of this machine are still being looked for")

// ready says whether profiles are being taken.
func (a *Agent) ready() error {
	a.mu.Lock()
	scanned, pipe := a.scanned, a.pipe
	a.mu.Unlock()
	if !scanned {
		return errNotScanned
	}
	var errs []error
	for _, k := range pipe.kinds {
		up, _, why := k.state()
		if up {
			return nil
		}
		if why != nil {
			errs = append(errs, fmt.Errorf("%s: %w", k.name, why))
		}
	}
	return errors.Join(append(errs, errors.New("no kind of profile is being taken"))...)
}
