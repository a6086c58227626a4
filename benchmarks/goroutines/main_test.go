package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// TestRun asks a small crowd in all ways once.
func TestRun(t *testing.T) {
	needs.Root(t)
	var out bytes.Buffer
	if err := run(t.Context(), &out, &config{counts: []int{300}, rounds: 1}); err != nil {
		t.Fatal(err)
	}
	report, _, err := board.Parse(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"nobody", "pprofd-text", "pprofd-profile", "own-debug=0", "own-debug=2"} {
		name := "Goroutines/n=300/by=" + way
		took, ok := report.Median(name, "ms")
		if held, _ := report.Median(name, "ms-held-up"); !ok || took <= 0 || held <= 0 {
			t.Errorf("%s: %v ms, held up for %v ms", way, took, held)
		}
	}
	if read, ok := report.Median("Goroutines/n=300/by=pprofd-text", "read-ms"); !ok || read <= 0 {
		t.Errorf("read in %v ms", read)
	}
}
