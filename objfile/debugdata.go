package objfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// miniDebugInfo is the ELF file in .gnu_debugdata, which Fedora and its relatives put the symbols of
// static functions into; nil where there is none or it is damaged.
func (f *File) miniDebugInfo() []byte {
	sec, ok := f.section(".gnu_debugdata")
	if !ok {
		return nil
	}
	b, err := unxz(sectionBytes(f.src, sec, maxDebugData), maxDebugDataPlain)
	if err != nil {
		return nil
	}
	return b
}

var errXZ = errors.New("damaged or unusual xz data")

// Parts of an xz stream (The .xz File Format 1.2, tukaani.org/xz/xz-file-format.txt).
const (
	xzMagic      = "\xfd7zXZ\x00"
	xzHeaderSize = 12
	xzLZMA2      = 0x21
)

// xzBlock is an LZMA2 stream in an xz stream.
type xzBlock struct {
	data        []byte
	dict, plain int // sizes of the dictionary that it asks for, and of what it unpacks to
}

// unxz decompresses the blocks of the first stream of b, to at most limit bytes. The container is
// read here because the xz package allocates whatever dictionary a block asks for (up to 4 GiB):
// here none is larger than what the block unpacks to. Check sums are not verified.
func unxz(b []byte, limit int) ([]byte, error) {
	blocks, err := xzBlocks(b, limit)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, block := range blocks {
		total += block.plain
	}
	out := make([]byte, total)
	rest := out
	for _, block := range blocks {
		if err := block.unpack(rest[:block.plain]); err != nil {
			return nil, err
		}
		rest = rest[block.plain:]
	}
	return out, nil
}

// xzBlocks finds the blocks of the first stream of b.
func xzBlocks(b []byte, limit int) ([]xzBlock, error) {
	if len(b) < xzHeaderSize || !bytes.HasPrefix(b, []byte(xzMagic)) {
		return nil, errXZ
	}
	checkSize, ok := map[byte]int{0: 0, 1: 4, 4: 8, 10: 32}[b[7]]
	if !ok {
		return nil, errXZ
	}
	var blocks []xzBlock
	b = b[xzHeaderSize:]
	for len(b) > 0 && b[0] != 0 {
		dict, data, err := parseXZBlock(b)
		if err != nil {
			return nil, err
		}
		size, plain, err := lzma2Size(data)
		if err != nil {
			return nil, err
		}
		if limit -= plain; limit < 0 || len(blocks) >= maxXZBlocks {
			return nil, fmt.Errorf("decompress: more than the limit of bytes, or more than %d blocks: %w", maxXZBlocks, errXZ)
		}
		blocks = append(blocks, xzBlock{data: data[:size], dict: min(dict, max(plain, lzma.MinDictCap)), plain: plain})
		next := (len(b)-len(data)+size+3)&^3 + checkSize
		b = b[min(next, len(b)):]
	}
	return blocks, nil
}

func (b xzBlock) unpack(to []byte) error {
	r, err := lzma.Reader2Config{DictCap: b.dict}.NewReader2(bytes.NewReader(b.data))
	if err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	if _, err := io.ReadFull(r, to); err != nil {
		return fmt.Errorf("decompress: %w", noEOF(err))
	}
	return nil
}

// parseXZBlock parses a block header with LZMA2 as the only filter: the dictionary's size and what follows.
func parseXZBlock(b []byte) (dict int, data []byte, err error) {
	size := (int(b[0]) + 1) * 4
	if size > len(b) || size < 8 {
		return 0, nil, errXZ
	}
	h := b[2 : size-4]
	flags := b[1]
	for _, present := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&present != 0 {
			h = skipVarint(h)
		}
	}
	if flags&0x3f != 0 || len(h) < 3 || h[0] != xzLZMA2 || h[1] != 1 || h[2] > 40 {
		return 0, nil, errXZ
	}
	bits := h[2] // dictionary size: 2 or 3, shifted (section 5.3.1)
	d := uint64(2|bits&1) << (bits/2 + 11)
	if d > maxDictionary {
		return 0, nil, fmt.Errorf("dictionary of %d bytes: %w", d, errXZ)
	}
	return int(d), b[size:], nil
}

func skipVarint(b []byte) []byte {
	for i, c := range b {
		if c < 0x80 {
			return b[i+1:]
		}
	}
	return nil
}

// lzma2Size walks the chunks of an LZMA2 stream until its end marker. It returns the stream's length
// and what it unpacks to.
func lzma2Size(b []byte) (size, plain int, err error) {
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == 0:
			return i + 1, plain, nil
		case c < 3 && i+3 <= len(b): // stored
			n := int(b[i+1])<<8 + int(b[i+2]) + 1
			plain += n
			i += 3 + n
		case c >= 0x80 && i+6 <= len(b):
			header := 5
			if c >= 0xc0 { // with new properties
				header = 6
			}
			plain += int(c&0x1f)<<16 + int(b[i+1])<<8 + int(b[i+2]) + 1
			i += header + int(b[i+3])<<8 + int(b[i+4]) + 1
		default:
			return 0, 0, errXZ
		}
	}
	return 0, 0, errXZ
}
