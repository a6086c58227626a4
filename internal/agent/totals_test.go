package agent

import (
	"testing"

	"github.com/pprofd/pprofd/profiler"
)

// TestTargetsOfTheOneThatRuns: what a profiler had as targets at its end, as it is replaced, is profiled by nobody.
func TestTargetsOfTheOneThatRuns(t *testing.T) {
	c := newTotals()
	for i, now := range []profiler.Stats{{Targets: 5, Exited: 2}, {Targets: 3}, {}} {
		c.begin(func() profiler.Stats { return now })
		if sum, running := c.get(); !running || sum.Targets-sum.Exited != now.Targets-now.Exited {
			t.Errorf("profiler %d: %+v, want %d targets that run", i, sum, now.Targets-now.Exited)
		}
		c.end()
	}
	if sum, running := c.get(); running || sum.Targets != 8 || sum.Exited != 8 {
		t.Errorf("in all: %+v", sum)
	}
}
