package testprog

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// GCore writes a core file of a process, which goes on, as gcore does, and returns its path. It is large: all that is mapped is
// in it, also what the Go runtime has only reserved.
func GCore(t testing.TB, pid int) string {
	t.Helper()
	prefix := filepath.Join(t.TempDir(), "core")
	if out, err := exec.CommandContext(t.Context(), needs.Tool(t, "gcore"), "-o", prefix, fmt.Sprint(pid)).CombinedOutput(); err != nil {
		t.Fatalf("gcore: %v\n%s", err, out)
	}
	return fmt.Sprintf("%s.%d", prefix, pid)
}

// Crash starts the program at path as Start does, in a directory of its own, kills it with SIGABRT once it is ready, and returns the
// core file that the kernel writes of it. "": this machine hands core files to a program, or keeps none.
func Crash(t testing.TB, path string, args ...string) string {
	t.Helper()
	if c := CrashWith(t, CrashOptions{Signal: syscall.SIGABRT}, path, args...); c != nil {
		return c.Core
	}
	return ""
}

// CrashOptions say how a program ends.
type CrashOptions struct {
	Signal syscall.Signal // sent once it is ready; 0: it ends by itself
	Env    []string
}

// Crashed is a program that has ended.
type Crashed struct {
	PID    int
	Core   string // the file; it is removed when the test ends
	Stderr string
}

// CrashWith runs a program with GOTRACEBACK=crash until it has ended. nil: this machine hands core files to a program, or keeps none.
func CrashWith(t testing.TB, o CrashOptions, path string, args ...string) *Crashed {
	t.Helper()
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	if name := strings.TrimSpace(string(pattern)); name == "" || strings.ContainsAny(name, "|/%") {
		return nil
	}
	dir := t.TempDir()
	allowCores(t)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOTRACEBACK=crash"), o.Env...)
	out := ready{there: make(chan struct{})}
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(readyTimeout, func() { _ = cmd.Process.Kill() }).Stop() // it does not end, or has
	if o.Signal != 0 {
		select {
		case <-out.there:
		case <-time.After(readyTimeout):
			t.Error("the program does not get ready")
		}
		if err := cmd.Process.Signal(o.Signal); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait() // it was killed
	files, err := filepath.Glob(filepath.Join(dir, "core*"))
	if err != nil || len(files) == 0 {
		return nil
	}
	return &Crashed{PID: cmd.Process.Pid, Core: files[0], Stderr: errOut.String()}
}

// allowCores has this process, and those that it starts, write core files of any size until the test ends.
func allowCores(t testing.TB) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: was.Max, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &was); err != nil {
			t.Error(err)
		}
	})
}

// ready waits for the line that begins with this word.
type ready struct {
	text  bytes.Buffer
	there chan struct{}
	told  bool
}

func (r *ready) Write(b []byte) (int, error) {
	r.text.Write(b)
	if !r.told && bytes.Contains(r.text.Bytes(), []byte("ready")) {
		r.told = true
		close(r.there)
	}
	return len(b), nil
}
