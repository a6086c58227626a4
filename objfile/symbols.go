package objfile

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"io"
	"slices"
	"sort"
)

const (
	maxSymbolName = 16 << 10
	maxAliases    = 16 // names of one address that are compared
	symChunk      = 2048
)

// symbol is a function; its name stays in its string table until asked for.
type symbol struct {
	addr uint64
	size uint32
	name uint32 // offset in strings, with the table's number in the top bits
}

const (
	nameBits = 30
	nameMask = 1<<nameBits - 1
)

// symbolTable holds the functions of all symbol tables of a file, by address.
type symbolTable struct {
	symbols []symbol
	strings []*io.SectionReader // string tables, each addressed from 0
}

// Symbol finds the ELF function symbol (.symtab, .dynsym, .gnu_debugdata) that covers addr. The
// tables are read at the first call; names are as the file has them, mangled. A symbol without a
// size covers what lies before the next one.
func (f *File) Symbol(addr uint64) (name string, start uint64, ok bool) {
	if f.symbols == nil {
		f.symbols = f.loadSymbols()
	}
	if !f.executable(addr) {
		return "", 0, false
	}
	return f.symbols.covering(addr)
}

// covering finds the function around addr: the nearest one below whose size says so, else the
// nearest one if it has no size (linkers put size-less marks such as runtime.text on functions).
func (t *symbolTable) covering(addr uint64) (name string, start uint64, ok bool) {
	end := sort.Search(len(t.symbols), func(i int) bool { return t.symbols[i].addr > addr })
	if end == 0 {
		return "", 0, false
	}
	nearest := t.symbols[end-1].addr
	sized := false
	for i := end - 1; i >= 0 && i >= end-maxAliases; i-- {
		s := t.symbols[i]
		switch {
		case name != "" && s.addr != start && sized:
			return name, start, true
		case s.size > 0 && addr-s.addr >= uint64(s.size), s.size == 0 && (sized || s.addr != nearest):
			continue
		}
		n := t.name(s)
		if first := s.size > 0 && !sized; n != "" && (name == "" || first || betterName(n, name)) {
			name, start, sized = n, s.addr, s.size > 0
		}
	}
	return name, start, name != ""
}

// betterName prefers, of aliases, the one with the fewest leading underscores, then the shortest.
func betterName(a, b string) bool {
	ua, ub := len(a)-len(trimUnderscores(a)), len(b)-len(trimUnderscores(b))
	return cmp.Or(cmp.Compare(ua, ub), cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) < 0
}

func trimUnderscores(s string) string {
	for len(s) > 0 && s[0] == '_' {
		s = s[1:]
	}
	return s
}

func (t *symbolTable) name(s symbol) string {
	r := t.strings[s.name>>nameBits]
	return readString(r, int64(s.name&nameMask), maxSymbolName)
}

// readString reads a C string of at most limit bytes, a few at a time.
func readString(r io.ReaderAt, off int64, limit int) string {
	var b []byte
	for len(b) < limit {
		var piece [128]byte
		n, err := r.ReadAt(piece[:], off+int64(len(b)))
		if i := bytes.IndexByte(piece[:n], 0); i >= 0 {
			return string(append(b, piece[:i]...))
		}
		b = append(b, piece[:n]...)
		if err != nil {
			break
		}
	}
	return string(b)
}

func (f *File) loadSymbols() *symbolTable {
	t := new(symbolTable)
	t.addTables(&f.header, f.src)
	if debug := f.miniDebugInfo(); debug != nil {
		r := bytes.NewReader(debug)
		if h, err := readHeader(r, r.Size()); err == nil {
			n := len(t.strings)
			t.addTables(h, r)
			t.keepStrings(n)
		}
	}
	slices.SortFunc(t.symbols, func(a, b symbol) int { return cmp.Compare(a.addr, b.addr) })
	t.symbols = slices.Clip(slices.Compact(t.symbols))
	return t
}

// keepStrings copies the string tables from the n-th on, so that they do not hold on to all that was unpacked.
func (t *symbolTable) keepStrings(n int) {
	for i, strs := range t.strings[n:] {
		b := make([]byte, strs.Size())
		m, _ := strs.ReadAt(b, 0)
		t.strings[n+i] = io.NewSectionReader(bytes.NewReader(b), 0, int64(m))
	}
}

// addTables adds .symtab, which holds all that .dynsym does, or else .dynsym.
func (t *symbolTable) addTables(h *header, r io.ReaderAt) {
	for _, typ := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		i := slices.IndexFunc(h.sections, func(s section) bool { return s.typ == typ && s.size >= symSize })
		if i < 0 || len(t.strings) > nameTables {
			continue
		}
		strs, ok := h.stringTable(h.sections[i], r)
		if !ok {
			continue
		}
		t.strings = append(t.strings, strs)
		table := uint32(len(t.strings)-1) << nameBits
		t.symbols = slices.Grow(t.symbols, min(countFuncs(h.sections[i], r), maxSymbols-len(t.symbols))) // growing bit by bit takes twice the memory
		for s := range eachSymbol(h.sections[i], r) {
			if len(t.symbols) >= maxSymbols {
				return
			}
			if s.isFunc() && s.name <= nameMask {
				t.symbols = append(t.symbols, symbol{s.value, uint32(min(s.size, 1<<32-1)), s.name | table})
			}
		}
		return
	}
}

