package main

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   float64
	}{
		"of one":            {[]float64{7}, 7},
		"of an odd number":  {[]float64{9, 1, 5}, 5},
		"of an even number": {[]float64{4, 1, 2, 100}, 3},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

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

// TestBpftraceSamples: counts stand behind stacks, which may themselves hold brackets and colons.
func TestBpftraceSamples(t *testing.T) {
	const output = `Attaching 2 probes...

@[
	4ab88b main.burn[go.shape.int]+11 (/tmp/a: b/deep)
, ]: 12
@[
	4ab89b main.burn+27 (/tmp/deep)
, 
	ffffffff81000e06 asm_sysvec_apic_timer_interrupt+22
]: 30
`
	if n, err := bpftraceSamples([]byte(output)); n != 42 || err != nil {
		t.Errorf("%d, %v; want 42", n, err)
	}
	if _, err := bpftraceSamples([]byte("ERROR: no such probe")); err == nil || !strings.Contains(err.Error(), "no such probe") {
		t.Errorf("error %v does not say what bpftrace says", err)
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	r := &report{w: &out}
	r.facts([]fact{{"goos", "linux"}})
	for _, ns := range []float64{4000, 9000, 5000} {
		r.add("BPFTime/frames=32/agent=pprofd", 1000, value{ns, "ns/sample"})
	}
	r.add("BPFTime/frames=132/agent=pprofd", 1000, value{15000, "ns/sample"})
	r.add("BPFTime/frames=32/agent=bpftrace", 1000, value{6000, "ns/sample"})
	r.tables()
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
