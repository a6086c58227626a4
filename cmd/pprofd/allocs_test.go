package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestRecordAllocsBySource: a process without a memory profile is probed, one with a profile is read, unless asked otherwise;
// both say so in the file.
func TestRecordAllocsBySource(t *testing.T) {
	needs.BPF(t)
	for name, tt := range map[string]struct {
		program string
		args    []string
		flags   []string
		says    string
		columns int
	}{
		"linked out":         {"alloc", []string{"-now", "-rate", "50"}, nil, "spans of memory are used up", 2},
		"linked out, probe":  {"alloc", []string{"-now", "-rate", "50"}, []string{"--alloc-source", "probe", "--alloc-budget", "0"}, "spans of memory are used up", 2},
		"profile":            {"heap", []string{"-busy"}, nil, "the Go runtime's own memory profile", 4},
		"profile, probe":     {"heap", []string{"-busy"}, []string{"--alloc-source", "probe"}, "one in 512 bytes", 2},
		"switched off":       {"heap", []string{"-busy", "-rate", "0"}, nil, "spans of memory are used up", 2},
		"with cpu":           {"alloc", []string{"-now", "-rate", "50"}, []string{"-t", "cpu"}, "spans of memory are used up", 2},
		"behind --, by file": {"alloc", []string{"-now", "-rate", "50", "-life", "3s"}, []string{"--alloc-source", "probe"}, "spans of memory are used up", 2},
	} {
		t.Run(name, func(t *testing.T) {
			path := testprog.Build(t, tt.program, testprog.Options{})
			args := append([]string{"record", "-t", "allocs", "-d", "1500ms", "-o", "out/"}, tt.flags...)
			if strings.HasPrefix(name, "behind") {
				args = append(append(args, "--", path), tt.args...)
			} else {
				args = append(args, "-p", fmt.Sprint(testprog.Start(t, path, tt.args...).PID))
			}
			cmd, _, errOut := command(t, args...)
			if err := cmd.Run(); err != nil {
				t.Fatal(err, errOut)
			}
			p := allocsIn(t, filepath.Join(cmd.Dir, "out"))
			if comments := strings.Join(p.Comments, "\n"); !strings.Contains(comments, tt.says) || len(p.SampleType) != tt.columns || len(p.Sample) == 0 {
				t.Errorf("%d samples of %d columns, comments %s", len(p.Sample), len(p.SampleType), comments)
			}
			if tt.columns == 2 && !strings.Contains(errOut.String(), tt.says) {
				t.Errorf("standard error has %s", errOut)
			}
		})
	}
}

// TestMergeOfReadAndProbed: they have different columns, whichever comes first.
func TestMergeOfReadAndProbed(t *testing.T) {
	needs.BPF(t)
	probed := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-now", "-rate", "50").PID
	read := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-busy").PID
	for _, pids := range []string{fmt.Sprintf("%d,%d", probed, read), fmt.Sprintf("%d,%d", read, probed)} {
		cmd, _, errOut := command(t, "record", "-t", "allocs", "--merge", "-d", "100ms", "-p", pids)
		if err := cmd.Run(); exitCode(t, err) != 1 || !strings.Contains(errOut.String(), "--merge cannot join") {
			t.Errorf("%v, %s", err, errOut)
		}
	}
}

// allocsIn reads the one profile of allocations in a directory.
func allocsIn(t *testing.T, dir string) *profile.Profile {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.allocs.pb.gz"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.ParseData(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestKilledRecordLeavesNothing: kill -9 of pprofd takes the breakpoints out of the target.
func TestKilledRecordLeavesNothing(t *testing.T) {
	needs.BPF(t)
	proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-now", "-rate", "50")
	code := func() []byte {
		t.Helper()
		f, err := os.Open(fmt.Sprintf("/proc/%d/mem", proc.PID))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 256<<10) // the beginning of the text: the allocator is there
		if _, err := f.ReadAt(b, 0x401000); err != nil {
			t.Fatal(err)
		}
		return b
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("20 s later the code is not %s", what)
			}
		}
	}
	before := code()
	cmd, _, _ := command(t, "record", "-t", "allocs", "-d", "1m", "-p", fmt.Sprint(proc.PID))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until("probed", func() bool { return !bytes.Equal(code(), before) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	until("as before", func() bool { return bytes.Equal(code(), before) })
}