// nameTables is the highest number of a string table that fits into symbol.name.
const nameTables = 1<<(32-nameBits) - 1

// stringTable is the string table that a symbol table is linked to.
func (h *header) stringTable(symtab section, r io.ReaderAt) (*io.SectionReader, bool) {
	if uint64(symtab.link) >= uint64(len(h.sections)) {
		return nil, false
	}
	strs := h.sections[symtab.link]
	if strs.typ != elf.SHT_STRTAB {
		return nil, false
	}
	return io.NewSectionReader(r, int64(strs.off), int64(strs.size)), true
}

// rawSymbol is an Elf64_Sym.
type rawSymbol struct {
	name        uint32
	info        uint8
	shndx       elf.SectionIndex
	value, size uint64
}

func (s *rawSymbol) isFunc() bool {
	typ := elf.ST_TYPE(s.info)
	return (typ == elf.STT_FUNC || typ == elf.STT_GNU_IFUNC) && s.shndx != elf.SHN_UNDEF && s.name != 0
}

func countFuncs(sec section, r io.ReaderAt) (n int) {
	for s := range eachSymbol(sec, r) {
		if s.isFunc() {
			n++
		}
	}
	return n
}

// eachSymbol yields the symbols of a table, read in chunks.
func eachSymbol(sec section, r io.ReaderAt) func(yield func(rawSymbol) bool) {
	return func(yield func(rawSymbol) bool) {
		buf := make([]byte, symChunk*symSize)
		n := min(sec.size/symSize, maxSymbolScan)
		for i := uint64(0); i < n; i += symChunk {
			b := buf[:min(n-i, symChunk)*symSize]
			if _, err := r.ReadAt(b, int64(sec.off+i*symSize)); err != nil {
				return
			}
			for ; len(b) > 0; b = b[symSize:] {
				s := rawSymbol{le.Uint32(b), b[4], elf.SectionIndex(le.Uint16(b[6:])), le.Uint64(b[8:]), le.Uint64(b[16:])}
				if !yield(s) {
					return
				}
			}
		}
	}
}

// SymbolAddr is the value of a named symbol of .symtab (or .dynsym, where there is no .symtab).
// It reads through the whole table: see SymbolAddrs.
func (f *File) SymbolAddr(name string) (uint64, bool) {
	addr, ok := f.SymbolAddrs(name)[name]
	return addr, ok
}

// SymbolAddrs finds several symbols, of any type, in one pass. Nothing of the table is kept.
func (f *File) SymbolAddrs(names ...string) map[string]uint64 {
	found := make(map[string]uint64)
	for _, typ := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		i := slices.IndexFunc(f.sections, func(s section) bool { return s.typ == typ && s.size >= symSize })
		if i < 0 {
			continue
		}
		strs, ok := f.stringTable(f.sections[i], f.src.r)
		if !ok {
			return found
		}
		offsets := nameOffsets(strs, names)
		for s := range eachSymbol(f.sections[i], f.src.r) {
			name, ok := offsets[s.name]
			if _, again := found[name]; ok && !again && s.shndx != elf.SHN_UNDEF {
				found[name] = s.value
			}
		}
		return found
	}
	return found
}

// maxNameOffsets bounds how many strings of a table may end in the names that are looked for.
const maxNameOffsets = 4096

// nameOffsets finds where in a string table the names stand. Linkers merge a name with the tail of a
// longer one, so it need not follow a NUL.
func nameOffsets(strs *io.SectionReader, names []string) map[uint32]string {
	offsets := make(map[uint32]string)
	const overlap = 4 << 10
	buf := make([]byte, scanChunk)
	for base := int64(0); base < min(strs.Size(), searchBudget); base += scanChunk - overlap {
		n, err := strs.ReadAt(buf, base)
		for _, name := range names {
			findAll(buf[:n], append([]byte(name), 0), func(i int) bool {
				offsets[uint32(base)+uint32(i)] = name
				return len(offsets) < maxNameOffsets
			})
		}
		if err != nil {
			break
		}
	}
	return offsets
}

func findAll(b, pattern []byte, found func(int) bool) {
	for pos := 0; ; pos++ {
		i := bytes.Index(b[pos:], pattern)
		if i < 0 || !found(pos+i) {
			return
		}
		pos += i
	}
}

// ErrNoSection is wrapped by errors about sections that a file does not have.
var ErrNoSection = fmt.Errorf("no such section")
