package profiler

import (
	"fmt"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

// BenchmarkWallSnapshot is what a snapshot costs of a process with so many goroutines, most of which wait.
func BenchmarkWallSnapshot(b *testing.B) {
	for _, idle := range []int{0, 1000, 10000, 100000} {
		b.Run(fmt.Sprintf("%d idle", idle), func(b *testing.B) {
			p := shares(b, testprog.Options{}, "-idle", fmt.Sprint(idle))
			w := NewWall(WallConfig{})
			defer w.Close()
			if err := w.Add(p.PID); err != nil {
				b.Fatal(err)
			}
			t := w.targets[0]
			t.begin(time.Now(), time.Time{})
			if err := t.snapshot(b.Context(), time.Now()); err != nil { // which finds names and stacks
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := t.snapshot(b.Context(), time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
