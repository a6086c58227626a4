package objfile

import (
	"debug/elf"
	"fmt"
	"iter"
	"slices"

	"github.com/pprofd/pprofd/gopclntab"
)

// Module is a Go module (in the linker's sense) inside an image.
type Module struct {
	gopclntab.Image
	ModuleData                                                         uint64 // address of runtime.firstmoduledata
	Data, EData, BSS, EBSS, NoPtrData, ENoPtrData, NoPtrBSS, ENoPtrBSS uint64
	Next                                                               uint64 // moduledata.next; 0 in files
	NextAddr                                                           uint64 // where Next is, for reading it from a process; 0: unknown
}

const (
	maxHeaderCandidates = 16
	maxModuleCandidates = 64
)

// GoModule finds the tables: by section, else by scan. The error wraps ErrNotGo. The result is kept.
func (f *File) GoModule() (Module, error) { return f.module.get(f.findModule) }

func (f *File) findModule() (Module, error) {
	if f.plainlyNotGo() {
		return Module{}, fmt.Errorf("no section is the Go linker's: %w", ErrNotGo)
	}
	s := newSearch(f)
	headers := 0
	for h := range s.headers() {
		if headers++; headers > maxHeaderCandidates {
			break
		}
		if m, ok := s.moduleOf(h); ok {
			return m, nil
		}
	}
	switch {
	case f.Refused() != nil:
		return Module{}, fmt.Errorf("search for Go tables: %w", f.Refused())
	case s.left <= 0:
		return Module{}, fmt.Errorf("no Go tables in the first %d MiB: %w", searchBudget>>20, ErrNotGo)
	case headers > 0:
		return Module{}, fmt.Errorf("a Go function table without module data: %w", ErrNotGo)
	}
	return Module{}, fmt.Errorf("no Go function table: %w", ErrNotGo)
}

// plainlyNotGo says that section headers are intact and the Go linker wrote none of them. It spares
// searching through every C library.
func (f *File) plainlyNotGo() bool {
	intact := slices.ContainsFunc(f.sections, func(s section) bool {
		return s.typ == elf.SHT_PROGBITS && s.flags&elf.SHF_EXECINSTR != 0 && f.executable(s.addr)
	})
	_, isGo := f.section(".go.buildinfo", ".gopclntab", ".data.rel.ro.gopclntab", ".go.module", ".note.go.buildid", ".noptrdata", ".noptrbss")
	return intact && !isGo
}

// pcHeader is runtime.pcHeader (Go 1.26 runtime/symtab.go:376; Go 1.16 and 1.17 have no textStart).
type pcHeader struct {
	addr  uint64
	magic uint32
	nfunc uint64
	// offs are the offsets of funcnametab, cutab, filetab, pctab and functab from addr.
	offs [5]uint64
}

// Magic numbers of pclntab (Go 1.26 internal/abi/symtab.go:14).
const (
	magic116 = 0xfffffffa
	magic118 = 0xfffffff0
	magic120 = 0xfffffff1
)

// headers yields sound pclntab headers: at named sections, then wherever the magic stands.
func (s *search) headers() iter.Seq[pcHeader] {
	return func(yield func(pcHeader) bool) {
		for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
			sec, ok := s.f.section(name)
			if !ok {
				continue
			}
			if h, ok := s.f.pcHeaderAt(sec.addr); ok && !yield(h) {
				return
			}
		}
		for addr := range s.findInSegments(s.f.magicTail(), 0, elf.PF_X) {
			if h, ok := s.f.pcHeaderAt(addr - 1); ok && !yield(h) {
				return
			}
		}
	}
}

// magicTail is what follows the first byte of every magic number up to the pointer size: the
// instruction quantum differs by machine.
func (f *File) magicTail() []byte {
	minLC := byte(1)
	if f.machine == elf.EM_AARCH64 {
		minLC = 4
	}
	return []byte{0xff, 0xff, 0xff, 0, 0, minLC, 8}
}

// pcHeaderAt checks the header at addr: known magic, tables in order, the first function's entry
// the same in functab and _func.
func (f *File) pcHeaderAt(addr uint64) (pcHeader, bool) {
	var b [0x48]byte
	if _, err := f.ReadAt(b[:], int64(addr)); err != nil || addr%8 != 0 || string(b[1:8]) != string(f.magicTail()) {
		return pcHeader{}, false
	}
	h := pcHeader{addr: addr, magic: le.Uint32(b[:]), nfunc: le.Uint64(b[8:])}
	first := 0x20
	switch h.magic {
	case magic116:
		first = 0x18
	case magic118, magic120:
	default:
		return pcHeader{}, false
	}
	prev := uint64(0x3f)
	for i := range h.offs {
		h.offs[i] = le.Uint64(b[first+8*i:])
		if h.offs[i] <= prev || h.offs[i] > 1<<40 {
			return pcHeader{}, false
		}
		prev = h.offs[i]
	}
	return h, h.nfunc > 0 && h.nfunc < 1<<28 && f.firstFuncAgrees(h)
}

// firstFuncAgrees compares functab[0].entry with the entry in the _func that it points to.
// Go 1.16 and 1.17 have addresses there, newer ones 32-bit offsets from the text's start.
func (f *File) firstFuncAgrees(h pcHeader) bool {
	functab := h.addr + h.offs[4]
	var entry, fn [16]byte
	if _, err := f.ReadAt(entry[:], int64(functab)); err != nil {
		return false
	}
	size := 4
	off := uint64(le.Uint32(entry[4:]))
	if h.magic == magic116 {
		size, off = 8, le.Uint64(entry[8:])
	}
	if off < h.nfunc*uint64(2*size) || off > 1<<40 {
		return false
	}
	_, err := f.ReadAt(fn[:size], int64(functab+off))
	return err == nil && string(fn[:size]) == string(entry[:size])
}

// moduleOf finds the moduledata that points to the header h.
func (s *search) moduleOf(h pcHeader) (Module, bool) {
	n := 0
	for addr := range s.moduleCandidates(h) {
		if n++; n > maxModuleCandidates {
			break
		}
		if m, ok := s.moduleAt(addr, h); ok {
			return m, true
		}
	}
	return Module{}, false
}

// moduleCandidates yields addresses whose word is, or is relocated to, the address of h.
func (s *search) moduleCandidates(h pcHeader) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		word := le.AppendUint64(nil, h.addr)
		if sec, ok := s.f.section(".go.module"); ok && !yield(sec.addr) { // Go 1.26 and newer
			return
		}
		if sec, ok := s.f.section(".noptrdata"); ok {
			for addr := range s.find(sec.addr, sec.addr+min(sec.size, 1<<40), word) {
				if addr%8 == 0 && !yield(addr) {
					return
				}
			}
		}
		for r := range s.relocations() {
			if r.addend == h.addr && !yield(r.offset) {
				return
			}
		}
		for addr := range s.findInSegments(word, elf.PF_W, 0) {
			if addr%8 == 0 && !yield(addr) {
				return
			}
		}
	}
}
