package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/governor"
)

func TestTracesAreReadAsTheyAreWritten(t *testing.T) {
	tr := trace{name: "x", about: "what it is", cpus: 4, points: []point{{0.5, 0}, {3.25, 0.125}}}
	var b strings.Builder
	if err := writeTrace(&b, &tr); err != nil {
		t.Fatal(err)
	}
	back, err := parseTrace("x", strings.NewReader(b.String()))
	if err != nil || !cmp.Equal(back, tr, cmp.AllowUnexported(trace{}, point{})) {
		t.Errorf("%+v, %v of\n%s", back, err, b.String())
	}
	for name, text := range map[string]string{"empty": "", "no CPUs": "0,1,0\n", "a hole": "# cpus 2\n0,1,0\n2,1,0\n", "words": "# cpus 2\nx\n"} {
		if _, err := parseTrace("x", strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestRecordedTraces: there are some, with load that changes.
func TestRecordedTraces(t *testing.T) {
	list, err := recorded()
	if err != nil || len(list) < 4 {
		t.Fatalf("%d, %v", len(list), err)
	}
	for _, tr := range list {
		low, high := tr.cpus, 0.0
		for _, p := range tr.points {
			low, high = min(low, p.busy), max(high, p.busy)
			if p.busy < 0 || p.busy > tr.cpus || p.load < 0 || p.load > 1 {
				t.Fatalf("%s: %+v on %v CPUs", tr.name, p, tr.cpus)
			}
		}
		if high < 0.9*tr.cpus || low > 0.5*tr.cpus || len(tr.points) < 100 {
			t.Errorf("%s: %v to %v of %v CPUs in %d s", tr.name, low, high, tr.cpus, len(tr.points))
		}
	}
}

func TestSimulateDrawsAndCounts(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	if err := simulate(t.Context(), &b, &options{budget: 0.5, window: 10, pictures: dir + "/"}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "BenchmarkSimulation/trace="); n != 3*(len(synthetic())+4) {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
}

// TestModel: a host that samples at a rate has as many samples as its load times the rate, and the token bucket keeps
// the limit.
func TestModel(t *testing.T) {
	tr := made("x", "", 16, 600, func(float64) float64 { return 8 })
	h := newHost(&tr, machines()[0], 1)
	s := setting(100, time.Second)
	all := h.cpu(0, 600, &s, false)
	if want := 100 * 8 * 0.9 * 600; !within1(float64(all.Events), want) || all.Throttled != 0 {
		t.Errorf("%d samples of %v, %d throttled", all.Events, want, all.Throttled)
	}
	s = setting(100, time.Millisecond)
	few := h.cpu(0, 600, &s, false)
	if few.Throttled == 0 || few.Events-few.Throttled > all.Events/2 || few.BPF.Seconds() > 0.6*1.5 {
		t.Errorf("limited to 0.6 s: %v, %d of %d throttled", few.BPF, few.Throttled, few.Events)
	}
}

func setting(hz float64, limit time.Duration) governor.Setting {
	return governor.Setting{Name: "cpu", Rate: hz, Limit: limit}
}

func within1(got, want float64) bool { return got > 0.99*want && got < 1.01*want }
