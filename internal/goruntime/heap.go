package goruntime

import (
	"errors"
	"fmt"
	"io"
)

// HeapOffsets are byte offsets of fields of runtime.mcache, runtime.mspan and runtime.p; sources: runtime/mcache.go,
// runtime/mheap.go, runtime/runtime2.go of each Go version.
type HeapOffsets struct {
	PMcache                                    uint32
	McacheAlloc                                uint32
	SpanNelems, SpanCount, SpanClass, SpanSize uint32 // mspan.nelems, allocCount, spanclass, elemsize
	SpanBefore                                 uint32 // mspan.allocCountBeforeCache; 0: there is none (Go 1.18)
	NelemsBytes                                uint32 // the size of mspan.nelems: 8, since Go 1.22 2
}

// heapRow is the heap's layout in one Go minor version; generated from DWARF into heap_table.go.
type heapRow struct {
	minor int
	off   HeapOffsets
}

// heapOffsets are those of the program's version: from the table, else from DWARF.
func (p *program) heapOffsets(version string) (HeapOffsets, error) {
	rel := parseVersion(version)
	for _, r := range heapTable() {
		if r.minor == rel.minor {
			return r.off, nil
		}
	}
	off, err := heapFromFile(p.file)
	if err != nil {
		return off, fmt.Errorf("%w: how %q lays out its heap is unknown, and there is no DWARF that says so: %w", ErrNoAllocSites, version, err)
	}
	if !off.near() {
		return off, fmt.Errorf("%w: %q lays out mspan in another way than Go 1.18 to 1.27: %+v", ErrNoAllocSites, version, off)
	}
	return off, nil
}

// spanTail is how many bytes of a span the kernel side reads at a hit (bpf/sample.h: SPAN_TAIL).
const spanTail = 32

// near says whether all that is read of a span at each hit lies in the spanTail bytes from allocCount's word on.
func (o *HeapOffsets) near() bool {
	base := o.SpanCount &^ 7
	in := func(off, size uint32) bool { return off >= base && off+size <= base+spanTail && off%size == 0 }
	return in(o.SpanCount, 2) && in(o.SpanClass, 1) && in(o.SpanSize, 8) && (o.SpanBefore == 0 || in(o.SpanBefore, 2))
}

// ErrYoung is wrapped by the error of Verify where there is no span to look at: the runtime has not started yet, or a garbage
// collection has just taken all spans back. Look again later.
var ErrYoung = errors.New("the runtime uses no spans now")

const (
	spanClasses = 136 // mheap.go: numSpanClasses
	maxPs       = 1 << 16
	maxSpanSize = 1 << 20
)

// Verify checks the offsets against the live process: all spans that its Ps allocate from are of the class that they stand
// for. It reads some hundred words for each of the first Ps. The error wraps ErrNoAllocSites or ErrYoung.
func (s *AllocSites) Verify(mem io.ReaderAt, bias uint64) error {
	v := verifier{mem: mem, bias: bias}
	if s.allp == 0 {
		return fmt.Errorf("%w: runtime.allp was not found, so that the layout of the heap cannot be checked", ErrNoAllocSites)
	}
	array, n := v.word(s.allp+bias), v.word(s.allp+bias+8)
	switch {
	case v.err != nil:
		return fmt.Errorf("%w: runtime.allp: %w", ErrNoAllocSites, v.err)
	case array == 0 && n == 0:
		return ErrYoung
	case n > maxPs || array%8 != 0:
		return fmt.Errorf("%w: runtime.allp has %d Ps at %#x", ErrNoAllocSites, n, array)
	}
	seen := 0
	for i := range min(n, verifyGs) {
		c := v.field(v.word(array+8*i), s.Heaps.PMcache)
		if v.err != nil {
			return fmt.Errorf("%w: P %d: %w", ErrNoAllocSites, i, v.err)
		}
		if c == 0 {
			continue // about to be destroyed
		}
		spans, err := s.Heaps.checkCache(&v, c)
		if err != nil {
			return fmt.Errorf("%w: cache of P %d: %w", ErrNoAllocSites, i, err)
		}
		seen += spans
	}
	if seen == 0 {
		return ErrYoung
	}
	return nil
}

// checkCache checks the spans of one mcache and says how many are in use. The process goes on meanwhile: a span that does
// not fit is looked at again.
func (o *HeapOffsets) checkCache(v *verifier, c uint64) (used int, err error) {
	for class := range uint64(spanClasses) {
		for range verifyTries {
			var inUse bool
			if inUse, err = o.checkSpan(v, v.word(c+uint64(o.McacheAlloc)+8*class), class); err == nil {
				if inUse {
					used++
				}
				break
			}
		}
		if err != nil {
			return used, err
		}
	}
	return used, nil
}

// checkSpan checks that a span is of a class, or is the runtime's empty one, of which everything is 0.
func (o *HeapOffsets) checkSpan(v *verifier, span, class uint64) (inUse bool, err error) {
	nelems, count := v.field(span, o.SpanNelems), v.field(span, o.SpanCount)&0xffff
	size, has := v.field(span, o.SpanSize), v.field(span, o.SpanClass)&0xff
	before := uint64(0)
	if o.SpanBefore != 0 {
		before = v.field(span, o.SpanBefore) & 0xffff
	}
	if o.NelemsBytes == 2 {
		nelems &= 0xffff
	}
	switch {
	case v.err != nil:
		return false, v.err
	case nelems == 0 && count == 0 && size == 0 && has == 0:
		return false, nil
	case has != class || nelems == 0 || count > nelems || before > count || size == 0 || size > maxSpanSize || size%8 != 0:
		return false, fmt.Errorf("span of class %d says class %d, %d of %d objects (%d before) of %d bytes", class, has, count, nelems, before, size)
	}
	return true, nil
}
