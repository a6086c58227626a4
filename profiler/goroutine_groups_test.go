package profiler

import (
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/goruntime"
)

// TestGroupsOfHostileLabels: goroutines may have 64 labels of 2 KiB each, and no two the same ones.
func TestGroupsOfHostileLabels(t *testing.T) {
	var groups GoroutineGroups
	labels := make([]goruntime.Label, 64)
	for i := range labels {
		labels[i] = goruntime.Label{Key: strings.Repeat("k", 1<<10), Value: strings.Repeat("v", 1<<10)}
	}
	const n, mib = 1000, 1 << 20
	for i := range n {
		groups.Add(&Goroutine{Goroutine: &goruntime.Goroutine{ID: uint64(i), StartPC: uint64(i), Labels: labels}})
	}
	kept := len(groups.groups) * 64 * 2 << 10
	if groups.Total != n || groups.Left == 0 || kept < 32*mib || kept > 64*mib {
		t.Errorf("%d goroutines, %d left out, %d MiB of labels are kept", groups.Total, groups.Left, kept/mib)
	}
}
