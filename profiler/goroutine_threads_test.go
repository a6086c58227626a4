//go:build linux

package profiler

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

// crashMode is a way for the program crash to end.
type crashMode struct {
	name    string
	signal  syscall.Signal // from outside
	alone   bool           // without goroutines that run
	nowhere bool           // in no goroutine
	cgo     bool           // in C code
	after   string         // what the processor raised
}

// trapSignal is what the compiler's trap ends in: ud2, brk.
var trapSignal = map[string]string{"amd64": "SIGILL", "arm64": "SIGTRAP"}

var crashModes = []crashMode{
	{name: "panic"}, {name: "nil", after: "SIGSEGV"}, {name: "nested"}, {name: "other"}, {name: "map"}, {name: "overflow"}, {name: "memory"},
	{name: "deadlock", alone: true, nowhere: true}, {name: "wait", signal: syscall.SIGABRT}, {name: "wait", signal: syscall.SIGQUIT},
	{name: "segv", cgo: true, after: "SIGSEGV"}, {name: "trap", cgo: true, after: trapSignal[runtime.GOARCH]},
}

// TestCrashes compares the core files that the kernel has written of programs that crashed in all ways with what the programs said
// themselves: the stack of each goroutine, also of those that ran, and in which of them it was.
func TestCrashes(t *testing.T) {
	for _, version := range testprog.Versions() {
		for _, o := range []testprog.Options{{Go: version}, {Go: version, Cgo: true, PIE: true, Strip: true}} {
			for _, mode := range crashModes {
				if mode.cgo && !o.Cgo || mode.name == "deadlock" && o.Cgo {
					continue
				}
				t.Run(o.String()+"/"+mode.name+mode.signal.String(), func(t *testing.T) { testCrash(t, testprog.Build(t, "crash", o), version, mode) })
			}
		}
	}
}

func testCrash(t *testing.T, prog, version string, mode crashMode) {
	args := []string{mode.name}
	if mode.alone {
		args = append(args, "-alone")
	}
	c := testprog.CrashWith(t, testprog.CrashOptions{Signal: mode.signal}, prog, args...)
	if c == nil {
		t.Skip("this machine hands core files to a program, or keeps none")
	}
	g, err := OpenGoroutinesOfCore(t.Context(), c.Core, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(c.Core); err != nil { // soon: it is large
			t.Error(err)
		}
	}()
	found, killed := readCore(t, g)
	want := readTraces(strings.NewReader(c.Stderr))
	old := slices.ContainsFunc([]string{"1.18.", "1.19.", "1.20.", "1.21."}, func(minor string) bool { return strings.HasPrefix(version, minor) })
	if old {
		preemptedAt(found, want)
		if mode.name == "nil" {
			mode.after = "" // the last thread whose stack the runtime has asked for need not be the one that panicked
		}
	}
	compareCrash(t, found, want)
	compareKilled(t, g, killed, mode, want, mode.name == "segv" && old)
	if name := os.Getenv("PPROFD_KEEP_TRACES"); name != "" && t.Failed() {
		_ = os.WriteFile(name, []byte(c.Stderr), 0o600)
	}
}

// compareKilled: in which goroutine it was, and after what. unseen: sigpanic has thrown on g0's stack, after the signal.
func compareKilled(t *testing.T, g *Goroutines, marked uint64, mode crashMode, want map[uint64]*trace, unseen bool) {
	t.Helper()
	goid, by, after := g.Killed()
	if by.Number == 0 || goid != marked || mode.signal == 0 && !unseen && (goid == 0) != mode.nowhere {
		t.Errorf("ended in goroutine %d, marked is %d, by %+v", goid, marked, by)
	}
	if mode.after != "" && !unseen && (after.String() != mode.after || !after.Raised()) {
		t.Errorf("after %v, want %s", after, mode.after)
	}
	if w := want[goid]; goid != 0 && (w == nil || w.unavailable || len(w.frames) == 0) {
		t.Errorf("it ended in goroutine %d, which it says to be %+v", goid, w)
	}
}

