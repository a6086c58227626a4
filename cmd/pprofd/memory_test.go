package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestRecordHeap: the heap of a process is there at once, with the sums that the process's own profile has; go tool pprof's
// default is what is in use.
func TestRecordHeap(t *testing.T) {
	own := filepath.Join(t.TempDir(), "own")
	proc := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{Strip: true}), "-profile", own)
	cmd, out, errOut := command(t, "record", "-t", "heap", "-p", fmt.Sprint(proc.PID))
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	got, want := readProfile(t, filepath.Join(cmd.Dir, "heap.pb.gz")), readProfile(t, own)
	if a, b := sums(got), sums(want); !slices.Equal(a, b) || len(a) != 4 || a[3] < 1<<20 {
		t.Errorf("sums %v, want %v", a, b)
	}
	if !strings.Contains(out.String(), "main.sites") || strings.Contains(out.String(), "samples") {
		t.Errorf("summary: %s", out)
	}
}

func sums(p *profile.Profile) []int64 {
	sums := make([]int64, len(p.SampleType))
	for _, s := range p.Sample {
		for i, v := range s.Value {
			sums[i] += v
		}
	}
	return sums
}

// TestRecordKinds: several kinds in one run are a file each; those of a program that is started begin with it.
func TestRecordKinds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	cmd, _, errOut := command(t, "record", "-t", "cpu,allocs,heap", "-d", "2s", often, "-o", dir, "--",
		testprog.Build(t, "heap", testprog.Options{}), "-busy", "-life", "3s")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	for _, kind := range []string{"cpu", "allocs", "heap"} {
		files, err := filepath.Glob(filepath.Join(dir, "heap-*."+kind+".pb.gz"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %v %v", kind, files, err)
		}
		p := readProfile(t, files[0])
		if len(p.Sample) == 0 || filepath.Base(p.Mapping[0].File) != "heap" {
			t.Errorf("%s: %d samples, of %v", kind, len(p.Sample), p.Mapping[0])
		}
		if kind == "allocs" && (p.DefaultSampleType != "alloc_space" || holds(p, "main.sites") == 0) {
			t.Errorf("allocs: %s shown, %d objects of main.sites", p.DefaultSampleType, holds(p, "main.sites"))
		}
	}
}

// TestRecordHeapRefused says why there is none, and leaves no file.
func TestRecordHeapRefused(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
	cmd, _, errOut := command(t, "record", "-t", "heap", "-p", fmt.Sprint(proc.PID))
	if err := cmd.Run(); err == nil || !strings.Contains(errOut.String(), "linked out") || !strings.Contains(errOut.String(), "net/http/pprof") {
		t.Errorf("%v: %s", err, errOut)
	}
	if _, err := os.Stat(filepath.Join(cmd.Dir, "heap.pb.gz")); err == nil {
		t.Error("a file was written")
	}
}

// TestRecordHeapOfProgramThatEnds: what is read at the end of -d needs a process that still runs.
func TestRecordHeapOfProgramThatEnds(t *testing.T) {
	cmd, _, errOut := command(t, "record", "-t", "heap", "-d", "20s", "--", testprog.Build(t, "heap", testprog.Options{}), "-life", "100ms")
	if err := cmd.Run(); err == nil || !strings.Contains(errOut.String(), "give a shorter -d") {
		t.Errorf("%v: %s", err, errOut)
	}
}

