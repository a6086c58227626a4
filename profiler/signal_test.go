package profiler

import (
	"slices"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestSignals: a sample inside a signal handler joins the code that the signal interrupted.
func TestSignals(t *testing.T) {
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			proc := testprog.Start(t, testprog.Build(t, "handler", testprog.Options{Go: version}), "-seconds", "4")
			prof, stats := sample(t, Config{Frequency: 999, NoKernel: true}, proc.PID, 3*time.Second)
			inside, joined := 0, 0
			for _, s := range prof.Sample {
				stack := names(s)
				i := slices.Index(stack, "runtime.sigtramp")
				if i < 0 {
					continue
				}
				inside++
				if root := stack[len(stack)-1]; i+1 < len(stack) && root != "[broken]" {
					joined++
				} else if inside-joined < 5 {
					t.Logf("not joined: %v", stack)
				}
			}
			t.Logf("%d of %d samples inside signal handlers are joined; %d stacks of %d broken", joined, inside, stats.Broken, stats.Recorded)
			if inside < 3 || joined < inside || stats.Broken*1000 > stats.Recorded {
				t.Errorf("%d of %d samples inside signal handlers are joined to what they interrupted", joined, inside)
			}
		})
	}
}

// TestPreemption: runtime.asyncPreempt, by which the scheduler stops a busy goroutine, is no place where time is spent.
func TestPreemption(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "mixed", testprog.Options{}), "-seconds", "5", "-procs", "4")
	prof, stats := sample(t, Config{Frequency: 999, NoKernel: true}, proc.PID, 4*time.Second)
	for _, s := range prof.Sample {
		if leaf := names(s)[0]; leaf == "runtime.asyncPreempt" || leaf == "runtime.asyncPreempt2" {
			t.Errorf("leaf %s: %v", leaf, names(s))
		}
	}
	if stats.Broken*1000 > stats.Recorded {
		t.Errorf("%d of %d stacks are broken", stats.Broken, stats.Recorded)
	}
}
