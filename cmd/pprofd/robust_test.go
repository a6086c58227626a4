package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestOutputThatVanishesIsTold: what was sampled is lost then, but not in silence.
func TestOutputThatVanishesIsTold(t *testing.T) {
	a, b := spin(t), spin(t)
	for name, args := range map[string][]string{
		"file":      {"-p", fmt.Sprint(a.PID), "-o", "gone/x.pb.gz"},
		"directory": {"-p", fmt.Sprint(a.PID), "-p", fmt.Sprint(b.PID), "-o", "gone"},
	} {
		cmd, _, errOut := command(t, append([]string{"record", "-d", "2s"}, args...)...)
		gone := filepath.Join(cmd.Dir, "gone")
		if err := os.Mkdir(gone, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "pprofd samples", func() bool { return hasEvents(cmd.Process.Pid) })
		time.Sleep(300 * time.Millisecond)
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, cmd.Wait()); code != exitFailure || !strings.Contains(errOut.String(), "gone") || !strings.Contains(errOut.String(), "not saved") {
			t.Errorf("%s: exit code %d, %q", name, code, errOut)
		}
	}
}

// TestFullDisk: the error is told, and neither half a profile nor a temporary file is left.
func TestFullDisk(t *testing.T) {
	needs.Root(t)
	cmd, _, errOut := command(t, "record", "-q", "-p", fmt.Sprint(spin(t).PID), "-d", "1s", often, "-o", "small/x.pb.gz")
	small := filepath.Join(cmd.Dir, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(needs.Tool(t, "mount"), "-t", "tmpfs", "-o", "size=4k", "none", small).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a small file system: %v %s", err, out)
	}
	defer func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) }()
	if err := os.WriteFile(filepath.Join(small, "fill"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Run()); code != exitFailure || !strings.Contains(errOut.String(), "no space left") {
		t.Errorf("exit code %d, %q", code, errOut)
	}
	left, err := os.ReadDir(small)
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestTargetThatIsKilledIsWritten: whatever ends the target.
func TestTargetThatIsKilledIsWritten(t *testing.T) {
	p := spin(t)
	cmd, _, errOut := command(t, "record", "-p", fmt.Sprint(p.PID), "-d", "1m", often)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "pprofd samples", func() bool { return hasEvents(cmd.Process.Pid) })
	time.Sleep(700 * time.Millisecond)
	p.Stop()
	if err := cmd.Wait(); err != nil || !strings.Contains(errOut.String(), "has exited") {
		t.Errorf("%v, %q", err, errOut)
	}
	wantSpin(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
}

// TestHighestFrequency counts what is lost, and loses nothing in silence.
func TestHighestFrequency(t *testing.T) {
	p := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=2", "-seconds=60")
	cmd, _, errOut := command(t, "record", "-q", "-p", fmt.Sprint(p.PID), "-d", "2s", "-F", "9999")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var before time.Duration
	until(t, "pprofd samples", func() bool { before = cpuTime(t, p.PID); return hasEvents(cmd.Process.Pid) })
	until(t, "it samples no more", func() bool { return !hasEvents(cmd.Process.Pid) })
	used := cpuTime(t, p.PID) - before // more than was sampled
	if err := cmd.Wait(); err != nil {
		t.Fatal(err, errOut)
	}
	prof := readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
	n, cpu := sum(prof)
	t.Logf("%d samples, %d lost, %v of at most %v", n, holds(prof, "[lost]"), cpu, used)
	if cpu > used*11/10 || cpu < used/2 {
		t.Errorf("weights sum to %v, the target used %v in all", cpu, used)
	}
}

// cpuTime of a process that runs.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := discover.NewInspector(procRoot).Proc(pid).Stat()
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(stat.UTime+stat.STime) * 10 * time.Millisecond
}

// TestTwoThousandThreads: each of them is the process's. They are nice: all of them want the CPU, and so does pprofd.
func TestTwoThousandThreads(t *testing.T) {
	spin := testprog.Build(t, "spin", testprog.Options{})
	p := testprog.Start(t, "nice", "-n", "19", spin, "-threads=2000", "-seconds=60", "-unit=100us")
	cmd, _, errOut := command(t, "record", "-q", "-p", fmt.Sprint(p.PID), "-d", "1s", "-F", "997", "--tid")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	tids := map[int64]bool{}
	prof := readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
	for _, s := range prof.Sample {
		for _, tid := range s.NumLabel["tid"] {
			tids[tid] = true
		}
	}
	n, _ := sum(prof)
	t.Logf("%d samples of %d threads, %d lost", n, len(tids), holds(prof, "[lost]"))
	if len(tids) < 100 || holds(prof, "main.thread") < n/2 {
		t.Errorf("%d samples of %d threads", n, len(tids))
	}
}

// builtPprofd is the program as users build it.
func builtPprofd(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "pprofd")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// runPeak runs a command and returns the peak of its RSS in KiB, as it was some milliseconds before its end. (The rusage
// of a process has its parent's RSS at the fork in it: linux/fs/exec.c, exec_mmap.)
func runPeak(cmd *exec.Cmd) (peak int, err error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return peak, err
		case <-time.After(5 * time.Millisecond):
			peak = max(peak, highWater(cmd.Process.Pid))
		}
	}
}

// highWater is VmHWM of a process in KiB, 0 where it has ended.
func highWater(pid int) (kib int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if _, rest, ok := strings.Cut(string(status), "\nVmHWM:"); ok {
		_, _ = fmt.Sscan(rest, &kib)
	}
	return kib
}

// TestPeakMemoryAndTime holds the costs of profiling two busy cores at 99 Hz.
func TestPeakMemoryAndTime(t *testing.T) {
	p := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=2", "-seconds=60")
	cmd, _, errOut := command(t, "record", "-q", "-p", fmt.Sprint(p.PID), "-d", "5s")
	cmd.Path = builtPprofd(t) // not this test, which links more than users get
	peak, err := runPeak(cmd)
	if err != nil || peak == 0 {
		t.Fatal(peak, err, errOut)
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	t.Logf("peak RSS %d KiB, %v of CPU time", peak, cpu)
	if peak > 30<<10 {
		t.Errorf("peak RSS %d KiB, want at most 30 MiB", peak)
	}
	if cpu > 500*time.Millisecond {
		t.Errorf("%v of CPU time for 5 s", cpu)
	}
}