// readCore reads all goroutines of a core file, with all frames, and which of them is marked.
func readCore(t *testing.T, g *Goroutines) (found map[uint64]*seen, killed uint64) {
	t.Helper()
	found = make(map[uint64]*seen)
	_, err := g.Read(t.Context(), GoroutineQuery{System: true}, func(one *Goroutine) error {
		found[one.ID] = newSeen(g, one, true)
		if one.Killed {
			killed = one.ID
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, killed
}

// compareCrash: what a program has said of a goroutine that waits is its stack; that of one that ran begins with what it has called
// to say so. Of those that nobody asked, it is known what they do.
func compareCrash(t *testing.T, found map[uint64]*seen, want map[uint64]*trace) {
	t.Helper()
	ran, walked := 0, 0
	for goid, g := range found {
		w := want[goid]
		switch {
		case w == nil:
			t.Errorf("there is no goroutine %d: %+v", goid, g)
			continue
		case g.state == "running":
			ran++
			if len(g.frames) > 0 {
				walked++
			}
		}
		switch {
		case len(g.frames) == 0:
			t.Logf("goroutine %d [%s] has no stack, and is %+v", goid, g.state, w)
		case w.unavailable, g.state == "running" && w.state == "runnable": // runnable, and then it ran on: the world is frozen as far as that is quick
			likely(t, g)
		default:
			behind(t, g, w)
		}
	}
	for goid, w := range want {
		if found[goid] == nil {
			t.Errorf("goroutine %d is missing: %+v", goid, w)
		}
	}
	t.Logf("%d goroutines, %d ran, of which %d have a stack", len(found), ran, walked)
}

// preemptedAt takes the lines away where goroutines were preempted: up to Go 1.21 the runtime prints that of the instruction before,
// which may also be of a function that is inlined there, or of none.
func preemptedAt(found map[uint64]*seen, want map[uint64]*trace) {
	for goid, w := range want {
		g := found[goid]
		if g == nil {
			continue
		}
		i, j := preempted(g.frames), preempted(w.frames)
		if i < 0 || j < 0 {
			continue
		}
		switch name := g.frames[i].name; {
		case name == w.frames[j].name:
		case j+1 < len(w.frames) && name == w.frames[j+1].name:
			w.frames = slices.Delete(w.frames, j, j+1)
		case i+1 < len(g.frames) && g.frames[i+1].name == w.frames[j].name:
			g.frames = slices.Delete(g.frames, i, i+1)
		}
		g.frames[i].line, w.frames[j].line = 0, 0
	}
}

// preempted is the index of the frame that was preempted; negative: none was.
func preempted(frames []traceFrame) int {
	i := 1 + slices.IndexFunc(frames, func(f traceFrame) bool { return f.name == "runtime.asyncPreempt" })
	if i == 0 || i == len(frames) {
		return -1
	}
	return i
}

// likely checks the stack of a goroutine of which only that is known what it does.
func likely(t *testing.T, g *seen) {
	t.Helper()
	runs := map[string]string{
		"main.spin": "main.spinning", "main.locked": "main.spinning", "main.leaf": "main.calling", "main.now": "main.asking",
		"main.allocate": "main.allocating", "main.call": "main.entering",
	}
	n := len(g.frames)
	works := runs[g.start]
	if works == "" {
		return
	}
	if n < 2 || g.frames[n-1].name != g.start || g.frames[n-2].name != "main.known" || n > 2 && g.frames[n-3].name != works || !g.complete {
		t.Errorf("goroutine %d, which is %s, has the stack %v", g.goid, g.start, g.frames)
	}
}

// behind checks that a stack ends as the program has said, behind functions of the runtime alone.
func behind(t *testing.T, g *seen, w *trace) {
	t.Helper()
	want := w.frames
	if n := len(want); n > 0 && want[n-1].name == "runtime.goexit" {
		want = want[:n-1]
	}
	for len(want) > 0 && want[0].name == "runtime.systemstack_switch" {
		want = want[1:]
	}
	if w.elided >= 0 { // a hundred at most, or the first and the last fifty
		want = want[:min(w.elided, len(want))]
	}
	more := slices.IndexFunc(g.frames, func(f traceFrame) bool { return len(want) > 0 && f == want[0] })
	for more >= 0 && more+len(want) <= len(g.frames) && !slices.Equal(g.frames[more:more+len(want)], want) {
		next := slices.Index(g.frames[more+1:], want[0])
		if next < 0 {
			more = -1
			break
		}
		more += 1 + next
	}
	switch {
	case more < 0 || more+len(want) > len(g.frames), w.elided < 0 && more+len(want) < len(g.frames):
		t.Errorf("goroutine %d [%s, was %s]\nhas   %v\nwants %v", g.goid, g.state, w.state, g.frames, want)
		return
	case !g.complete && w.elided < 0:
		t.Errorf("goroutine %d is not complete", g.goid)
	}
	for _, f := range g.frames[:more] {
		own := strings.HasPrefix(f.name, "runtime.") || strings.HasPrefix(f.name, "runtime/internal/") || strings.HasPrefix(f.name, "internal/runtime/")
		if !own && f.name != "panic" && f.name != "time.now" && strings.Contains(f.name, ".") { // nor C's: the vDSO
			t.Errorf("goroutine %d [%s]: %v before what it says, %v", g.goid, g.state, g.frames[:more], want)
			return
		}
	}
}

// TestGCoreOfRunning: goroutines that run on when gcore takes a picture of their process.
func TestGCoreOfRunning(t *testing.T) {
	builds := []testprog.Options{{}}
	if os.Getenv("PPROFD_FULL") != "" { // gcore takes its time
		builds = append(builds, testprog.Options{Go: "1.18.10", Cgo: true, PIE: true, Strip: true})
	}
	for _, o := range builds {
		t.Run(o.String(), func(t *testing.T) {
			proc := testprog.Start(t, testprog.Build(t, "crash", o), "wait")
			core := testprog.GCore(t, proc.PID)
			proc.Stop()
			g, err := OpenGoroutinesOfCore(t.Context(), core, "")
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			found, _ := readCore(t, g)
			ran, walked := 0, 0
			for _, one := range found {
				if one.state != "running" {
					continue
				}
				ran++
				if len(one.frames) > 0 {
					walked++
					likely(t, one)
				}
			}
			if goid, by, _ := g.Killed(); goid != 0 || by != (objfile.CoreSignal{}) {
				t.Errorf("nobody has killed it: %d, %v", goid, by)
			}
			t.Logf("%d ran, of which %d have a stack", ran, walked)
			if ran < 4 || walked < ran/2 {
				t.Errorf("too few")
			}
		})
	}
}

// TestOpenCoreInterrupted: a core file may say that it has hundreds of millions of goroutines.
func TestOpenCoreInterrupted(t *testing.T) {
	c := testprog.CrashWith(t, testprog.CrashOptions{}, testprog.Build(t, "crash", testprog.Options{}), "panic")
	if c == nil {
		t.Skip("this machine hands core files to a program, or keeps none")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := OpenGoroutinesOfCore(ctx, c.Core, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestReadPartly: where reading ends early, those are shown that ran and were read by then, and nobody waits for their stacks; the next reading has
// each goroutine once.
func TestReadPartly(t *testing.T) {
	needs.Root(t)
	p := testprog.Start(t, testprog.Build(t, "crash", testprog.Options{}), "wait")
	g, err := OpenGoroutines(p.PID, "")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	last := uint64(0) // that has a stack, in the order in which they are read
	read := func(visit func(*Goroutine) error) error {
		_, err := g.Read(t.Context(), GoroutineQuery{Running: time.Minute, System: true}, visit)
		return err
	}
	g.threads = &stoppedThreads{} // nobody is looked for
	if err := read(func(one *Goroutine) error {
		if len(one.Stack) > 0 {
			last = one.Addr
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	g.threads = nil
	enough := errors.New("enough")
	running := 0
	err = read(func(one *Goroutine) error {
		if one.Addr == last {
			return enough
		}
		if one.State == goruntime.Running {
			running++
		}
		return nil
	})
	if !errors.Is(err, enough) || running == 0 {
		t.Errorf("%d goroutines that run, %v", running, err)
	}
	seen := make(map[uint64]int)
	if _, err := g.Read(t.Context(), GoroutineQuery{System: true}, func(one *Goroutine) error {
		seen[one.ID]++
		return nil
	}); err != nil {
		t.Error(err)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("goroutine %d was read %d times", id, n)
		}
	}
}
