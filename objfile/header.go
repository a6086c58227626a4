package objfile

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Limits on what a header may claim. Real Go programs have a dozen program headers and some forty sections.
const (
	maxProgs    = 1024
	maxSections = 4096
	maxShstrtab = 256 << 10
	maxSecName  = 128
)

// Sizes of the structures of 64-bit ELF (elf(5)).
const (
	ehdrSize = 64
	phdrSize = 56
	shdrSize = 64
	symSize  = 24
	relaSize = 24
	chdrSize = 24
)

var le = binary.LittleEndian

// ErrUnsupported is wrapped by errors about files that are no 64-bit little-endian ELF of a supported machine.
var ErrUnsupported = errors.New("unsupported file")

// header is what Open reads: the ELF header, program headers and section headers.
type header struct {
	machine  elf.Machine
	typ      elf.Type
	entry    uint64
	progs    []elf.ProgHeader
	loads    []elf.ProgHeader // PT_LOAD, by address, without overlap
	sections []section        // nil where they are missing or make no sense
}

// section is a section header with its name.
type section struct {
	name                         string
	typ                          elf.SectionType
	flags                        elf.SectionFlag
	addr, off, size, align, entz uint64
	link                         uint32
}

// readHeader reads an ELF file's headers. Program headers must be sound; section headers, which
// loaders ignore and packers remove, are dropped where they are not.
func readHeader(r io.ReaderAt, size int64) (*header, error) {
	var b [ehdrSize]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, fmt.Errorf("read ELF header: %w", noEOF(err))
	}
	if err := checkIdent(b[:]); err != nil {
		return nil, err
	}
	h := &header{
		typ:     elf.Type(le.Uint16(b[16:])),
		machine: elf.Machine(le.Uint16(b[18:])),
		entry:   le.Uint64(b[24:]),
	}
	if h.machine != elf.EM_X86_64 && h.machine != elf.EM_AARCH64 {
		return nil, fmt.Errorf("ELF file for %v, need x86-64 or aarch64: %w", h.machine, ErrUnsupported)
	}
	if h.typ != elf.ET_EXEC && h.typ != elf.ET_DYN {
		return nil, fmt.Errorf("ELF file of type %v, need an executable or shared library: %w", h.typ, ErrUnsupported)
	}
	if err := h.readProgs(r, le.Uint64(b[32:]), le.Uint16(b[54:]), le.Uint16(b[56:])); err != nil {
		return nil, err
	}
	h.readSections(r, size, b[:])
	return h, nil
}

func checkIdent(b []byte) error {
	switch {
	case !bytes.HasPrefix(b, []byte(elf.ELFMAG)):
		return fmt.Errorf("no ELF file: %w", ErrUnsupported)
	case elf.Class(b[elf.EI_CLASS]) != elf.ELFCLASS64:
		return fmt.Errorf("ELF file is not 64-bit: %w", ErrUnsupported)
	case elf.Data(b[elf.EI_DATA]) != elf.ELFDATA2LSB:
		return fmt.Errorf("ELF file is not little-endian: %w", ErrUnsupported)
	}
	return nil
}

func (h *header) readProgs(r io.ReaderAt, off uint64, entSize, n uint16) error {
	if entSize != phdrSize || n == 0 || n > maxProgs || off > 1<<62 {
		return fmt.Errorf("ELF program headers: %d of %d bytes: %w", n, entSize, ErrUnsupported)
	}
	b := make([]byte, int(n)*phdrSize)
	if _, err := r.ReadAt(b, int64(off)); err != nil {
		return fmt.Errorf("read ELF program headers: %w", noEOF(err))
	}
	h.progs = make([]elf.ProgHeader, n)
	for i := range h.progs {
		p := b[i*phdrSize:]
		h.progs[i] = elf.ProgHeader{
			Type: elf.ProgType(le.Uint32(p)), Flags: elf.ProgFlag(le.Uint32(p[4:])), Off: le.Uint64(p[8:]), Vaddr: le.Uint64(p[16:]),
			Paddr: le.Uint64(p[24:]), Filesz: le.Uint64(p[32:]), Memsz: le.Uint64(p[40:]), Align: le.Uint64(p[48:]),
		}
	}
	h.loads = soundLoads(h.progs)
	if len(h.loads) == 0 {
		return fmt.Errorf("ELF file maps nothing: %w", ErrUnsupported)
	}
	return nil
}

