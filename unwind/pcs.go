package unwind

import (
	"math"
	"slices"

	"github.com/pprofd/pprofd/objfile"
)

// spans hold what is known of an image's program counters: pieces of functions in which it is the same, by address, without
// overlap. A program spends its time in a few hundred of them. Where many programs are profiled each is asked after all
// others were, and what is cold costs more than what must be computed: so the numbers that are searched lie close together.
type spans struct {
	base   uint64   // what the offsets below are relative to
	starts []uint32 // where each begins
	list   []span
}

type span struct {
	end  uint32
	info pcInfo
}

// get returns what is known of off.
func (s *spans) get(off uint64) (pcInfo, bool) {
	rel := off - s.base
	if rel > math.MaxUint32 {
		return pcInfo{}, false
	}
	if n := s.search(uint32(rel)); n > 0 && uint32(rel) < s.list[n-1].end {
		return s.list[n-1].info, true
	}
	return pcInfo{}, false
}

// search returns how many begin at rel or before. There is no branch but the loop's: the CPU would mispredict every other one,
// and must not wait for what one search reads of memory to begin with the next.
func (s *spans) search(rel uint32) int {
	lo, n := 0, len(s.starts)
	for n > 0 {
		half := (n + 1) >> 1
		below := int64(s.starts[lo+half-1]) - int64(rel) - 1 // negative where that begins at rel or before
		lo += half & int(below>>63)
		n -= half
	}
	return lo
}

// put enters [start, end) around off, which is not known: as much of it as is not known.
func (s *spans) put(off, start, end uint64, info pcInfo) {
	rel := off - s.base
	if rel >= math.MaxUint32 {
		return
	}
	first, last := uint32(max(start, s.base)-s.base), uint32(min(end-s.base, math.MaxUint32))
	n := s.search(uint32(rel))
	if n > 0 {
		first = max(first, s.list[n-1].end)
	}
	if n < len(s.starts) {
		last = min(last, s.starts[n])
	}
	s.starts = slices.Insert(s.starts, n, first)
	s.list = slices.Insert(s.list, n, span{last, info})
}

// recent holds the program counters that were asked for lately, of all images; each has one place where it may be.
type recent [1 << 12]struct {
	addr objfile.Addr
	info pcInfo
}

func (r *recent) slot(a objfile.Addr) int {
	h := (a.Off ^ uint64(a.Image)<<40) * 0x9e3779b97f4a7c15 // Knuth's multiplicative hash
	return int(h >> (64 - 12))
}
