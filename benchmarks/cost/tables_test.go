package main

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/benchmarks/board"
)

func TestFitLine(t *testing.T) {
	var points []point
	for _, x := range []float64{10, 32, 100, 1000} {
		points = append(points, point{x, 2000 + 35*x})
	}
	fixed, slope, ok := fitLine(points)
	if !ok || math.Abs(fixed-2000) > 1e-6 || math.Abs(slope-35) > 1e-9 {
		t.Errorf("%v + %v x, %v", fixed, slope, ok)
	}
	if _, _, ok := fitLine([]point{{1, 1}, {1, 2}}); ok {
		t.Error("a line through points above one another")
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	r := board.New(&out)
	r.Facts([]board.Fact{{Key: "goos", Value: "linux"}})
	for _, ns := range []float64{4000, 9000, 5000} {
		r.Add("BPFTime/frames=32/agent=pprofd", 1000, board.Value{V: ns, Unit: "ns/sample"})
	}
	r.Add("BPFTime/frames=132/agent=pprofd", 1000, board.Value{V: 15000, Unit: "ns/sample"})
	r.Add("BPFTime/frames=32/agent=bpftrace", 1000, board.Value{V: 6000, Unit: "ns/sample"})
	tables(r)
	want := `goos: linux
BenchmarkBPFTime/frames=32/agent=pprofd 1000 4000 ns/sample
BenchmarkBPFTime/frames=32/agent=pprofd 1000 9000 ns/sample
BenchmarkBPFTime/frames=32/agent=pprofd 1000 5000 ns/sample
BenchmarkBPFTime/frames=132/agent=pprofd 1000 15000 ns/sample
BenchmarkBPFTime/frames=32/agent=bpftrace 1000 6000 ns/sample

# BPF time, ns per recorded sample (bpftrace cuts at 127 frames)
#   frames     pprofd   bpftrace
#       32       5000       6000
#      132      15000          0

# goal                                           measured    at most
# BPF time per sample of 32 frames, µs                  5          5  ok
# BPF time of each further frame, ns                  100         80  MISSED
# BPF time beyond bpftrace's at 32 frames, ns       -1000          0  ok
# BPF time of pprofd: 1800 ns + 100.0 ns per frame
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}
