package profiler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/goruntime"
)

// TestGroupsOfHostileLabels: goroutines may have 64 labels of 2 KiB each, and no two the same ones.
func TestGroupsOfHostileLabels(t *testing.T) {
	var groups GoroutineGroups
	labels := hostileLabels()
	const n, mib = 1000, 1 << 20
	for i := range n {
		groups.Add(&Goroutine{Goroutine: &goruntime.Goroutine{ID: uint64(i), StartPC: uint64(i), Labels: labels}})
	}
	kept := len(groups.groups) * 64 * 2 << 10
	if groups.Total != n || groups.Left == 0 || kept < 32*mib || kept > 64*mib {
		t.Errorf("%d goroutines, %d left out, %d MiB of labels are kept", groups.Total, groups.Left, kept/mib)
	}
}

// hostileLabels are as many and as long as are read of a goroutine.
func hostileLabels() []goruntime.Label {
	labels := make([]goruntime.Label, 64)
	for i := range labels {
		labels[i] = goruntime.Label{Key: strings.Repeat("k", 1<<10), Value: strings.Repeat("v", 1<<10)}
	}
	return labels
}

// TestWallOfHostileLabels: so it is with what a service remembers of all processes together, and all of it is given back.
func TestWallOfHostileLabels(t *testing.T) {
	room := &wallRoom{maxGroups: wallsGroups, maxFrames: wallsFrames, maxSeen: wallsSeen}
	groups := wallGroups{room: room}
	labels := hostileLabels()
	const n, mib = 200, 1 << 20
	for i := range n {
		labels[0].Key = fmt.Sprint(i)
		groups.find(&wallKey{Labels: labels})
	}
	kept := len(groups.all) * 64 * 2 << 10
	if kept < 4*mib || kept > 8*mib || groups.find(&wallKey{Labels: append(labels, labels...)}) != &groups.lost {
		t.Errorf("%d groups, %d MiB of labels are kept", len(groups.all), kept/mib)
	}
	if groups.sweep(); room.frames != 0 || room.groups != 0 {
		t.Errorf("%d frames of %d groups are not given back", room.frames, room.groups)
	}
}
