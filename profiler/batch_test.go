package profiler

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/testprog"
)

// wire is a file of records of one process, as bpf.Replay reads it: 's' is a sample, 'x' an exit, '?' a sample of another process.
func wire(t *testing.T, pid uint32, start uint64, kinds string) *bytes.Buffer {
	t.Helper()
	var file bytes.Buffer
	for _, kind := range kinds {
		words := []uint64{uint64(bpf.TypeSample) | uint64(bpf.KindCPU)<<8 | uint64(pid)<<32, start, 0, 0, 0, 1, 0, 0}
		switch kind {
		case 'x':
			words = []uint64{uint64(bpf.TypeExit) | uint64(pid)<<32, start}
		case '?':
			words[1]++
		}
		file.Write(binary.LittleEndian.AppendUint32(nil, uint32(8*len(words))))
		for _, w := range words {
			file.Write(binary.LittleEndian.AppendUint64(nil, w))
		}
	}
	return &file
}

// TestBatches: a batch ends before it has to wait, behind what is no sample, and where it is full. What came before an error is
// not lost.
func TestBatches(t *testing.T) {
	const full = "ssssssssssssssss"
	if len(full) != batchSize {
		t.Fatal("the test does not know how large a batch is")
	}
	for kinds, want := range map[string][]int{
		"": {0}, "s": {1, 0}, "x": {1, 0}, "sx": {2, 0}, "ssxs": {3, 1, 0}, "s?s": {3, 0}, "xxs": {1, 1, 1, 0},
		full: {batchSize, 0}, full + "ss": {batchSize, 2, 0}, full[1:] + "xs": {batchSize, 1, 0},
	} {
		source := bpf.NewReplay(wire(t, 1, 1, kinds))
		var b batch
		for i, n := range want {
			list, err := b.read(source, time.Time{})
			if len(list) != n || errors.Is(err, bpf.ErrFlushed) != (i == len(want)-1) {
				t.Errorf("%q: batch %d is of %d records, %v, want %d", kinds, i, len(list), err, n)
			}
		}
	}
	b := batch{}
	list, err := b.read(&failing{bpf.NewReplay(wire(t, 1, 1, "sss")), 2}, time.Time{})
	if len(list) != 2 || !errors.Is(err, errFailing) {
		t.Errorf("%d records, %v", len(list), err)
	}
}

var errFailing = errors.New("fails")

// failing fails after so many reads.
type failing struct {
	*bpf.Replay
	left int
}

func (s *failing) Read(r *bpf.Record, deadline time.Time) error {
	if s.left--; s.left < 0 {
		return errFailing
	}
	return s.Replay.Read(r, deadline)
}

// TestOrderInABatch: samples of a process count up to its exit, wherever in a batch that is, and those of others do not.
func TestOrderInABatch(t *testing.T) {
	for kinds, want := range map[string]int64{"sss": 3, "ssx": 2, "sxs": 1, "xss": 0, "s?s": 2, "?sss?": 3, "s?sxs": 2, "ssss?ssssxssss": 8} {
		proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
		var k keep
		p, err := New(Config{Source: bpf.NewReplay(&bytes.Buffer{}), Exporter: &k})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Add(proc.PID); err != nil {
			t.Fatal(err)
		}
		p.probes = bpf.NewReplay(wire(t, uint32(proc.PID), p.targets[uint32(proc.PID)].start, kinds))
		if err := errors.Join(p.Run(context.Background()), p.Close()); err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, s := range k.profiles[0].Data.Sample {
			sum += s.Value[0]
		}
		if sum != want {
			t.Errorf("%q: %d samples count, want %d", kinds, sum, want)
		}
	}
}