// soundLoads returns the PT_LOADs in order, without those that overflow or overlap an earlier one.
func soundLoads(progs []elf.ProgHeader) []elf.ProgHeader {
	var loads []elf.ProgHeader
	for _, p := range progs {
		p.Filesz = min(p.Filesz, p.Memsz)
		if p.Type == elf.PT_LOAD && p.Memsz > 0 && p.Vaddr < 1<<62 && p.Memsz < 1<<62 && p.Off < 1<<62 {
			loads = append(loads, p)
		}
	}
	slices.SortStableFunc(loads, func(a, b elf.ProgHeader) int { return cmp.Compare(a.Vaddr, b.Vaddr) })
	var end uint64
	return slices.DeleteFunc(loads, func(p elf.ProgHeader) bool {
		if p.Vaddr < end {
			return true
		}
		end = p.Vaddr + p.Memsz
		return false
	})
}

// readSections leaves h.sections nil where anything is odd. ehdr is the ELF header.
func (h *header) readSections(r io.ReaderAt, size int64, ehdr []byte) {
	off, entSize := le.Uint64(ehdr[40:]), le.Uint16(ehdr[58:])
	n, strndx := int(le.Uint16(ehdr[60:])), int(le.Uint16(ehdr[62:]))
	if off == 0 || entSize != shdrSize || n == 0 || n > maxSections || strndx >= n || off > uint64(size) {
		return
	}
	b := make([]byte, n*shdrSize)
	if _, err := r.ReadAt(b, int64(off)); err != nil {
		return
	}
	names := sectionBytes(r, parseSection(b[strndx*shdrSize:]), maxShstrtab)
	if len(names) == 0 {
		return
	}
	sections := make([]section, 0, n)
	for i := range n {
		s := parseSection(b[i*shdrSize:])
		s.name = cString(names, le.Uint32(b[i*shdrSize:]), maxSecName)
		if s.typ != elf.SHT_NOBITS && s.typ != elf.SHT_NULL && (s.off > uint64(size) || s.size > uint64(size)-s.off) {
			s.typ = elf.SHT_NULL // keeps the index; its data is not there
		}
		sections = append(sections, s)
	}
	h.sections = sections
}

func parseSection(b []byte) section {
	return section{
		typ: elf.SectionType(le.Uint32(b[4:])), flags: elf.SectionFlag(le.Uint64(b[8:])), addr: le.Uint64(b[16:]),
		off: le.Uint64(b[24:]), size: le.Uint64(b[32:]), link: le.Uint32(b[40:]), align: le.Uint64(b[48:]), entz: le.Uint64(b[56:]),
	}
}

// sectionBytes reads a section of at most limit bytes; nil where it is larger or cannot be read.
func sectionBytes(r io.ReaderAt, s section, limit uint64) []byte {
	if s.typ == elf.SHT_NOBITS || s.typ == elf.SHT_NULL || s.size > limit || s.off > 1<<62 {
		return nil
	}
	b := make([]byte, s.size)
	if _, err := r.ReadAt(b, int64(s.off)); err != nil {
		return nil
	}
	return b
}

// section returns the first section that has data of one of the names.
func (h *header) section(names ...string) (section, bool) {
	for _, name := range names {
		for _, s := range h.sections {
			if s.name == name && s.typ != elf.SHT_NULL {
				return s, true
			}
		}
	}
	return section{}, false
}

// cString returns the string at off, at most limit bytes of it.
func cString(b []byte, off uint32, limit int) string {
	if uint64(off) >= uint64(len(b)) {
		return ""
	}
	b = b[off:]
	b = b[:min(limit, len(b))]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// noEOF says that a file that ends too early is damaged.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
