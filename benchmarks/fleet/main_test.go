package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// TestShort: the agent finds and profiles small fleets, counts every short process, loses nothing and lets go of what has ended.
// How much it takes for that is not judged.
func TestShort(t *testing.T) {
	needs.BPF(t)
	c := config{svg: filepath.Join(t.TempDir(), "fleet.svg"), keep: t.TempDir()}
	c.shorten()
	var out strings.Builder
	if err := run(t.Context(), &out, &c); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"BenchmarkFleet/load=idle/services=6/programs=3/others=0 1 ", "BenchmarkFleet/load=churn/services=3/programs=3/others=20 1 ",
		"BenchmarkFleet/load=short/services=0/programs=0/others=0 1 ", "BenchmarkFleetCurve/load=idle/at=2s 1 ",
		"# targets two windows after their end                   0          0  ok\n",
		"# lost                                                  0          0  ok\n",
		"# churn: lost                                           0          0  ok\n",
		"# Go processes of 50 ms not found, share                0          0  ok\n",
		"# the same, not counted as profiled                     0          0  ok\n",
		"\n# all found and named, none profiled ", "\n# all profiled, each into a file of its own ",
		"# the same, of 200 at 99 Hz                             0          0  ok\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if svg, err := os.ReadFile(c.svg); err != nil || !strings.Contains(string(svg), "MB RSS") {
		t.Errorf("picture: %d bytes, %v", len(svg), err)
	}
}
