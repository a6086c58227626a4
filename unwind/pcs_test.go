package unwind

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSpans: they know what an array with an entry for each program counter would know, also where a table contradicts itself.
func TestSpans(t *testing.T) {
	const base, size = 1 << 40, 1 << 12
	r := rand.New(rand.NewPCG(1, 2))
	var known [size]pcInfo
	s := spans{base: base}
	for n := range int32(2000) {
		off := r.Uint64N(size)
		got, ok := s.get(base + off)
		if got != known[off] || ok != known[off].isGo {
			t.Fatalf("%#x: %+v, %v; want %+v", off, got, ok, known[off])
		}
		if ok {
			continue
		}
		start, end := off-min(r.Uint64N(20), off), off+1+r.Uint64N(20)
		i := pcInfo{delta: n, isGo: true}
		s.put(base+off, base+start, base+end, i)
		for at := off; at < min(end, size) && !known[at].isGo; at++ {
			known[at] = i
		}
		for at := off; at > start && !known[at-1].isGo; at-- {
			known[at-1] = i
		}
	}
	if n := len(s.list); n < 100 || n > size || len(s.starts) != n || !slices.IsSorted(s.starts) {
		t.Errorf("%d spans, %d starts", n, len(s.starts))
	}
}

// TestSpansFarAway: what lies too far from the others is not kept, rather than mistaken for something near.
func TestSpansFarAway(t *testing.T) {
	s := spans{base: 0x1000}
	info := pcInfo{isGo: true}
	for _, off := range []uint64{0, 0xfff, 0x1000 + math.MaxUint32, 1 << 40, math.MaxUint64} {
		s.put(off, off, off+1, info)
		if _, ok := s.get(off); ok || len(s.list) > 0 {
			t.Errorf("%#x is known", off)
		}
	}
	s.put(0x2000, 0, math.MaxUint64, info)
	for off, want := range map[uint64]bool{0xfff: false, 0x1000: true, 0x1000 + math.MaxUint32 - 1: true, 0x1000 + math.MaxUint32: false, 1 << 40: false} {
		if _, ok := s.get(off); ok != want {
			t.Errorf("%#x: %v", off, ok)
		}
	}
}