// TestRecordHeapEndsWithItsProcess: nobody waits for the end of -d for what cannot be read any more.
func TestRecordHeapEndsWithItsProcess(t *testing.T) {
	heap := testprog.Build(t, "heap", testprog.Options{})
	proc := testprog.Start(t, heap, "-quiet", "-busy")
	cmd, _, errOut := command(t, "record", "-t", "heap,allocs", "-d", "1h", "-p", fmt.Sprint(proc.PID), "-o", filepath.Join(t.TempDir(), "out"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitReading(t, cmd, heap)
	proc.Stop()
	hang := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer hang.Stop()
	if code := exitCode(t, cmd.Wait()); code != exitFailure || !strings.Contains(errOut.String(), "ended before its heap profile was read") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

// TestRecordTellsWhatItHas where a process ends before all could be read of it.
func TestRecordTellsWhatItHas(t *testing.T) {
	heap := testprog.Build(t, "heap", testprog.Options{})
	proc := testprog.Start(t, heap, "-quiet", "-busy")
	dir := filepath.Join(t.TempDir(), "out")
	cmd, out, errOut := command(t, "record", "-t", "cpu,heap,goroutine", "-d", "1h", "-p", fmt.Sprint(proc.PID), "-o", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitReading(t, cmd, heap)
	proc.Stop()
	if code := exitCode(t, cmd.Wait()); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	want := fmt.Sprintf("pprofd: process %d (heap) ended before its goroutine profile was read\nprocess %[1]d (heap) ended before its heap profile was read\n", proc.PID)
	if !strings.HasSuffix(errOut.String(), want) {
		t.Errorf("%q, want %q", errOut, want)
	}
	file := filepath.Join(dir, fmt.Sprintf("heap-%d.cpu.pb.gz", proc.PID))
	if readProfile(t, file); !strings.Contains(out.String(), file+": go tool pprof "+file) {
		t.Errorf("%s is not told of: %s", file, out)
	}
}

// TestRecordOnOOM: the file is there once the kernel has killed the process, and says what it holds.
func TestRecordOnOOM(t *testing.T) {
	begin := filepath.Join(t.TempDir(), "begin")
	leak := testprog.Build(t, "leak", testprog.Options{})
	proc := testprog.StartLimited(t, 96<<20, leak, "-begin", begin)
	cmd, out, errOut := command(t, "record", "-t", "heap", "--on-oom", "-p", fmt.Sprint(proc.PID))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitReading(t, cmd, leak)
	if err := os.WriteFile(begin, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err, errOut)
	}
	p := readProfile(t, filepath.Join(cmd.Dir, "heap.pb.gz"))
	told := strings.Join(p.Comments, "\n")
	if !strings.Contains(told, "killed for lack of memory (OOM): the heap was read ") || !strings.Contains(errOut.String(), "the heap was read ") {
		t.Errorf("comments %s\n%s", told, errOut)
	}
	if sum := sums(p)[3]; sum < 1<<20 || sum > 128<<20 || holds(p, "main.large") == 0 || !strings.Contains(out.String(), "main.large") {
		t.Errorf("%d bytes in use; %s", sum, out)
	}
}

// TestRecordOnOOMWithoutOne ends with an exit code of its own, and leaves no file.
func TestRecordOnOOMWithoutOne(t *testing.T) {
	leak := testprog.Build(t, "leak", testprog.Options{})
	proc := testprog.Start(t, leak, "-most", "1")
	endsWithoutOOM(t, proc.PID, leak, []string{"-d", "1s"}, func(*os.Process) {})
	endsWithoutOOM(t, proc.PID, leak, nil, func(p *os.Process) { _ = p.Signal(os.Interrupt) })
	endsWithoutOOM(t, proc.PID, leak, nil, func(*os.Process) { proc.Stop() })
}

func endsWithoutOOM(t *testing.T, pid int, program string, args []string, end func(*os.Process)) {
	t.Helper()
	cmd, _, errOut := command(t, append([]string{"record", "-t", "heap", "--on-oom", "-p", fmt.Sprint(pid)}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitReading(t, cmd, program)
	end(cmd.Process)
	if code := exitCode(t, cmd.Wait()); code != exitNoOOM || !strings.Contains(errOut.String(), "no process was killed for lack of memory; nothing was written") {
		t.Errorf("%v: exit code %d, %s", args, code, errOut)
	}
	if left, err := os.ReadDir(cmd.Dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}

// TestOnOOMIsForHeaps: what else was asked for is not left out in silence.
func TestOnOOMIsForHeaps(t *testing.T) {
	for _, args := range [][]string{{"-p", "1"}, {"-p", "1", "-t", "heap,cpu"}, {"-t", "heap", "--", "true"}, {"-p", "1", "-t", "heap", "--merge"}} {
		if code, _, errOut := call(t, append([]string{"record", "--on-oom"}, args...)...); code != exitUsage || !strings.Contains(errOut, "--on-oom") {
			t.Errorf("%v: exit code %d, %s", args, code, errOut)
		}
	}
}
