package profiler

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestAllocsSoak profiles a program that allocates 10 GB a minute, for as long as PPROFD_ALLOCS_SOAK says (make allocs-soak), else
// for a short time, a profile a minute at most, with the probes as they come and go by default: no sample is lost, the profiles together hold what the
// program allocated, by place, and memory does not grow.
func TestAllocsSoak(t *testing.T) {
	length := 30 * time.Second
	if text := os.Getenv("PPROFD_ALLOCS_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	const rate = 160 // MiB/s: 10 GB a minute
	window := min(time.Minute, length/3)
	mb := rate * int(length.Seconds())
	proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-mb", fmt.Sprint(mb), "-rate", fmt.Sprint(rate), "-life", (2 * length).String())
	r := runAllocs(t, Config{Window: window, AllocBudget: defaultAllocBudget}, proc.PID)
	before := heapInUse()
	want := allocateFor(t, proc, 2*length)
	after := heapInUse()
	stats := r.p.Stats()
	r.end(t)
	got, total := map[string]int64{}, int64(0)
	for _, p := range r.k.profiles {
		bytes, sum := leaves(p.Data)
		total += sum
		for name, n := range bytes {
			got[name] += n
		}
	}
	t.Logf("%d profiles, %d MB of %d MB in %v, %+v; heap %d, then %d kB", len(r.k.profiles), total>>20, want.total>>20, want.took, stats, before>>10, after>>10)
	compareAllocs(t, got, total, want)
	if stats.Lost > 0 || stats.Broken > 0 || stats.Truncated > 0 {
		t.Errorf("%+v", stats)
	}
	if after > before+16<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
