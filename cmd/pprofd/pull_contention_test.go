package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

// ofMain are the stacks of a program that have its own functions: the runtime's own locks need not keep still.
func ofMain(p *profile.Profile) map[string][]int64 {
	all := byStack(p)
	maps.DeleteFunc(all, func(stack string, _ []int64) bool { return !strings.Contains(stack, "main.") })
	return all
}

// TestPullContention: block and mutex are what the process says itself, as pprof's format and as text, of the process and of its
// service; of a time in which nothing happens they are empty.
func TestPullContention(t *testing.T) {
	bin, dir := ownPrograms(t, "contend"), t.TempDir()
	a := startPulled(t, bin)
	p := testprog.Start(t, bin+"/contend", "-dir", dir, "-life", "5m")
	for _, kind := range []string{"block", "mutex"} {
		want := ofMain(readProfile(t, filepath.Join(dir, kind)))
		prefix := fmt.Sprintf("/pid/%d/debug/pprof/", p.PID)
		until(t, "the process is found", func() bool {
			got, err := a.ask(t.Context(), "/service/contend/debug/pprof/"+kind)
			return err == nil && got.status == 200
		})
		for _, path := range []string{prefix + kind, "/service/contend/debug/pprof/" + kind} {
			got := a.profile(t, path)
			if d := cmp.Diff(want, ofMain(got)); d != "" || len(want) < 5 {
				t.Errorf("%s: %d stacks: %s", path, len(want), d)
			}
			if got.DurationNanos != 0 || got.PeriodType.Type != "contentions" || got.SampleType[1].Unit != "nanoseconds" {
				t.Errorf("%s: %v %v, %d ns", path, got.PeriodType, got.SampleType[1], got.DurationNanos)
			}
		}
		_, b := a.get(t, prefix+kind+"?debug=1")
		if n, m := sumOf(parsed(t, b), 0), sumOf(a.profile(t, prefix+kind), 0); n > m || n < 10 || !strings.Contains(string(b), "main.locked") {
			t.Errorf("%s as text: %d events, later %d: %.200s", kind, n, m, b)
		}
		delta := a.profile(t, prefix+kind+"?seconds=1")
		if left := ofMain(delta); len(left) != 0 || delta.DurationNanos < 9e8 {
			t.Errorf("%s of %d ns in which nothing happened: %v", kind, delta.DurationNanos, left)
		}
	}
	busy := testprog.Start(t, bin+"/contend", "-busy", "-life", "5m")
	if p := a.profile(t, fmt.Sprintf("/pid/%d/debug/pprof/mutex?seconds=2", busy.PID)); holds(p, "main.locked") == 0 {
		t.Errorf("%d events of a process that blocks", sumOf(p, 0))
	}
}

// TestPullGoroutines: each goroutine of a process is in its profile.
func TestPullGoroutines(t *testing.T) {
	bin := ownPrograms(t, "contend")
	a := startPulled(t, bin)
	in, out, err := os.Pipe() // which one of its goroutines reads
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	p := testprog.StartWith(t, testprog.StartOptions{Stdin: in}, bin+"/contend", "-life", "5m")
	path := fmt.Sprintf("/pid/%d/debug/pprof/goroutine", p.PID)
	got := a.profile(t, path)
	if n := sumOf(got, 0); n != 2 || holds(got, "main.main") != 1 || holds(got, "main.serve") != 1 || got.SampleType[0].Type != "goroutine" {
		t.Errorf("%d goroutines: %v", n, got)
	}
	if _, b := a.get(t, path+"?debug=1"); !strings.HasPrefix(string(b), "goroutine profile: total 2\n") || !strings.Contains(string(b), "main.serve") {
		t.Errorf("%s", b)
	}
}
