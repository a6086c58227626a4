package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
