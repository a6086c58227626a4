package objfile

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"iter"
)

const (
	// searchBudget is how many bytes one search may read: half a second's worth.
	searchBudget = 512 << 20
	scanChunk    = 128 << 10
	// hitCost is what a hit costs of the budget, as it is looked at more closely: a file may be all hits.
	hitCost = pageSize
)

// search reads through an image in chunks, past the page cache, until its budget is spent.
type search struct {
	f    *File
	left int64
	free [][]byte // chunk buffers; two at most, as searches nest one deep
}

func newSearch(f *File) *search { return &search{f: f, left: searchBudget} }

func (s *search) buffer() []byte {
	if n := len(s.free); n > 0 {
		b := s.free[n-1]
		s.free = s.free[:n-1]
		return b
	}
	return make([]byte, scanChunk)
}

// chunks yields the file-backed memory of [start, end) with its address. Consecutive chunks overlap
// by at least overlap bytes. The bytes are valid until the next step.
func (s *search) chunks(start, end uint64, overlap uint64) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		buf := s.buffer()
		defer func() { s.free = append(s.free, buf) }()
		for i := range s.f.loads {
			seg := &s.f.loads[i]
			lo, hi := max(start, seg.Vaddr), min(end, seg.Vaddr+seg.Filesz)
			for lo < hi && s.left > 0 {
				b := buf[:min(hi-lo, scanChunk)]
				n, err := s.read(b, seg, lo)
				if n > 0 && !yield(lo, b[:n]) {
					return
				}
				next, ok := s.next(lo, hi, overlap, n, err)
				if !ok {
					break
				}
				lo = next
			}
		}
	}
}

func (s *search) read(b []byte, seg *elf.ProgHeader, addr uint64) (int, error) {
	s.left -= int64(len(b))
	return readFullAt(s.f.src.r, b, int64(seg.Off+addr-seg.Vaddr))
}

// next is where to go on after n bytes at lo. Files end at the first error; process memory may have
// holes that cannot be read.
func (s *search) next(lo, hi, overlap uint64, n int, err error) (uint64, bool) {
	end := lo + uint64(n)
	switch {
	case err == nil && end == hi:
		return 0, false
	case err == nil:
		return end - overlap, true
	case !s.f.memory || errors.Is(err, io.EOF):
		return 0, false
	}
	return (end/pageSize + 1) * pageSize, true
}

// find yields the addresses in [start, end) where pattern stands.
func (s *search) find(start, end uint64, pattern []byte) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for addr, chunk := range s.chunks(start, end, uint64(len(pattern)-1)) {
			for pos := 0; ; pos++ {
				i := bytes.Index(chunk[pos:], pattern)
				if i < 0 || s.left <= 0 {
					break
				}
				pos += i
				s.left -= hitCost
				if !yield(addr + uint64(pos)) {
					return
				}
			}
		}
	}
}

// findInSegments is find in all segments: first those that have the flags want and not the flags
// avoid, then the others.
func (s *search) findInSegments(pattern []byte, want, avoid elf.ProgFlag) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, preferred := range []bool{true, false} {
			for _, seg := range s.f.loads {
				if (seg.Flags&want == want && seg.Flags&avoid == 0) != preferred {
					continue
				}
				for addr := range s.find(seg.Vaddr, seg.Vaddr+seg.Filesz, pattern) {
					if !yield(addr) {
						return
					}
				}
			}
		}
	}
}
