package profiler

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// recording holds samples of one process, taken through eBPF.
type recording struct {
	profiler *Profiler
	bytes    []byte // as bpf.Replay reads them
	samples  int
}

// record samples a recursion of so many frames. Its process lives until the test ends.
func record(t testing.TB, frames int) recording {
	t.Helper()
	needs.BPF(t)
	const goFrames = 4 // main.burn, main.main, runtime.main, runtime.goexit
	proc := testprog.Start(t, testprog.Build(t, "deep", testprog.Options{}), "-depth", fmt.Sprint(frames-goFrames), "-seconds", "600")
	p, err := New(Config{Frequency: 999})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(p.Add(proc.PID), p.probes.Start()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second / 2)
	if err := errors.Join(p.probes.Stop(), p.probes.Flush()); err != nil {
		t.Fatal(err)
	}
	r := recording{profiler: p}
	var file bytes.Buffer
	for rec := bpf.NewRecorder(&file); ; r.samples++ {
		if err := p.probes.Read(&p.record, time.Now().Add(10*time.Second)); errors.Is(err, bpf.ErrFlushed) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := rec.Write(&p.record); err != nil {
			t.Fatal(err)
		}
	}
	if r.samples == 0 {
		t.Fatal("no samples")
	}
	r.bytes = file.Bytes()
	return r
}

// replay takes up to n samples through all that the profiler does for one: decode, complete, count.
func (r *recording) replay(t testing.TB, n int) {
	p := r.profiler
	replay := bpf.NewReplay(bytes.NewReader(r.bytes))
	for range min(n, r.samples) {
		if err := replay.Read(&p.record, time.Time{}); err != nil {
			t.Fatal(err)
		}
		p.handle(&p.record)
	}
}

// BenchmarkSample is the user-space time of one sample whose stack is known, by frames.
func BenchmarkSample(b *testing.B) {
	for _, frames := range []int{32, 200, 1000} {
		r := record(b, frames)
		r.replay(b, r.samples) // warm
		b.Run(fmt.Sprintf("frames=%d", frames), func(b *testing.B) {
			b.ReportAllocs()
			for left := b.N; left > 0; left -= r.samples {
				r.replay(b, left)
			}
		})
	}
}

// TestSampleDoesNotAllocate keeps the path of a known stack, from the wire to the count, free of garbage.
func TestSampleDoesNotAllocate(t *testing.T) {
	r := record(t, 32)
	r.replay(t, r.samples)
	p, replay := r.profiler, bpf.NewReplay(bytes.NewReader(r.bytes))
	const warm = 1 // the replay's own buffer
	if err := replay.Read(&p.record, time.Time{}); err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(r.samples-warm-1, func() {
		if err := replay.Read(&p.record, time.Time{}); err != nil {
			t.Fatal(err)
		}
		p.handle(&p.record)
	})
	if n != 0 {
		t.Errorf("%v allocations for each sample of a known stack", n)
	}
	if s := p.table.Stats(); s.Lost != 0 || s.Broken != 0 {
		t.Errorf("table: %+v", s)
	}
}
