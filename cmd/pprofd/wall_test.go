package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// states are those of a profile's samples.
func states(p *profile.Profile) (all []string) {
	for _, s := range p.Sample {
		all = append(all, s.Label["state"]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestRecordWall: of a process that runs, with the CPU profile beside it, and of a program behind --.
func TestRecordWall(t *testing.T) {
	needs.BPF(t)
	path := testprog.Build(t, "shares", testprog.Options{})
	pid := fmt.Sprint(testprog.Start(t, path).PID)
	dir := t.TempDir()
	if code, _, errOut := call(t, "record", "-p", pid, "-t", "wall,cpu", "-d", "2s", "-o", dir); code != 0 {
		t.Fatal(errOut)
	}
	cpu, wall := readProfile(t, filepath.Join(dir, "shares-"+pid+".cpu.pb.gz")), readProfile(t, filepath.Join(dir, "shares-"+pid+".wall.pb.gz"))
	if holds(cpu, "main.(*worker).compute") == 0 || holds(wall, "main.(*worker).compute") < holds(cpu, "main.(*worker).compute") {
		t.Errorf("%d samples of computing, %d in the CPU profile", holds(wall, "main.(*worker).compute"), holds(cpu, "main.(*worker).compute"))
	}
	if got := states(wall); !slices.Contains(got, "running") || !slices.Contains(got, "waiting") {
		t.Errorf("states %q", got)
	}
	child := filepath.Join(dir, "child")
	if code, _, errOut := call(t, "record", "-t", "wall", "--state", "waiting", "-o", child, "--", path, "-life", "2s"); code != 0 {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	if p := readProfile(t, child); !slices.Equal(states(p), []string{"waiting"}) || holds(p, "main.(*worker).lock") == 0 {
		t.Errorf("states %q", states(p))
	}
}

// TestRecordWallRefuses what makes no sense, and says why.
func TestRecordWallRefuses(t *testing.T) {
	for text, args := range map[string][]string{
		"unknown state":  {"-t", "wall", "--state", "asleep"},
		"are for wall":   {"--reason", "select"},
		"wall-frequency": {"-t", "wall", "--wall-frequency", "0"},
	} {
		if code, _, errOut := call(t, append([]string{"record", "-p", "1"}, args...)...); code != exitUsage || !strings.Contains(errOut, text) {
			t.Errorf("%q: exit code %d: %s", args, code, errOut)
		}
	}
}

// TestRecordWallOfNothing says that nothing was seen of what was asked for.
func TestRecordWallOfNothing(t *testing.T) {
	p := testprog.Start(t, testprog.Build(t, "shares", testprog.Options{}))
	for reason, want := range map[string]bool{"no such reason": true, "chan receive": false} {
		code, _, errOut := call(t, "record", "-p", fmt.Sprint(p.PID), "-t", "wall", "--reason", reason, "--state", "waiting", "-d", "1s", "-o", filepath.Join(t.TempDir(), "x"))
		if code != 0 || strings.Contains(errOut, "no goroutine was seen") != want {
			t.Errorf("%s: exit code %d: %s", reason, code, errOut)
		}
	}
}
