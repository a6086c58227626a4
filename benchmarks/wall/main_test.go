package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// TestRun measures everything once: both profilers see what goroutines do, and the program that is held up says so.
func TestRun(t *testing.T) {
	needs.BPF(t)
	var out bytes.Buffer
	if err := run(t.Context(), &out, &config{counts: []int{100}, rounds: 2, window: time.Second}); err != nil {
		t.Fatal(err)
	}
	report, _, err := board.Parse(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []string{"pprofd", "fgprof"} {
		name := "WallShares/idle=100/by=" + by
		for _, unit := range []string{"%receive", "%lock", "%compute", "%receive-truth", "%lock-truth", "%compute-truth"} {
			if v, ok := report.Median(name, unit); !ok || v <= 0 || v >= 100 {
				t.Errorf("%s: %v %s", name, v, unit)
			}
		}
		if v, ok := report.Median("WallBias/idle=100/by="+by, "points-chance"); !ok || v <= 0 {
			t.Errorf("%s: off by %v points by chance", by, v)
		}
		name = "WallCost/idle=100/by=" + by
		for _, unit := range []string{"looks/s", "on/off", "ms-held-up", "%core-target"} {
			if v, ok := report.Median(name, unit); !ok || v <= 0 {
				t.Errorf("%s: %v %s", name, v, unit)
			}
		}
	}
	if v, _ := report.Median("WallShares/idle=100/by=pprofd", "%core"); v <= 0 {
		t.Errorf("pprofd took %v %% of a core", v)
	}
}
