package profiler

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/pprofd/pprofd/internal/aggregate"
)

// TestLabelIDsAreBounded: what a program that sets ever new labels makes us remember is bounded, and the newest is known.
func TestLabelIDsAreBounded(t *testing.T) {
	var l labelIDs
	big := bytes.Repeat([]byte("x"), 1<<14)
	for i := range uint32(3000) {
		binary.LittleEndian.PutUint32(big, i)
		l.put(big, aggregate.LabelID(i))
		if id, ok := l.ids[string(big)]; !ok || id != aggregate.LabelID(i) {
			t.Fatalf("%d: %d, %v", i, id, ok)
		}
		sum := 0
		for k := range l.ids {
			sum += len(k)
		}
		if sum > maxLabelIDBytes || sum > l.bytes {
			t.Fatalf("%d bytes, thought to be %d", sum, l.bytes)
		}
	}
	if len(l.ids) < 2 {
		t.Errorf("%d are known", len(l.ids))
	}
}
