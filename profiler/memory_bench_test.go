package profiler

import (
	"testing"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
)

// BenchmarkReadHeap reads 100,000 allocation sites of a live process, which is to take less than 200 ms, and makes a profile of
// them.
func BenchmarkReadHeap(b *testing.B) {
	proc := testprog.Start(b, testprog.Build(b, "heap", testprog.Options{}), "-many", "100000", "-rate", "1", "-quiet")
	m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}, Exporter: &keep{}})
	defer m.Close()
	if err := m.Add(proc.PID); err != nil {
		b.Fatal(err)
	}
	t := m.targets[0]
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := t.read(goruntime.Published); err != nil || t.records.Len() < 100000 {
				b.Fatal(t.records.Len(), err)
			}
		}
	})
	b.Run("profile", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := m.Export(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
