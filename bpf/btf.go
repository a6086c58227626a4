package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The format of BTF: Documentation/bpf/btf.rst of the kernel.
const (
	btfMagic      = 0xeb9f
	btfHeaderSize = 24
	btfTypeSize   = 12
	maxBTFSection = 64 << 20 // of the kernel's own; Debian's has 6 MB
	maxBTFNesting = 8        // of typedefs and qualifiers
	maxBTFName    = 512      // the kernel's KSYM_NAME_LEN
	maxBTFMembers = 1 << 14  // that are looked at for one: a struct's, and those of anonymous ones inside; task_struct has 260
)

// Kinds of types that matter here.
const (
	btfKindStruct   = 4
	btfKindUnion    = 5
	btfKindTypedef  = 8
	btfKindVolatile = 9
	btfKindConst    = 10
	btfKindRestrict = 11
	btfKindTypeTag  = 18
)

// btfTrailer is what follows the 12 bytes of a type, by kind: bytes of its own and bytes for each of its vlen elements.
var btfTrailer = [...]struct{ own, each int }{
	1: {4, 0}, 3: {12, 0}, btfKindStruct: {0, 12}, btfKindUnion: {0, 12}, 6: {0, 8}, 13: {0, 8}, 14: {4, 0}, 15: {0, 12},
	17: {4, 0}, btfKindTypeTag: {0, 0}, 19: {0, 12},
}

var errBTF = errors.New("malformed BTF")

// btfTypes finds types in a BTF blob, which it reads where it has to.
type btfTypes struct {
	r       io.ReaderAt
	types   int64    // where the types begin
	offsets []uint32 // of each type, from there; type 0 is void
	strings []byte
	structs map[string][]uint32 // wanted names; those of structs that have members
}

// btfHeader is struct btf_header.
type btfHeader struct {
	Magic                                 uint16
	Version, Flags                        uint8
	Len, TypeOff, TypeLen, StrOff, StrLen uint32
}

// readBTF indexes the BTF at the beginning of r.
func readBTF(r io.ReaderAt) (*btfTypes, error) {
	var h btfHeader
	if err := binary.Read(io.NewSectionReader(r, 0, btfHeaderSize), binary.LittleEndian, &h); err != nil {
		return nil, fmt.Errorf("%w: %w", errBTF, err)
	}
	if h.Magic != btfMagic || h.Version != 1 || h.TypeLen > maxBTFSection || h.StrLen > maxBTFSection {
		return nil, fmt.Errorf("%w: header %+v", errBTF, h)
	}
	t := &btfTypes{r: r, types: int64(h.Len) + int64(h.TypeOff), structs: map[string][]uint32{}}
	var err error
	if t.strings, err = readAll(r, int64(h.Len)+int64(h.StrOff), int(h.StrLen)); err != nil {
		return nil, err
	}
	return t, t.index(int(h.TypeLen))
}

// readAll reads n bytes. It allocates them once the last of them is known to exist.
func readAll(r io.ReaderAt, off int64, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if m, ok := r.(mappedBTF); ok {
		return m.piece(off, n)
	}
	var last [1]byte
	if m, err := r.ReadAt(last[:], off+int64(n)-1); m == 0 {
		return nil, fmt.Errorf("%w: %w", errBTF, err)
	}
	b := make([]byte, n)
	if m, err := r.ReadAt(b, off); m < n {
		return nil, fmt.Errorf("%w: %w", errBTF, err)
	}
	return b, nil
}

// mappedBTF is the kernel's own description of its types, which Linux lets map since 6.16 (kernel/bpf/sysfs_btf.c). To read it
// costs a system call for each 4 KiB, 1,400 in all.
type mappedBTF []byte

