package leaks

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

// leakEnv says what the child that TestRunFails starts is to leave behind.
const leakEnv = "PPROFD_LEAK"

// kept keeps what is leaked from the garbage collector, whose finalizers would close it.
var kept []any

var leak = map[string]func(t *testing.T){
	"nothing":   func(*testing.T) {},
	"goroutine": func(*testing.T) { go blockForEver() },
	"file": func(t *testing.T) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, f)
	},
	"mapping": func(t *testing.T) {
		fd := perfEvent(t)
		mem, err := unix.Mmap(fd, 0, 2*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, mem)
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
	},
	"event": func(t *testing.T) { kept = append(kept, perfEvent(t)) },
}

func blockForEver() { select {} }

// perfEvent is a kernel object that is no file, as BPF objects are.
func perfEvent(t *testing.T) int {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		needs.Missing(t, "bpf", "no perf events: "+err.Error())
	}
	return fd
}

// TestLeak is the test that leaks, in a process of its own.
func TestLeak(t *testing.T) {
	if f := leak[os.Getenv(leakEnv)]; f != nil {
		f(t)
	}
}

// TestRunFails: tests that pass and leave something behind end with exit code 1 and its name.
func TestRunFails(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		needs.Missing(t, "proc", err.Error())
	}
	for what, want := range map[string]string{
		"nothing":   "",
		"goroutine": "leaks.blockForEver",
		"file":      "/dev/null",
		"event":     "file descriptor",
		"mapping":   "anon_inode:[perf_event]",
	} {
		t.Run(what, func(t *testing.T) {
			if what == "event" || what == "mapping" {
				needs.BPF(t)
			}
			code, out := leaking(t, what)
			switch {
			case want == "" && code != 0:
				t.Errorf("exit code %d without a leak:\n%s", code, out)
			case want != "" && code != 1:
				t.Errorf("exit code %d, want 1:\n%s", code, out)
			case want != "" && !strings.Contains(out, want):
				t.Errorf("the message does not say %q:\n%s", want, out)
			}
		})
	}
}

// leaking runs TestLeak in a child and returns how it ended and what it wrote to stderr.
func leaking(t *testing.T, what string) (code int, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLeak$")
	cmd.Env = append(os.Environ(), leakEnv+"="+what)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

func TestWhatEndsIsNoLeak(t *testing.T) {
	before := take()
	end := make(chan struct{})
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-end }()
	if left := before.left(0); len(left) != 2 {
		t.Errorf("left %q, want the file and the goroutine", left)
	}
	f.Close()
	close(end)
	if left := before.left(time.Second); len(left) != 0 {
		t.Errorf("left %q after the end", left)
	}
}

// TestEveryPackage: no package's tests go without. needs is below leaks; smoke and job run in other programs' tests; what has a
// go.mod of its own is another module.
func TestEveryPackage(t *testing.T) {
	const root = "../../.."
	with, without := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "targets" || d.Name() == "tools" || strings.HasPrefix(d.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); d.IsDir() && path != root && err == nil {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if dir := filepath.Dir(path); bytes.Contains(src, []byte("leaks.Run(m)")) {
			with[dir] = true
		} else {
			without[dir] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range without {
		if !with[dir] && filepath.Base(dir) != "leaks" {
			t.Errorf("the tests of %s have no TestMain that calls leaks.Run", dir)
		}
	}
	if len(with) < 10 {
		t.Errorf("only %d packages found below %s", len(with), root)
	}
}
