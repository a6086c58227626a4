package bpf

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestNoVictims: while nothing is killed, nothing is told; profiler tests what is told.
func TestNoVictims(t *testing.T) {
	needs.BPF(t)
	v, err := WatchVictims()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Read(time.Now().Add(50 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
