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

func TestMain(m *testing.M) {
	if os.Getenv(receiverVariable) != "" {
		if err := receive(os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(leaks.Run(m))
}

// TestRun measures little, and finds that all destinations got something, of a plausible size.
func TestRun(t *testing.T) {
	needs.Root(t)
	needs.BPF(t)
	var out bytes.Buffer
	c := config{window: time.Second, windows: 2, fleet: 3, pause: 2 * time.Millisecond, rounds: 1}
	if err := run(t.Context(), &out, &c); err != nil {
		t.Fatal(err)
	}
	report, _, err := board.Parse(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range append([]string{"files"}, protocols...) {
		if v, ok := report.Median("Export/load=one/hz=99/to="+to, "B/sample"); !ok || v < 2 || v > 5000 {
			t.Errorf("%s: %v bytes for a sample", to, v)
		}
		cpu, ok := report.Median("ExportWindow/processes=3/to="+to, "cpu-s/window")
		size, _ := report.Median("ExportWindow/processes=3/to="+to, "B/window")
		if !ok || cpu <= 0 || cpu > 3 || size < 300 {
			t.Errorf("%s: %v s, %v bytes", to, cpu, size)
		}
	}
}
