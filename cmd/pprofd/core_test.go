package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestCoreFile: what gcore has written of a process is enough for its profiles and its goroutines, once it is gone.
func TestCoreFile(t *testing.T) {
	own, dir := t.TempDir(), filepath.Join(t.TempDir(), "out")
	proc := testprog.Start(t, testprog.Build(t, "contend", testprog.Options{Strip: true, PIE: true}), "-dir", own)
	core := testprog.GCore(t, proc.PID)
	proc.Stop()
	code, out, errOut := call(t, "record", "--core", core, "-t", "block,mutex,heap,goroutine", "-o", dir)
	if code != 0 || !strings.Contains(out, "main.main") || errOut != "" {
		t.Fatalf("exit code %d, %s\n%s", code, out, errOut)
	}
	for _, kind := range []string{"block", "mutex"} {
		want := readProfile(t, filepath.Join(own, kind))
		got := readProfile(t, filepath.Join(dir, fmt.Sprintf("contend-%d.%s.pb.gz", proc.PID, kind)))
		for _, fn := range []string{"main.locked", "main.shared", "main.signalled"} {
			if n, m := holds(got, fn), holds(want, fn); n != m {
				t.Errorf("%s: %d events below %s, want %d", kind, n, fn, m)
			}
		}
	}
	if p := readProfile(t, filepath.Join(dir, fmt.Sprintf("contend-%d.goroutine.pb.gz", proc.PID))); holds(p, "main.main") != 1 {
		t.Errorf("the main goroutine is not in the profile of goroutines: %v", p)
	}
	code, out, errOut = call(t, "dump", "--core", core)
	if code != 0 || !strings.Contains(out, fmt.Sprintf("process %d (contend)", proc.PID)) || !strings.Contains(out, "1 goroutine: sleep\n") ||
		!strings.Contains(out, "main.main\n") {
		t.Errorf("exit code %d, %s\n%s", code, out, errOut)
	}
}

// TestCoreFileUsage: what a core file cannot give is refused before it is opened.
func TestCoreFileUsage(t *testing.T) {
	for _, args := range []string{
		"record --core x", "record --core x -t allocs", "record --core x -t heap -d 3s", "record --core x -t heap -p 1", "record --core-exe x -p 1",
		"record --core x -t heap --on-oom", "dump --core x -p 1", "dump --core x --stuck 3s", "dump --core-exe x -p 1", "record --core x -t heap -- true",
	} {
		if code, _, errOut := call(t, strings.Fields(args)...); code != exitUsage || errOut == "" {
			t.Errorf("%s: exit code %d, %s", args, code, errOut)
		}
	}
	code, _, errOut := call(t, "dump", "--core", filepath.Join(t.TempDir(), "none"))
	if code == 0 || !strings.Contains(errOut, "no such file") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}