// mapBTF maps f, which must be the kernel's.
func mapBTF(f *os.File) (mappedBTF, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

func (m mappedBTF) close() { _ = unix.Munmap(m) } // it was mapped

// ReadAt implements io.ReaderAt.
func (m mappedBTF) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

// piece is valid until close.
func (m mappedBTF) piece(off int64, n int) ([]byte, error) {
	if off < 0 || n < 0 || off > int64(len(m)) || int64(n) > int64(len(m))-off {
		return nil, fmt.Errorf("%w: %d bytes at %d of %d", errBTF, n, off, len(m))
	}
	return m[off : off+int64(n) : off+int64(n)], nil
}

const btfChunk = 64 << 10 // that is read at once

// index notes where each type is, and the structs by name. size is of all types.
func (t *btfTypes) index(size int) error {
	t.offsets = append(make([]uint32, 0, size/28), 0) // some 28 bytes a type
	var chunk []byte
	for off := 0; off < size; {
		b, err := t.read(&chunk, off, size-off)
		if err != nil {
			return err
		}
		for len(b) >= btfTypeSize {
			n, err := t.note(b, off)
			if err != nil {
				return err
			}
			if off += n; off > size {
				return fmt.Errorf("%w: a type is longer than all", errBTF)
			}
			b = b[min(n, len(b)):]
		}
	}
	return nil
}

// read returns some of the n bytes of types that begin at off, at least one type's.
func (t *btfTypes) read(chunk *[]byte, off, n int) ([]byte, error) {
	if m, ok := t.r.(mappedBTF); ok && n >= btfTypeSize {
		return m.piece(t.types+int64(off), n)
	}
	if *chunk == nil {
		*chunk = make([]byte, btfChunk)
	}
	b := (*chunk)[:min(n, btfChunk)]
	n, err := t.r.ReadAt(b, t.types+int64(off))
	if n < btfTypeSize {
		return nil, fmt.Errorf("%w: types end after %d bytes: %w", errBTF, off+n, err)
	}
	return b[:n], nil
}

// note notes the type that begins at off, and returns its length.
func (t *btfTypes) note(b []byte, off int) (length int, err error) {
	h := parseBTFType(b)
	trailer, ok := h.trailer()
	if !ok {
		return 0, fmt.Errorf("%w: type of kind %d", errBTF, h.kind)
	}
	if h.kind == btfKindStruct && h.vlen > 0 && h.name != 0 {
		if name := t.name(h.name); wantedStruct(name) {
			t.structs[string(name)] = append(t.structs[string(name)], uint32(len(t.offsets)))
		}
	}
	t.offsets = append(t.offsets, uint32(off))
	return btfTypeSize + trailer, nil
}

// wantedStruct reports whether kernel.h may declare a struct of this name.
func wantedStruct(name []byte) bool {
	switch string(name) {
	case "file", "inode", "super_block", "timespec64":
		return true
	}
	return bytes.HasSuffix(name, []byte("_struct"))
}

// btfType is struct btf_type.
type btfType struct {
	name, kind, vlen uint32
	bitfields        bool   // members have their size in the upper 8 bits of their offset
	typ              uint32 // of typedefs and qualifiers
}

func parseBTFType(b []byte) btfType {
	info := binary.LittleEndian.Uint32(b[4:])
	return btfType{name: binary.LittleEndian.Uint32(b), kind: info >> 24 & 0x1f, vlen: info & 0xffff,
		bitfields: info>>31 != 0, typ: binary.LittleEndian.Uint32(b[8:])}
}

func (h btfType) trailer() (n int, ok bool) {
	if h.kind == 0 || h.kind >= uint32(len(btfTrailer)) {
		return 0, false
	}
	t := btfTrailer[h.kind]
	return t.own + t.each*int(h.vlen), true
}

// name is the string at an offset of the string section. One that is longer than any in a kernel is none.
func (t *btfTypes) name(off uint32) []byte {
	if uint64(off) >= uint64(len(t.strings)) {
		return nil
	}
	s := t.strings[off:min(uint64(off)+maxBTFName, uint64(len(t.strings)))]
	if i := bytes.IndexByte(s, 0); i >= 0 {
		return s[:i]
	}
	return nil
}

// get reads a type; typedefs and qualifiers are seen through.
func (t *btfTypes) get(id uint32) (h btfType, members []byte, err error) {
	for range maxBTFNesting {
		if id == 0 || uint64(id) >= uint64(len(t.offsets)) {
			return h, nil, fmt.Errorf("type %d: %w", id, errNoType)
		}
		at := t.types + int64(t.offsets[id])
		b, err := readAll(t.r, at, btfTypeSize)
		if err != nil {
			return h, nil, err
		}
		switch h = parseBTFType(b); h.kind {
		case btfKindStruct, btfKindUnion:
			members, err = readAll(t.r, at+btfTypeSize, int(h.vlen)*12)
			return h, members, err
		case btfKindTypedef, btfKindVolatile, btfKindConst, btfKindRestrict, btfKindTypeTag:
			id = h.typ
		default:
			return h, nil, nil
		}
	}
	return h, nil, fmt.Errorf("%w: typedefs without end", errBTF)
}

// member finds a member of a struct or union, also inside anonymous ones: its offset in bits, and its type.
func (t *btfTypes) member(id uint32, name string) (bits, typ uint32, err error) {
	looked := 0
	return t.memberWithin(id, name, &looked)
}

// memberWithin counts in looked the structs and members that it has looked at.
func (t *btfTypes) memberWithin(id uint32, name string, looked *int) (bits, typ uint32, err error) {
	h, members, err := t.get(id)
	if err != nil {
		return 0, 0, err
	}
	if *looked += 1 + len(members)/12; *looked > maxBTFMembers {
		return 0, 0, fmt.Errorf("%w: anonymous structs without end", errBTF)
	}
	for ; len(members) > 0; members = members[12:] {
		nameOff, typ := binary.LittleEndian.Uint32(members), binary.LittleEndian.Uint32(members[4:])
		bits := binary.LittleEndian.Uint32(members[8:])
		if h.bitfields {
			bits &= 0xffffff
		}
		if nameOff == 0 {
			inner, innerType, err := t.memberWithin(typ, name, looked)
			if err == nil {
				return bits + inner, innerType, nil
			}
			if !errors.Is(err, errNoType) {
				return 0, 0, err
			}
		} else if string(t.name(nameOff)) == name {
			return bits, typ, nil
		}
	}
	return 0, 0, fmt.Errorf("member %s: %w", name, errNoType)
}
