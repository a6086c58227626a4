package objfile

import (
	"debug/elf"
	"iter"
)

// relaTable is where DT_RELA says that the relocations with addends are.
// DT_RELR needs no table here: its addends are in place.
type relaTable struct {
	addr, n uint64
	// relative entries come first and are sorted (DT_RELACOUNT); 0 where the linker does not say.
	relative uint64
}

type reloc struct{ offset, addend uint64 }

const maxDynamic = 64 << 10

// relocTable reads PT_DYNAMIC. Images in memory are relocated already and have none.
func (f *File) relocTable() relaTable {
	t, _ := f.rela.get(func() (relaTable, error) {
		if f.memory {
			return relaTable{}, nil
		}
		dyn := f.dynamic()
		if ent := dyn[elf.DT_RELAENT]; ent != relaSize {
			return relaTable{}, nil
		}
		t := relaTable{addr: dyn[elf.DT_RELA], n: dyn[elf.DT_RELASZ] / relaSize, relative: dyn[elf.DT_RELACOUNT]}
		t.relative = min(t.relative, t.n)
		return t, nil
	})
	return t
}

// dynamic returns the dynamic section's tags; the first of each counts.
func (f *File) dynamic() map[elf.DynTag]uint64 {
	tags := make(map[elf.DynTag]uint64)
	for _, p := range f.progs {
		if p.Type != elf.PT_DYNAMIC {
			continue
		}
		b := make([]byte, min(p.Filesz, maxDynamic)&^15)
		if _, err := f.ReadAt(b, int64(p.Vaddr)); err != nil {
			return tags
		}
		for ; len(b) >= 16; b = b[16:] {
			tag := elf.DynTag(le.Uint64(b))
			if tag == elf.DT_NULL {
				break
			}
			if _, ok := tags[tag]; !ok {
				tags[tag] = le.Uint64(b[8:])
			}
		}
		return tags
	}
	return tags
}

// parseRela returns a relative relocation; ok is false for other types.
func (f *File) parseRela(b []byte) (r reloc, ok bool) {
	relative := uint32(elf.R_X86_64_RELATIVE)
	if f.machine == elf.EM_AARCH64 {
		relative = uint32(elf.R_AARCH64_RELATIVE)
	}
	return reloc{le.Uint64(b), le.Uint64(b[16:])}, uint32(le.Uint64(b[8:])) == relative
}

// relocations yields all relative relocations, within the search's budget.
func (s *search) relocations() iter.Seq[reloc] {
	return func(yield func(reloc) bool) {
		t := s.f.relocTable()
		end := t.addr + min(t.n*relaSize, 1<<40)
		pos := t.addr
		for addr, chunk := range s.chunks(t.addr, end, relaSize-1) {
			if addr > pos {
				return // a hole
			}
			for pos+relaSize <= addr+uint64(len(chunk)) {
				r, ok := s.f.parseRela(chunk[pos-addr:])
				pos += relaSize
				if ok && !yield(r) {
					return
				}
			}
		}
	}
}

// relocate applies relative relocations to b, the memory at addr, in one pass over the whole table.
func (s *search) relocate(addr uint64, b []byte) {
	for r := range s.relocations() {
		apply(r, addr, b)
	}
}

// relocateSorted does so by binary search, where the linker has sorted the table.
func (s *search) relocateSorted(addr uint64, b []byte) {
	t := s.f.relocTable()
	lo, hi := uint64(0), t.relative
	for lo < hi {
		mid := lo + (hi-lo)/2
		r, ok := s.rela(t, mid)
		switch {
		case !ok:
			return
		case r.offset < addr:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	for i := lo; i < min(t.relative, lo+uint64(len(b))/8); i++ {
		if r, ok := s.rela(t, i); ok {
			apply(r, addr, b)
		}
	}
}

func (s *search) rela(t relaTable, i uint64) (reloc, bool) {
	var b [relaSize]byte
	if _, err := s.f.ReadAt(b[:], int64(t.addr+i*relaSize)); err != nil {
		return reloc{}, false
	}
	return s.f.parseRela(b[:])
}

func apply(r reloc, addr uint64, b []byte) {
	if i := r.offset - addr; r.offset >= addr && i < uint64(len(b)) && uint64(len(b))-i >= 8 {
		le.PutUint64(b[i:], r.addend)
	}
}
