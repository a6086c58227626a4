package objfile

import (
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// debugSection is where a debug section's data is.
type debugSection struct {
	off, stored, plain uint64
	compressed         bool
}

// DWARFSection returns a small debug section by its name's suffix ("abbrev", "addr", ...), decompressed.
// Of a large one it returns the beginning, maxDWARFSection bytes. Errors wrap ErrNoSection where the file has none.
func (f *File) DWARFSection(name string) ([]byte, error) {
	r, size, err := f.OpenDWARF(name)
	if err != nil {
		return nil, err
	}
	b, err := readGrowing(r, min(size, maxDWARFSection))
	if err != nil {
		return nil, fmt.Errorf("read .debug_%s: %w", name, err)
	}
	return b, nil
}

// OpenDWARF returns a stream of a debug section's data, decompressed, and the size that the section claims. The stream
// ends after maxDWARF bytes at the latest. Errors wrap ErrNoSection where the file has none.
func (f *File) OpenDWARF(name string) (r io.Reader, size uint64, err error) {
	d, err := f.debugSection(name)
	if err != nil {
		return nil, 0, err
	}
	r = io.NewSectionReader(f.src.r, int64(d.off), int64(d.stored))
	if d.compressed {
		if r, err = zlib.NewReader(r); err != nil {
			return nil, 0, fmt.Errorf("decompress .debug_%s: %w", name, noEOF(err))
		}
	}
	return io.LimitReader(r, maxDWARF), d.plain, nil
}

// readGrowing reads exactly size bytes, but does not trust size before the data has come.
func readGrowing(r io.Reader, size uint64) ([]byte, error) {
	const firstBytes = 1 << 20
	b := make([]byte, 0, min(size, firstBytes))
	for uint64(len(b)) < size {
		if len(b) == cap(b) {
			grown := make([]byte, len(b), min(size, uint64(cap(b))*4))
			copy(grown, b)
			b = grown
		}
		n, err := io.ReadFull(r, b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err != nil {
			return nil, noEOF(err)
		}
	}
	return b, nil
}

func (f *File) debugSection(name string) (debugSection, error) {
	if s, ok := f.section(".debug_" + name); ok && s.typ != elf.SHT_NOBITS {
		if s.flags&elf.SHF_COMPRESSED == 0 {
			return debugSection{off: s.off, stored: s.size, plain: s.size}, nil
		}
		return f.compressedSection(s)
	}
	if s, ok := f.section(".zdebug_" + name); ok && s.typ != elf.SHT_NOBITS {
		return f.zdebugSection(s)
	}
	return debugSection{}, fmt.Errorf(".debug_%s: %w", name, ErrNoSection)
}

// compressedSection reads an Elf64_Chdr (gABI, "Section Compression").
func (f *File) compressedSection(s section) (debugSection, error) {
	var b [chdrSize]byte
	if s.size < chdrSize {
		return debugSection{}, fmt.Errorf("%s: compressed data is cut: %w", s.name, io.ErrUnexpectedEOF)
	}
	if _, err := f.src.ReadAt(b[:], int64(s.off)); err != nil {
		return debugSection{}, fmt.Errorf("%s: %w", s.name, noEOF(err))
	}
	if t := elf.CompressionType(le.Uint32(b[:])); t != elf.COMPRESS_ZLIB {
		return debugSection{}, fmt.Errorf("%s: compression %v: %w", s.name, t, ErrUnsupported)
	}
	return debugSection{s.off + chdrSize, s.size - chdrSize, le.Uint64(b[8:]), true}, nil
}

// zdebugSection reads the older form: "ZLIB" and the size in big-endian (Go 1.18 and older linkers).
func (f *File) zdebugSection(s section) (debugSection, error) {
	var b [12]byte
	if s.size < uint64(len(b)) || s.size > math.MaxInt64 {
		return debugSection{}, fmt.Errorf("%s: compressed data is cut: %w", s.name, io.ErrUnexpectedEOF)
	}
	if _, err := f.src.ReadAt(b[:], int64(s.off)); err != nil {
		return debugSection{}, fmt.Errorf("%s: %w", s.name, noEOF(err))
	}
	if string(b[:4]) != "ZLIB" {
		return debugSection{}, fmt.Errorf("%s: no zlib data: %w", s.name, ErrUnsupported)
	}
	return debugSection{s.off + 12, s.size - 12, binary.BigEndian.Uint64(b[4:]), true}, nil
}
