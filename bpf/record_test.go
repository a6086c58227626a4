package bpf

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bytesOf makes a record from words.
func bytesOf(words ...uint64) (b []byte) {
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// sampleWithLabel has one kernel frame, a segment of two window words and one frame, and the label a=bc.
func sampleWithLabel() []byte {
	return bytesOf(
		1|1<<8|uint64(FlagKernel)<<16|42<<32, 1000, // type, kind, flags, pid; start
		43|1<<32, 77, 5, 10101010, 1|1<<16|1<<32, 96, // tid, cpu; time; goid; value; kernel, segments, labels; size
		0xffffffff81000000,
		0x401000, 0xc000, 0xc010, 0, 1|16<<16|1<<32|1<<40|4<<48|1<<56, // pc, sp, fp, lr; frames, window, kind, scanned, end, stack
		11, 12, 0x402000,
		1|2<<16|1<<48, 'a', 'b'|'c'<<8, // sizes, key and value cut; key; value
	)
}

func TestDecode(t *testing.T) {
	var r Record
	if err := r.Decode(sampleWithLabel()); err != nil {
		t.Fatal(err)
	}
	s := r.Sample
	want := []Segment{{Kind: SegmentStart, PC: 0x401000, SP: 0xc000, FP: 0xc010, Window: []uint64{11, 12},
		Frames: []uint64{0x402000}, Scanned: true, End: EndDepth, Stack: StackGo}}
	if d := cmp.Diff(want, s.Segments); d != "" {
		t.Error(d)
	}
	if r.PID != 42 || r.StartTime != 1000 || s.TID != 43 || s.CPU != 1 || s.Time != 77 || s.Goid != 5 || s.Value != 10101010 || s.Size != 96 ||
		s.Flags != FlagKernel || !cmp.Equal(s.Kernel, []uint64{0xffffffff81000000}) {
		t.Errorf("%+v", r)
	}
	labels, err := s.AppendLabels(nil)
	if d := cmp.Diff([]Label{{Key: "a", Value: "bc", ValueCut: true}}, labels); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	whole := sampleWithLabel()
	for n := range whole {
		var r Record
		err := r.Decode(whole[:n])
		if err == nil {
			_, err = r.Sample.AppendLabels(nil)
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d bytes: error %v", n, len(whole), err)
		}
	}
}

// TestDecodeDoesNotAllocate keeps the hot path free of garbage.
func TestDecodeDoesNotAllocate(t *testing.T) {
	b := sampleWithLabel()
	var r Record
	if n := testing.AllocsPerRun(100, func() {
		if err := r.Decode(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sampleWithLabel())
	f.Add(bytesOf(2|42<<32, 7))
	f.Add(bytesOf(1, 1, 0, 0, 0, 0, 0xffff_ffff_ffff_ffff))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if err := r.Decode(b); err != nil {
			return
		}
		if labels, err := r.Sample.AppendLabels(nil); err == nil && len(labels) != r.Sample.NumLabels {
			t.Errorf("%d labels, want %d", len(labels), r.Sample.NumLabels)
		}
	})
}
