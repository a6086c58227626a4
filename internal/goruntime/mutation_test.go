package goruntime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// Limits that pprofd keeps with whatever file.
const (
	memoryLimit = 64 << 20        // resident, of the whole process
	timeLimit   = 4 * time.Second // CPU time for one file
)

// childEnv makes the test binary a child of TestMutations: it holds what the child is to do.
const childEnv = "PPROFD_TEST_MUTATIONS"

// task is what a child does.
type task struct {
	Programs  []string
	Mutations int
	XZ, Zlib  string // files of compressed zeros
	Hog       int    // allocate so many MiB, to see whether the limit limits
}

// report is what a child says of its files.
type report struct {
	Files, Opened, Go, Layouts, Profiles int
	MaxMemory                            int64 // bytes resident
	MaxTime                              time.Duration
	MemoryAt, TimeAt                     string
	Invalid                              []string // what was built of which file, and is no valid profile; and bombs that are none
}

// TestMutations opens a thousand mutations of real programs, and a few files made to cost as much as possible, and does with
// each all that pprofd does with a program. It does so in a child that cannot have more than 64 MiB of heap: it would die;
// what it has at most in memory at any time, and how long each file takes, is measured beside that.
func TestMutations(t *testing.T) {
	todo := task{Programs: mutationPrograms(t), Mutations: 1000, XZ: compressed(t, xzZeros), Zlib: compressed(t, zlibZeros)}
	if os.Getenv("PPROFD_FULL") != "" {
		todo.Mutations = 20_000
	}
	out, err := runChild(t, todo)
	var r report
	if err != nil || json.Unmarshal(out, &r) != nil {
		t.Fatalf("the child has died of a file: %v\n%s", err, head(out))
	}
	t.Logf("%d files of %d programs: %d opened, %d Go, %d layouts, %d profiles; at most %.1f MB resident (%s), %v CPU (%s)", r.Files,
		len(todo.Programs), r.Opened, r.Go, r.Layouts, r.Profiles, float64(r.MaxMemory)/(1<<20), r.MemoryAt, r.MaxTime.Round(time.Millisecond), r.TimeAt)
	if r.MaxMemory > memoryLimit {
		t.Errorf("%d MiB resident with %s, limit %d", r.MaxMemory>>20, r.MemoryAt, memoryLimit>>20)
	}
	if r.MaxTime > timeLimit {
		t.Errorf("%s took %v of CPU time, limit %v", r.TimeAt, r.MaxTime, timeLimit)
	}
	for _, what := range r.Invalid {
		t.Error(what)
	}
	// Mutations that nothing can be read of any more would show nothing.
	if r.Files < todo.Mutations || r.Opened < r.Files/2 || r.Go < r.Files/4 || r.Layouts < r.Files/5 {
		t.Errorf("too few of %d files were worth reading: %+v", todo.Mutations, r)
	}
}

// The limit of TestMutations is one: a child that takes more dies.
func TestMemoryLimitLimits(t *testing.T) {
	if out, err := runChild(t, task{Hog: 30}); err != nil {
		t.Errorf("a child that takes 30 MiB has died: %v\n%s", err, head(out))
	}
	if out, err := runChild(t, task{Hog: 100}); err == nil {
		t.Errorf("a child that takes 100 MiB has lived\n%s", head(out))
	}
}

// head is where a dying program says why.
func head(b []byte) []byte { return b[:min(3000, len(b))] }

func runChild(t *testing.T, todo task) ([]byte, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env, err := json.Marshal(todo)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^TestMutationChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+string(env), "GOGC=100", "GOMEMLIMIT=off")
	out, err := cmd.CombinedOutput()
	line, _, _ := bytes.Cut(out, []byte("\n"))
	if err == nil {
		out = line
	}
	return out, err
}

// mutationPrograms are real programs: Go of several versions and ways to build, and C.
func mutationPrograms(t *testing.T) (paths []string) {
	t.Helper()
	versions := testprog.Versions()
	for _, version := range versions {
		for _, o := range []testprog.Options{{}, {Strip: true}, {PIE: true}, {PIE: true, Strip: true}, {Arch: "arm64"}} {
			o.Go = version
			paths = append(paths, testprog.Build(t, "hello", o))
		}
		paths = append(paths, testprog.Build(t, "hellocgo", testprog.Options{Go: version, Cgo: true}))
	}
	return append(paths, buildC(t, "-g", "-static", "-gz=zlib"), buildC(t, "-g"), buildC(t, "-s", "-shared", "-fPIC"))
}

func buildC(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	source, out := filepath.Join(dir, "p.c"), filepath.Join(dir, "p")
	code := "#include <stdio.h>\nstatic int f(int x) { return x + 1; }\nint main(void) { return printf(\"%d\\n\", f(1)); }\n"
	if err := os.WriteFile(source, []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), needs.Tool(t, "gcc"), append(args, "-o", out, source)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, msg)
	}
	return out
}

// TestMutationChild is the child.
func TestMutationChild(t *testing.T) {
	env := os.Getenv(childEnv)
	if env == "" {
		t.Skip("it is run by TestMutations")
	}
	var todo task
	if err := json.Unmarshal([]byte(env), &todo); err != nil {
		t.Fatal(err)
	}
	limitHeap(t)
	if todo.Hog > 0 {
		hog := bytes.Repeat([]byte{1}, todo.Hog<<20)
		t.Logf("%d bytes", len(hog))
		return
	}
	r := judge{report: &report{}}
	for i := range todo.Mutations {
		b := openBase(t, todo.Programs[i%len(todo.Programs)])
		b.mutate(uint64(i))
		r.file(t, b, fmt.Sprintf("mutation %d of %s: %s", i, b.path, strings.Join(b.edits, ", ")))
		b.close()
	}
	c := todo.Programs[len(todo.Programs)-2:] // with symbols and debug information, and without
	for name, bomb := range bombs(readBlob(t, todo.XZ), readBlob(t, todo.Zlib)) {
		i := 1
		if bomb.symbols {
			i = 0
		}
		b := openBase(t, c[i])
		bomb.lay(b)
		if cost := r.file(t, b, name); cost < 10*time.Millisecond {
			r.Invalid = append(r.Invalid, fmt.Sprintf("%s: costs %v: a dud", name, cost))
		}
		b.close()
	}
	line, err := json.Marshal(r.report)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s\n", line)
}

// limitHeap lets the kernel refuse more than memoryLimit of memory beyond what the process has already: that is the end of it.
func limitHeap(t *testing.T) {
	t.Helper()
	limit := statusBytes(t, "VmData:") + memoryLimit
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: uint64(limit), Max: uint64(limit)}); err != nil {
		t.Fatal(err)
	}
}

// compressed is a file of what data makes.
func compressed(t *testing.T, data func() []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, data(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func readBlob(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// statusBytes reads a size in /proc/self/status.
func statusBytes(t *testing.T, key string) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key); ok {
			kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s in /proc/self/status", key)
	return 0
}

// resetPeak makes VmHWM begin anew (proc_pid_clear_refs(5)); where that is not allowed it stays the highest of all.
func resetPeak() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
