package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

// byPID counts samples by the label pid and checks that comm stands beside it.
func byPID(t *testing.T, p *profile.Profile, comm string) map[string]int64 {
	t.Helper()
	count := map[string]int64{}
	for _, s := range p.Sample {
		if !slices.Equal(s.Label["comm"], []string{comm}) {
			t.Fatalf("labels %v", s.Label)
		}
		count[strings.Join(s.Label["pid"], ",")] += s.Value[0]
	}
	return count
}

func TestMergedProfileSaysWhoseSamplesTheyAre(t *testing.T) {
	a, b := spin(t), spin(t)
	cmd, _, errOut := command(t, "record", "-q", "-p", fmt.Sprintf("%d,%d", a.PID, b.PID), "-d", "1s", often, "--merge", "-o", "all.pb.gz")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	p := readProfile(t, filepath.Join(cmd.Dir, "all.pb.gz"))
	count := byPID(t, p, "spin")
	if len(count) != 2 || count[fmt.Sprint(a.PID)] < 20 || count[fmt.Sprint(b.PID)] < 20 {
		t.Errorf("samples by PID: %v", count)
	}
	if !strings.HasSuffix(p.Mapping[0].File, "/spin") {
		t.Errorf("the first mapping is %s", p.Mapping[0].File)
	}
}

// TestNumbersOfGoroutinesAndThreads: each thread of spin is one of the process's, and each of its goroutines owns one.
func TestNumbersOfGoroutinesAndThreads(t *testing.T) {
	target := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=3", "-seconds=60")
	cmd, _, errOut := command(t, "record", "-q", "-p", fmt.Sprint(target.PID), "-d", "1s", often, "--goid", "--tid")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	goids := map[int64]map[int64]bool{} // of each thread
	for _, s := range readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz")).Sample {
		if !slices.ContainsFunc(s.Location, func(l *profile.Location) bool { return len(l.Line) > 0 && l.Line[0].Function.Name == "main.thread" }) {
			continue
		}
		if len(s.NumLabel["tid"]) != 1 || len(s.NumLabel["goid"]) != 1 {
			t.Fatalf("labels %v", s.NumLabel)
		}
		tid := s.NumLabel["tid"][0]
		if goids[tid] == nil {
			goids[tid] = map[int64]bool{}
		}
		goids[tid][s.NumLabel["goid"][0]] = true
	}
	all := map[int64]bool{}
	for tid, ids := range goids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", target.PID, tid)); err != nil {
			t.Errorf("%d is no thread of the target: %v", tid, err)
		}
		if len(ids) != 1 {
			t.Errorf("thread %d ran goroutines %v, and is locked to one", tid, ids)
		}
		for id := range ids {
			all[id] = true
		}
	}
	if len(goids) != 3 || len(all) != 3 {
		t.Errorf("%d threads and %d goroutines, want 3", len(goids), len(all))
	}
}

// kernelShare counts samples, and those with a kernel frame.
func kernelShare(p *profile.Profile) (kernel, all int64) {
	for _, s := range p.Sample {
		all += s.Value[0]
		if m := s.Location[0].Mapping; m != nil && m.File == "[kernel.kallsyms]" {
			kernel += s.Value[0]
		}
	}
	return kernel, all
}

func TestKernelFramesAreThereOrNot(t *testing.T) {
	_, with := mixed(t, testprog.Options{})
	if kernel, all := kernelShare(readProfile(t, with)); kernel*100 < all {
		t.Errorf("%d of %d samples have kernel frames, and the program does system calls", kernel, all)
	}
	_, without := mixed(t, testprog.Options{}, "--no-kernel")
	p := readProfile(t, without)
	if kernel, _ := kernelShare(p); kernel > 0 {
		t.Errorf("%d samples have kernel frames", kernel)
	}
	if n := holds(p, "syscall.Syscall") + holds(p, "syscall.RawSyscall") + holds(p, "internal/runtime/syscall.Syscall6") + holds(p, "internal/runtime/syscall/linux.Syscall6"); n == 0 {
		t.Error("without kernel frames the samples of system calls have gone, too")
	}
}

// TestTextAndFoldedOnStandardOutput: every line of folded stacks is a stack and a number, and only on a thread's own stack, such as in
// mcall, a function may be the whole stack; text is a table.
func TestTextAndFoldedOnStandardOutput(t *testing.T) {
	pid := fmt.Sprint(spin(t).PID)
	cmd, out, errOut := command(t, "record", "-q", "-p", pid, "-d", "500ms", often, "--format", "folded", "-o", "-")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	for line := range strings.Lines(out.String()) {
		i := strings.LastIndexByte(line, ' ')
		if n, err := strconv.Atoi(strings.TrimSpace(line[i+1:])); err != nil || n <= 0 || !strings.Contains(line[:max(i, 0)], ";") && !strings.HasPrefix(line, "runtime.") {
			t.Errorf("line %q", line)
		}
	}
	cmd, out, errOut = command(t, "record", "-q", "-p", pid, "-d", "500ms", often, "--format", "text", "-o", "-")
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "flat%") || !strings.Contains(out.String(), "main.alpha") {
		t.Errorf("%v, %s\n%s", err, errOut, out)
	}
}

// TestManyTargets records 300 processes by name, a file for each. All but four are stopped: this is not about load.
func TestManyTargets(t *testing.T) {
	const targets, running = 300, 4
	bin := copyAs(t, testprog.Build(t, "spin", testprog.Options{}), "pprofd-many")
	for i := range targets {
		p := testprog.Start(t, bin, "-threads=1", "-seconds=600")
		if i < running {
			continue
		}
		if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	cmd, _, errOut := command(t, "record", "-q", "--comm", "pprofd-many", "-d", "2s", often, "-o", "out")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	files, err := os.ReadDir(filepath.Join(cmd.Dir, "out"))
	if err != nil || len(files) != targets {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var n, full int64
	for _, f := range files {
		if in := holds(readProfile(t, filepath.Join(cmd.Dir, "out", f.Name())), "main.thread"); in > 0 {
			n, full = n+in, full+1
		}
	}
	if n < 300 || full != running {
		t.Errorf("%d samples in %d files, want samples in %d", n, full, running)
	}
	if notes := strings.Count(errOut.String(), "note:"); notes > 101 {
		t.Errorf("%d notes", notes)
	}
	t.Log(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss, "KiB")
}

// copyAs makes the program one of another name.
func copyAs(t *testing.T, bin, name string) string {
	t.Helper()
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
