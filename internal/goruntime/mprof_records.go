package goruntime

import (
	"io"
	"time"
)

// MemRecords are the allocation sites of one reading, in little memory: 40 bytes each and 8 for each frame. They need the
// process no more.
type MemRecords struct {
	Reuse bool // for one reading after the other: what reading takes, up to 4 MiB, is kept, too

	sites  []memRecord
	frames []uint64
	blocks *blocks // where Reuse is set
}

type memRecord struct {
	addr, size, allocs, frees uint64
	first, depth              uint32 // of its frames
}

// ReadAll is Read into r, in the place of what r held. After an error r holds what was read before.
func (m *MemProfile) ReadAll(mem io.ReaderAt, bias uint64, mode ReadMode, r *MemRecords) (moved bool, err error) {
	err = r.fill(mem, m.limit(), func(c *blocks) (err error) {
		moved, err = m.read(c, bias, mode, func(b *Bucket) error {
			r.add(memRecord{addr: b.Addr, size: b.Size, allocs: b.Allocs, frees: b.Frees}, b.Stack)
			return nil
		})
		return err
	})
	return moved, err
}

// fill has read, which may take as long as limit, make another reading of r.
func (r *MemRecords) fill(mem io.ReaderAt, limit time.Duration, read func(*blocks) error) error {
	r.sites, r.frames = r.sites[:0], r.frames[:0]
	c := r.blocks
	if c == nil {
		c = &blocks{}
	}
	if r.Reuse {
		r.blocks = c
	}
	c.again(mem, limit)
	defer c.end()
	return read(c)
}

func (r *MemRecords) add(site memRecord, stack []uint64) {
	site.first, site.depth = uint32(len(r.frames)), uint32(len(stack))
	r.sites = append(r.sites, site)
	r.frames = append(r.frames, stack...)
}

// Len is how many sites there are.
func (r *MemRecords) Len() int { return len(r.sites) }

// Bytes is how much memory r holds on to.
func (r *MemRecords) Bytes() int {
	n := cap(r.sites)*memRecordBytes + cap(r.frames)*8
	if r.blocks != nil {
		n += r.blocks.bytes()
	}
	return n
}

const memRecordBytes = 40

// All yields the sites in the order of reading. The bucket is valid until the next.
func (r *MemRecords) All(yield func(*Bucket) bool) {
	var b Bucket
	for _, s := range r.sites {
		b = Bucket{Addr: s.addr, Size: s.size, Allocs: s.allocs, Frees: s.frees, Stack: r.frames[s.first : s.first+s.depth]}
		if !yield(&b) {
			return
		}
	}
}
