package unwind

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestPCCache: it knows what a map would know.
func TestPCCache(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seed, want := newPCSeed(), map[uint64]pcInfo{}
	var c pcCache
	for _, off := range []uint64{0, 1, math.MaxUint64 - 1, 1 << 63} {
		if _, ok := c.get(seed, off); ok {
			t.Errorf("an empty cache knows %#x", off)
		}
		want[off] = pcInfo{delta: int32(off)}
		c.put(seed, off, want[off])
	}
	for range 10_000 {
		off := r.Uint64N(1 << 16)
		got, ok := c.get(seed, off)
		if w, known := want[off]; known != ok || got != w {
			t.Fatalf("%#x: %+v, %v; want %+v, %v", off, got, ok, w, known)
		}
		if !ok {
			want[off] = pcInfo{delta: int32(off), isGo: true}
			c.put(seed, off, want[off])
		}
	}
	if c.n != len(want) || len(c.slots) > 4*c.n {
		t.Errorf("%d of %d, %d slots", c.n, len(want), len(c.slots))
	}
}
