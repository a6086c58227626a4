package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestShortRun: each window is measured once, from inside and from outside; the load is seen. What it costs is not judged.
func TestShortRun(t *testing.T) {
	needs.BPF(t)
	o := &realOptions{
		cpu: 5, maxHz: 199, window: time.Second, keep: t.TempDir(), picture: filepath.Join(t.TempDir(), "x.svg"),
		stages: []stage{{"idle", 2, nil}, {"one-core", 2, [][]string{{"-procs", "1", "-clients", "2"}}}},
	}
	var out strings.Builder
	if err := realRun(t.Context(), &out, o); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"BenchmarkGovernor/stage=idle/window=1 1 ", "BenchmarkGovernor/stage=one-core/window=1 1 ", "BenchmarkTick 1 ", "# 4 windows of 1s, budget 5 % of the CPUs",
		"# windows over the budget, from outside ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if svg, err := os.ReadFile(o.picture); err != nil || !strings.Contains(string(svg), "measured from outside") {
		t.Errorf("picture: %d bytes, %v", len(svg), err)
	}
	if log, err := os.ReadFile(filepath.Join(o.keep, "agent.log")); err != nil || !strings.Contains(string(log), "the end") {
		t.Errorf("log of the agent: %q, %v", log, err)
	}
}

func TestProcessClock(t *testing.T) {
	before, err := processClock(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for i := range 20_000_000 {
		sum += i
	}
	if now, err := processClock(os.Getpid()); err != nil || now <= before || now > before+time.Minute {
		t.Errorf("%v after %v, %v, sum %d", now, before, err, sum)
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := processClock(cmd.Process.Pid); err == nil {
		t.Error("a process that has ended has a clock")
	}
}
