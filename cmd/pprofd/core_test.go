package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
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
		"record --core x -t heap --on-oom", "dump --core x -p 1", "dump --core x --stuck 3s", "dump --core-exe x -p 1", "dump --core x --json -o y",
		"dump --core x --each --json", "dump --core x --state sleeping", "dump --core x --running 2m", "record --core x -t heap -- true",
	} {
		if code, _, errOut := call(t, strings.Fields(args)...); code != exitUsage || errOut == "" {
			t.Errorf("%s: exit code %d, %s", args, code, errOut)
		}
	}
	dir := t.TempDir()
	for name, says := range map[string]string{filepath.Join(dir, "none"): "none: no such file", dir: dir + ": not a regular file"} {
		if code, _, errOut := call(t, "dump", "--core", name); code == 0 || !strings.Contains(errOut, says) {
			t.Errorf("exit code %d, %s", code, errOut)
		}
	}
}

// TestCoreOfNil: what the processor raised is told, though the runtime has handled it, panicked, and sent another signal.
func TestCoreOfNil(t *testing.T) {
	c := testprog.CrashWith(t, testprog.CrashOptions{}, testprog.Build(t, "crash", testprog.Options{}), "nil")
	if c == nil {
		t.Skip("this machine hands core files to a program, or keeps none")
	}
	code, out, errOut := call(t, "dump", "--core", c.Core)
	said := regexp.MustCompile(`\[signal SIGSEGV: .* addr=(0x[0-9a-f]+) `).FindStringSubmatch(c.Stderr)
	if len(said) != 2 {
		t.Fatalf("%.300s", c.Stderr)
	}
	if want := "\nended by SIGABRT, which it sent itself, in goroutine 1, after SIGSEGV at address " + said[1] + "\n"; code != 0 || !strings.Contains(out, want) {
		t.Errorf("exit code %d, %q; want %q in\n%.300s", code, errOut, want, out)
	}
}

// TestCoreOfCrash: in the profile of goroutines, too, those have their stacks that ran.
func TestCoreOfCrash(t *testing.T) {
	c := testprog.CrashWith(t, testprog.CrashOptions{}, testprog.Build(t, "crash", testprog.Options{}), "panic")
	if c == nil {
		t.Skip("this machine hands core files to a program, or keeps none")
	}
	name := filepath.Join(t.TempDir(), "goroutine.pb.gz")
	code, out, errOut := call(t, "record", "--core", c.Core, "-t", "goroutine", "-o", name)
	if code != 0 || errOut != "" {
		t.Fatalf("exit code %d, %s\n%s", code, out, errOut)
	}
	p := readProfile(t, name)
	if holds(p, "main.boom") != 1 || holds(p, "main.known") < 5 {
		t.Errorf("who ran is not there: %v", p)
	}
	if !slices.Contains(p.Comments, "goroutines of a core file") {
		t.Errorf("comments %q", p.Comments)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var stdout, stderr bytes.Buffer
	code = run(ctx, &stdout, &stderr, []string{"dump", "--core", c.Core})
	if code != exitSignal+int(syscall.SIGINT) || stdout.Len() > 0 || !strings.Contains(stderr.String(), "interrupted before") {
		t.Errorf("interrupted: exit code %d, %q, %q", code, &stdout, &stderr)
	}
}
