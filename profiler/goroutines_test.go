//go:build linux

package profiler

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// waitBuilds are the ways to build a program that differ in what is read of it.
func waitBuilds(version string) []testprog.Options {
	return []testprog.Options{
		{Go: version},
		{Go: version, PIE: true, Strip: true},
		{Go: version, Cgo: true},
		{Go: version, Cgo: true, PIE: true, Strip: true},
		{Go: version, Cgo: true, Strip: true, LDFlags: "-linkmode=external -extldflags=-static"},
	}
}

// TestGoroutines compares what is read from outside with what the program's own runtime says: each goroutine of a program that has
// some that wait in all ways, as a traceback shows them, and with all frames and the runtime's own goroutines.
func TestGoroutines(t *testing.T) {
	needs.Root(t)
	for _, version := range testprog.Versions() {
		for _, o := range waitBuilds(version) {
			t.Run(o.String(), func(t *testing.T) { testGoroutines(t, o) })
		}
	}
}

func testGoroutines(t *testing.T, o testprog.Options) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "traces")
	p := testprog.StartWith(t, testprog.StartOptions{Env: []string{"GOTRACEBACK=system"}}, testprog.Build(t, "waits", o), path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	shown, all := readGoroutines(t, p.PID, false), readGoroutines(t, p.PID, true)
	own := readTraces(f)
	checkKinds(t, own, minorOf(t, o.Go))
	t.Run("shown", func(t *testing.T) { compareTraces(t, p, shown, own) })
	if err := unix.Kill(p.PID, unix.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	t.Run("all", func(t *testing.T) { compareTraces(t, p, all, readTraces(strings.NewReader(p.Stderr()))) })
}

// waitStates are what goroutines do in which programs may be found for long, and since which minor version; see held for others.
var waitStates = map[string]int{
	"IO wait": 18, "chan receive": 18, "chan receive (nil chan)": 18, "chan send": 18, "chan send (nil chan)": 18, "select": 18, "select (no cases)": 18,
	"semacquire": 18, "sleep": 18, "sync.Cond.Wait": 18, "sync.Mutex.Lock": 20, "sync.RWMutex.Lock": 20, "sync.RWMutex.RLock": 20, "sync.WaitGroup.Wait": 25,
	"coroutine": 23, "synctest.Run": 25, "synctest.Wait": 25, "syscall": 18, "runnable": 18,
}

// checkKinds makes sure that there is everything that is to be compared.
func checkKinds(t *testing.T, all map[uint64]*trace, minor int) {
	t.Helper()
	states, kinds, bubbles := make(map[string]bool), make(map[string]bool), 0
	for _, tr := range all {
		states[tr.state] = true
		kinds[fmt.Sprint(tr.state, tr.locked, tr.bubble != 0, tr.frames)] = true
		if tr.bubble != 0 {
			bubbles++
		}
	}
	for state, since := range waitStates {
		if minor >= since && !states[state] {
			t.Errorf("no goroutine of the program is in %q", state)
		}
	}
	if len(kinds) < 50 || minor >= 25 && bubbles < 10 {
		t.Errorf("goroutines wait in %d ways, %d are in bubbles", len(kinds), bubbles)
	}
	t.Logf("goroutines wait in %d ways", len(kinds))
}

// seen is a goroutine as it was read from outside.
type seen struct {
	trace
	labels                         map[string]string
	start                          string
	complete, inconsistent, system bool
	waited                         time.Duration
}

// readGoroutines reads those of a process, with all frames or those that a traceback shows.
func readGoroutines(t *testing.T, pid int, all bool) map[uint64]*seen {
	t.Helper()
	g, err := OpenGoroutines(pid, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	found := make(map[uint64]*seen)
	_, err = g.Read(t.Context(), GoroutineQuery{Labels: true, System: all}, func(one *Goroutine) error {
		s := newSeen(g, one, all)
		if found[s.goid] != nil {
			t.Errorf("goroutine %d comes twice", s.goid)
		}
		found[s.goid] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func newSeen(g *Goroutines, one *Goroutine, all bool) *seen {
	s := &seen{complete: one.Complete, inconsistent: one.Inconsistent, system: one.System, start: one.Start, waited: one.Waited}
	s.goid, s.parent, s.locked, s.bubble, s.state, s.elided = one.ID, one.Parent, one.Locked, one.Bubble, one.State.String(), -1
	switch {
	case one.State == goruntime.Waiting && one.Reason != "":
		s.state = undurable(one.Reason)
	case one.State == goruntime.Leaked:
		s.state = one.Reason + " (leaked)"
	}
	if all {
		for _, a := range one.Stack {
			for _, f := range g.Frames(a) {
				s.frames = append(s.frames, traceFrame{generic(f.Func), f.File, f.Line})
			}
		}
	} else {
		for _, f := range g.Shown(one.Stack, false) {
			s.frames = append(s.frames, traceFrame{generic(f.Func), f.File, f.Line})
		}
	}
	if f, ok := g.CreatedBy(one.Creator, all); ok {
		s.creator = traceFrame{generic(f.Func), f.File, f.Line}
	}
	for _, l := range one.Labels {
		if s.labels == nil {
			s.labels = make(map[string]string)
		}
		s.labels[l.Key] = l.Value
	}
	return s
}

// compareTraces compares all goroutines of a process.
func compareTraces(t *testing.T, p *testprog.Proc, got map[uint64]*seen, want map[uint64]*trace) {
	t.Helper()
	if len(want) < 80 {
		t.Fatalf("the program says that it has %d goroutines only", len(want))
	}
	labels := labelsOf(t, p)
	for goid, w := range want {
		g := got[goid]
		if g == nil {
			t.Errorf("goroutine %d [%s] is missing: %v", goid, w.state, w.frames)
			continue
		}
		if n := len(w.frames); w.elided < 0 && n > oldDepth-10 && n <= oldDepth && len(g.frames) > n {
			w.elided = n
		}
		compareTrace(t, g, w)
		if fmt.Sprint(labels[goid]) != fmt.Sprint(g.labels) {
			t.Errorf("goroutine %d has the labels %v, want %v", goid, g.labels, labels[goid])
		}
	}
	for goid, g := range got {
		if want[goid] == nil {
			t.Errorf("there is no goroutine %d: %+v", goid, g)
		}
	}
	if len(labels) < 6 {
		t.Errorf("%d goroutines have labels", len(labels))
	}
}

// labelsOf are the labels that the goroutines of waits have, by their own account.
func labelsOf(t *testing.T, p *testprog.Proc) map[uint64]map[string]string {
	t.Helper()
	all := make(map[uint64]map[string]string)
	for _, line := range p.Lines() {
		rest, ok := strings.CutPrefix(line, "label ")
		if !ok {
			continue
		}
		id, text, _ := strings.Cut(rest, " ")
		goid, err := strconv.ParseUint(id, 10, 64)
		var labels map[string]string
		if err != nil || json.Unmarshal([]byte(text), &labels) != nil {
			t.Fatalf("line %q", line)
		}
		all[goid] = labels
	}
	return all
}

// restless says whether a goroutine is none that waits: what it does changes between two looks.
func restless(g *seen) bool {
	return g.goid == 1 || g.start == "main.spin" || g.start == "main.yield" || strings.HasPrefix(g.start, "runtime.")
}

func compareTrace(t *testing.T, g *seen, w *trace) {
	t.Helper()
	switch {
	case g.inconsistent:
		t.Errorf("goroutine %d [%s] is inconsistent", g.goid, g.state)
	case g.start == "main.spin" || g.start == "main.yield":
		moving(t, g)
	case g.state == "syscall" && w.state == "runnable": // the thread in which SIGQUIT was handled
	case g.goid != 1 && (g.state != w.state && !restless(g) || g.locked != w.locked || g.bubble != w.bubble):
		t.Errorf("goroutine %d is %+v, want %+v", g.goid, g.trace, *w)
	case g.creator != w.creator && w.creator.name != "" || w.parent != 0 && g.parent != w.parent:
		t.Errorf("goroutine %d was created at %+v in %d, want %+v in %d", g.goid, g.creator, g.parent, w.creator, w.parent)
	case restless(g) && g.state != w.state || g.goid == 1:
	case !g.complete && w.elided < 0:
		t.Errorf("goroutine %d [%s] is not complete: %v, want %v", g.goid, g.state, g.frames, w.frames)
	default:
		sameFrames(t, g, w)
		if w.state != "syscall" && g.waited < 50*time.Millisecond && !restless(g) && w.state != "runnable" {
			t.Errorf("goroutine %d [%s] waits for %v", g.goid, g.state, g.waited)
		}
	}
}

// moving goroutines are never shown where they may not be any more.
func moving(t *testing.T, g *seen) {
	t.Helper()
	switch g.state {
	case "running":
		if len(g.frames) != 0 {
			t.Errorf("goroutine %d runs, and has the stack %v", g.goid, g.frames)
		}
	case "runnable":
		if !slices.ContainsFunc(g.frames, func(f traceFrame) bool { return f.name == g.start }) {
			t.Errorf("goroutine %d has the stack %v", g.goid, g.frames)
		}
	default:
		t.Errorf("goroutine %d is %s", g.goid, g.state)
	}
}

// oldDepth is how many frames tracebacks have up to Go 1.20; those that are not shown count, and nothing says that there are more.
const oldDepth = 100

func sameFrames(t *testing.T, g *seen, w *trace) {
	t.Helper()
	want := w.frames
	if n := len(want); n > 0 && want[n-1].name == "runtime.goexit" {
		want = want[:n-1]
	}
	have := g.frames
	ok := slices.Equal(have, want)
	if w.elided >= 0 {
		tail := want[w.elided:]
		if !g.complete { // so many that the last are not read
			tail = nil
		}
		ok = len(have) > len(want)/2 && slices.Equal(have[:w.elided], want[:w.elided]) && slices.Equal(have[len(have)-len(tail):], tail)
	}
	if !ok {
		t.Errorf("goroutine %d [%s]\nhas   %v\nwants %v", g.goid, g.state, have, want)
	}
}
