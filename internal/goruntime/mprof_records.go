package goruntime

import "io"

// MemRecords are the allocation sites of one reading, in little memory: 40 bytes each and 8 for each frame. They need the
// process no more.
type MemRecords struct {
	sites  []memRecord
	frames []uint64
}

type memRecord struct {
	addr, size, allocs, frees uint64
	first, depth              uint32 // of its frames
}

// ReadAll is Read into r, in the place of what r held. After an error r holds what was read before.
func (m *MemProfile) ReadAll(mem io.ReaderAt, bias uint64, mode ReadMode, r *MemRecords) (moved bool, err error) {
	r.sites, r.frames = r.sites[:0], r.frames[:0]
	return m.Read(mem, bias, mode, func(b *Bucket) error {
		r.sites = append(r.sites, memRecord{
			b.Addr, b.Size, b.Allocs, b.Frees, uint32(len(r.frames)), uint32(len(b.Stack)),
		})
		r.frames = append(r.frames, b.Stack...)
		return nil
	})
}

// Len is how many sites there are.
func (r *MemRecords) Len() int { return len(r.sites) }

// Bytes is how much memory r holds on to.
func (r *MemRecords) Bytes() int { return cap(r.sites)*memRecordBytes + cap(r.frames)*8 }

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
