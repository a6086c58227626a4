//go:build linux

package profiler

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// held are states that are over in a moment as a rule, and in which the program held keeps goroutines: by mode, and since which minor version.
var held = []struct {
	mode   string
	states map[string]int
}{
	{"dump", map[string]int{"dumping heap": 20}},
	{"trace", map[string]int{"trace reader (blocked)": 18}},
	{"status", map[string]int{"trace proc status": 26}},
	{"stop", map[string]int{"stopping the world": 20}},
	{"worker", map[string]int{"GC worker (active)": 20, "wait for GC cycle": 18}},
	{"mark", map[string]int{"GC assist wait": 18, "GC assist marking": 18}},
	{"done", map[string]int{"GC mark termination": 22, "GC weak to strong wait": 24, "wait for GC cycle": 18}},
	{"idle", map[string]int{"finalizer wait": 18, "cleanup wait": 25, "force gc (idle)": 18, "GC sweep wait": 18, "GC scavenge wait": 18}},
	{"leaked", map[string]int{"chan receive (leaked)": 27, "select (no cases) (leaked)": 27}},
}

// TestGoroutinesHeld compares what is read from outside with what the runtime says at its end, of goroutines in states that programs are hardly ever
// found in. Those are missing that nobody can be kept in: "garbage collection", "garbage collection scan", "flushing proc caches", "page
// trace flush", "preempted", all some microseconds while the world or the goroutine is stopped; "panicwait", of a program
// that ends; "debug call", which needs a debugger.
func TestGoroutinesHeld(t *testing.T) {
	needs.Root(t)
	for _, version := range testprog.Versions() {
		for _, h := range held {
			states := make(map[string]bool)
			for state, since := range h.states {
				if minorOf(t, version) >= since {
					states[state] = true
				}
			}
			if len(states) > 0 {
				t.Run(fmt.Sprint("go", version, " ", h.mode), func(t *testing.T) { testHeld(t, version, h.mode, states) })
			}
		}
	}
}

// testHeld compares once there are goroutines in all of the states. It is up to the program's scheduler who waits for whom, so that it may take some programs.
func testHeld(t *testing.T, version, mode string, states map[string]bool) {
	t.Helper()
	o := testprog.Options{Go: version}
	if minorOf(t, version) >= 23 {
		o.LDFlags = "-checklinkname=0"
	}
	path := testprog.Build(t, "held", o)
	for tries := 1; ; tries++ {
		p := testprog.StartWith(t, testprog.StartOptions{Env: []string{"GOTRACEBACK=system", "GODEBUG=asyncpreemptoff=1"}}, path, mode)
		got, again, missing := awaitStates(t, p, states)
		if len(missing) == 0 {
			if err := unix.Kill(p.PID, unix.SIGQUIT); err != nil {
				t.Fatal(err)
			}
			<-p.Exited()
			compareHeld(t, got, again, readTraces(strings.NewReader(p.Stderr())))
			return
		}
		p.Stop()
		if tries == 10 {
			t.Fatalf("no goroutine is in %q: %s", missing, summary(again))
		}
	}
}

// awaitStates waits for some seconds until there are goroutines in all of the states, and stay there; missing are those in which there are none.
func awaitStates(t *testing.T, p *testprog.Proc, states map[string]bool) (got, again map[uint64]*seen, missing []string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		got = readGoroutines(t, p.PID, true)
		time.Sleep(200 * time.Millisecond)
		again = readGoroutines(t, p.PID, true)
		if missing = missingStates(states, got, again); len(missing) == 0 || time.Now().After(deadline) {
			return got, again, missing
		}
	}
}

// missingStates are those in which no goroutine was both times.
func missingStates(states map[string]bool, got, again map[uint64]*seen) (missing []string) {
	for state := range states {
		found := false
		for goid, g := range got {
			found = found || g.state == state && again[goid] != nil && again[goid].state == state
		}
		if !found {
			missing = append(missing, state)
		}
	}
	return missing
}

func summary(all map[uint64]*seen) string {
	var lines []string
	for _, g := range all {
		lines = append(lines, fmt.Sprintf("%d %s [%s]", g.goid, g.start, g.state))
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

// compareHeld compares goroutines that were the same both times: the others still do something.
func compareHeld(t *testing.T, got, again map[uint64]*seen, want map[uint64]*trace) {
	t.Helper()
	compared := 0
	for goid, w := range want {
		g, later := got[goid], again[goid]
		switch {
		case g == nil || later == nil:
			t.Errorf("goroutine %d [%s] is missing: %v", goid, w.state, w.frames)
			continue
		case g.state != later.state || !slices.Equal(g.frames, later.frames) || later.state == "running" || later.state == "runnable":
			continue
		}
		compared++
		later.waited = time.Hour // no collection has seen them
		if len(w.frames) > 0 && w.frames[len(w.frames)-1].name == "runtime.systemstack" {
			onSystemStack(t, later, w)
			continue
		}
		compareTrace(t, later, w)
	}
	for goid, g := range again {
		if want[goid] == nil {
			t.Errorf("there is no goroutine %d: %+v", goid, g)
		}
	}
	if compared < 5 {
		t.Errorf("%d goroutines could be compared, of %d", compared, len(want))
	}
}

// onSystemStack: of the thread that got the signal, and did something for a goroutine on its own stack, the runtime shows that stack
// in place of the goroutine's (tracebacktrap in sighandler, runtime/signal_unix.go).
func onSystemStack(t *testing.T, g *seen, w *trace) {
	t.Helper()
	if g.state != w.state || len(g.frames) == 0 || g.frames[0].name != "runtime.systemstack_switch" {
		t.Errorf("goroutine %d [%s] has %v, want one that waits for its thread's own stack, %v [%s]", g.goid, g.state, g.frames, w.frames, w.state)
	}
}

// minorOf is the minor version of Go; that of the local one for "".
func minorOf(t *testing.T, version string) (minor int) {
	t.Helper()
	if version == "" {
		version = strings.TrimPrefix(runtime.Version(), "go")
	}
	if _, err := fmt.Sscanf(version, "1.%d", &minor); err != nil {
		t.Fatalf("Go version %q: %v", version, err)
	}
	return minor
}
