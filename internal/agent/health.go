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
	for _, k := range pipe.kinds {
		up, _, _ := k.state()
		if k.name != profiler.KindCPU || !up {
			continue
		}
		n, running := a.metrics.cpu.get()
		last := n.Windows.Last
		if running && !last.IsZero() && time.Since(last) > overdue(c) {
			return fmt.Errorf("the last window of CPU profiles ended %v ago", time.Since(last).Round(time.Second))
		}
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
