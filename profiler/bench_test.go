package profiler

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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
	var read bpf.Record
	for rec := bpf.NewRecorder(&file); ; r.samples++ {
		if err := p.probes.Read(&read, time.Now().Add(10*time.Second)); errors.Is(err, bpf.ErrFlushed) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := rec.Write(&read); err != nil {
			t.Fatal(err)
		}
	}
	if r.samples == 0 {
		t.Fatal("no samples")
	}
	r.bytes = file.Bytes()
	return r
}

// replay takes up to n samples through all that the profiler does for one, decode, complete, count, so many at a time.
func (r *recording) replay(t testing.TB, n, atOnce int) {
	replay := bpf.NewReplay(bytes.NewReader(r.bytes))
	for left := min(n, r.samples); left > 0; {
		list, err := r.profiler.batch.read(replay, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		list = list[:min(len(list), left)]
		left -= len(list)
		for some := range slices.Chunk(list, atOnce) {
			r.profiler.handle(some)
		}
	}
}

// BenchmarkSample is the user-space time of one sample whose stack is known, by frames: where it comes alone, and in batches.
func BenchmarkSample(b *testing.B) {
	for _, frames := range []int{32, 200, 1000} {
		r := record(b, frames)
		for _, atOnce := range []int{1, batchSize} {
			r.replay(b, r.samples, atOnce) // warm
			b.Run(fmt.Sprintf("frames=%d/at-once=%d", frames, atOnce), func(b *testing.B) {
				b.ReportAllocs()
				for left := b.N; left > 0; left -= r.samples {
					r.replay(b, left, atOnce)
				}
			})
		}
	}
}

// TestSampleDoesNotAllocate keeps the path of a known stack, from the wire to the count, free of garbage.
func TestSampleDoesNotAllocate(t *testing.T) {
	r := record(t, 32)
	r.replay(t, r.samples, batchSize)
	p, replay := r.profiler, bpf.NewReplay(bytes.NewReader(r.bytes))
	handle := func() {
		list, err := p.batch.read(replay, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		p.handle(list)
	}
	const warm = 2 // the replay's own buffer; what AllocsPerRun does not count
	handle()
	if n := testing.AllocsPerRun(max(r.samples/batchSize-warm, 1), handle); n != 0 {
		t.Errorf("%v allocations for each batch of samples of known stacks", n)
	}
	if s := p.table.Stats(); s.Lost != 0 || s.Broken != 0 {
		t.Errorf("table: %+v", s)
	}
}
