package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// ciRows are the ends and the middle of the supported versions, and the ways to build that differ most.
var ciRows = []string{"go1.18.10/pie", "go1.23.12/stripped", "golocal/default", "go1.27.4/cgo"}

// TestAccuracy: the share of our stacks that also stand in the process's own runtime/pprof profile is what a second
// runtime/pprof profile of the same length reaches, with the same mix of paths, less three points of noise; longer windows
// until it is or time is up.
func TestAccuracy(t *testing.T) {
	needs.BPF(t)
	for _, name := range ciRows {
		t.Run(name, func(t *testing.T) {
			r := rowOf(t, name)
			bin := testprog.Build(t, "mixed", r.options())
			for length := 5 * time.Second; ; length *= 2 {
				w := measureOnce(t, r, bin, length)
				t.Logf("%v: %.1f %% of the stacks are right, %.1f %% with the mix of the ceiling, which is %.1f %% (leaf and caller %.1f %%, lines %.1f %%, labels %.1f %%), %d of %d recursions whole",
					length, 100*w.Got.Stacks, 100*w.SameMix, 100*w.Ceiling.Stacks, 100*w.Got.LeafCaller, 100*w.Got.Lines, 100*w.Got.Labels, w.Deep, w.DeepSamples)
				if w.mixDiff() >= -3 && w.Bad*1000 <= w.Records && w.Deep == w.DeepSamples {
					t.Attr("pprofd.exact-stacks", fmt.Sprintf("%.1f %% in %v, ceiling %.1f %%; recursions whole: %d of %d",
						100*w.Got.Stacks, length, 100*w.Ceiling.Stacks, w.Deep, w.DeepSamples)) // for kerneltest's table
					return
				}
				if length >= 20*time.Second {
					t.Fatalf("%d of %d stacks could not be completed\npprofd %v\nsecond runtime/pprof profile %v", w.Bad, w.Records, w.Got, w.Ceiling)
				}
			}
		})
	}
}

// measureOnce measures a row in one window, by pprofd alone.
func measureOnce(t *testing.T, r row, bin string, length time.Duration) window {
	t.Helper()
	m := newMeasurer(&config{windows: 1, length: length})
	defer m.Close()
	r.peers = false
	a, err := m.measure(t.Context(), r, bin)
	if err != nil || len(a.Windows) != 1 {
		t.Fatalf("%d windows: %s %v", len(a.Windows), a.Why, err)
	}
	return a.Windows[0]
}

func rowOf(t *testing.T, name string) row {
	t.Helper()
	rows, err := chooseRows("^" + name + "$")
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	return rows[0]
}

// TestNamedRows: rows that lists name exist.
func TestNamedRows(t *testing.T) {
	for name := range besidePeers {
		if r := rowOf(t, name); !r.peers {
			t.Errorf("%s: peers do not take part", name)
		}
	}
	if _, err := chooseRows("^go1.17$"); err == nil {
		t.Error("no error where no row is called so")
	}
}
