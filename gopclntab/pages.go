package gopclntab

import (
	"bytes"
	"encoding/binary"
	"io"
)

// The page cache of a Table: 256 pages, 256 KiB. What is looked up of a function lies in many places, a few dozen bytes in
// each: small pages hold more of them.
const (
	pageSize = 1 << 10
	pageSets = 64
	pageWays = 4
)

// maxString bounds the strings that are read, names of generic functions above all.
const maxString = 64 << 10

// A page is a cached piece [lo, hi) of the image, which lies inside one aligned page.
type page struct {
	lo, hi uint64
	used   uint32 // pages.clock of the last use
	data   *[pageSize]byte
}

// pages reads an image through a set-associative cache of aligned pages.
type pages struct {
	r     io.ReaderAt
	last  *page // the page used last
	clock uint32
	fills uint64 // number of reads from r
	sets  [pageSets][pageWays]page
	pool  *Pool // nil: pages of its own
}

// at returns the cached bytes from addr on, up to the end of its page at most, at least one;
// nil where r has none. They are valid until the next call.
func (p *pages) at(addr uint64) []byte {
	pg := p.last
	if pg == nil || addr < pg.lo || addr >= pg.hi {
		if pg = p.find(addr); pg == nil {
			return nil
		}
		p.last = pg
	}
	return pg.data[addr%pageSize : (pg.hi-1)%pageSize+1]
}

// find returns the page that holds addr, after reading it if need be.
func (p *pages) find(addr uint64) *page {
	set := &p.sets[addr/pageSize%pageSets]
	p.clock++
	oldest := &set[0]
	for i := range set {
		pg := &set[i]
		if addr >= pg.lo && addr < pg.hi {
			pg.used = p.clock
			return pg
		}
		if p.clock-pg.used > p.clock-oldest.used {
			oldest = pg
		}
	}
	if !p.fill(oldest, addr) {
		return nil
	}
	oldest.used = p.clock
	return oldest
}

// fill reads the page of addr into pg. A segment may begin inside the page, and the reader then
// may have nothing at the page's start: the bytes from addr on are enough.
func (p *pages) fill(pg *page, addr uint64) bool {
	if addr > maxAddr {
		return false
	}
	switch {
	case pg.data != nil:
	case p.pool != nil:
		p.pool.give(pg)
	default:
		pg.data = new([pageSize]byte)
	}
	return p.fillFrom(pg, addr-addr%pageSize, addr) || p.fillFrom(pg, addr, addr)
}

// fillFrom reads from lo to the end of the page and reports whether that covers addr.
func (p *pages) fillFrom(pg *page, lo, addr uint64) bool {
	p.fills++
	b := pg.data[lo%pageSize:]
	n, _ := p.r.ReadAt(b, int64(lo)) // a short read is what matters, whatever its reason
	pg.lo, pg.hi = lo, lo+uint64(max(0, min(n, len(b))))
	return addr < pg.hi
}

// read fills dst from addr on.
func (p *pages) read(dst []byte, addr uint64) bool {
	for len(dst) > 0 {
		n := copy(dst, p.at(addr))
		if n == 0 {
			return false
		}
		dst, addr = dst[n:], addr+uint64(n)
	}
	return true
}

func (p *pages) u32(addr uint64) (uint32, bool) {
	if b := p.at(addr); len(b) >= 4 {
		return binary.LittleEndian.Uint32(b), true
	}
	var b [4]byte
	ok := p.read(b[:], addr)
	return binary.LittleEndian.Uint32(b[:]), ok
}

func (p *pages) u64(addr uint64) (uint64, bool) {
	if b := p.at(addr); len(b) >= 8 {
		return binary.LittleEndian.Uint64(b), true
	}
	var b [8]byte
	ok := p.read(b[:], addr)
	return binary.LittleEndian.Uint64(b[:]), ok
}

// cstring returns the string at addr, which must end before end and within maxString bytes.
func (p *pages) cstring(addr, end uint64) string {
	if addr >= end {
		return ""
	}
	if b := p.at(addr); b != nil {
		if i := bytes.IndexByte(b, 0); i >= 0 && addr+uint64(i) < end {
			return string(b[:i])
		}
	}
	b, ok := p.appendCString(nil, addr, min(end-addr, maxString))
	if !ok {
		return ""
	}
	return string(b)
}

// appendCString appends the string at addr without its NUL, and reports whether there was one
// within limit bytes. Without one it appends limit bytes, or what there is.
func (p *pages) appendCString(dst []byte, addr, limit uint64) ([]byte, bool) {
	for limit > 0 {
		b := p.at(addr)
		if b == nil {
			return dst, false
		}
		b = b[:min(uint64(len(b)), limit)]
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return append(dst, b[:i]...), true
		}
		dst = append(dst, b...)
		addr, limit = addr+uint64(len(b)), limit-uint64(len(b))
	}
	return dst, false
}
