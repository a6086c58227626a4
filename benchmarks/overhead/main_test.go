package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// TestShort: every part runs, with every profiler, and its lines are there. What they say is not judged: windows are short.
func TestShort(t *testing.T) {
	needs.BPF(t)
	needs.Tool(t, "perf")
	needs.Tool(t, "bpftrace")
	c := config{svg: filepath.Join(t.TempDir(), "overhead.svg"), peer: "sleep {seconds}; echo {pids} {hz}"}
	c.shorten()
	var out strings.Builder
	if err := run(t.Context(), &out, &c); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"BenchmarkInterrupt 1 ", "BenchmarkThroughput/processes=1/hz=999/agent=pprofd 1 ", "BenchmarkThroughput/processes=2/hz=99/agent=runtime 1 ",
		"BenchmarkThroughput/processes=2/hz=99/agent=peer 1 ", "BenchmarkThroughput/processes=1/hz=99/agent=perf 1 ",
		"BenchmarkUse/processes=1/binaries=1/load=busy/hz=99/agent=bpftrace 1 ", "BenchmarkUse/processes=2/binaries=2/load=busy/hz=99/agent=pprofd 1 ",
		"BenchmarkUse/processes=2/binaries=1/load=idle/hz=99/agent=pprofd 1 ", "BenchmarkRing/processes=1/binaries=1/load=busy ",
		"# agent CPU, s per 60 s ", "BenchmarkFloor/program=both ", "BenchmarkFloor/program=pprofd-no-kernel ", "# throughput with a profiler / without",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if svg, err := os.ReadFile(c.svg); err != nil || !strings.Contains(string(svg), "throughput while profiled") {
		t.Errorf("picture: %d bytes, %v", len(svg), err)
	}
}

func TestFitRSS(t *testing.T) {
	var points []rssPoint
	for _, p := range [][2]int{{1, 1}, {1, 10}, {10, 10}, {1, 200}, {200, 200}} {
		points = append(points, rssPoint{p[0], p[1], 17e6 + 300e3*float64(p[0]) + 20e3*float64(p[1])})
	}
	base, binary, process, ok := fitRSS(points)
	if !ok || math.Abs(base-17e6) > 1 || math.Abs(binary-300e3) > 1 || math.Abs(process-20e3) > 1 {
		t.Error(base, binary, process, ok)
	}
	if _, _, _, ok := fitRSS(points[:2]); ok {
		t.Error("a plane through two points")
	}
}
