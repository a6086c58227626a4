package gopclntab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrFormat is wrapped by the errors of Open that say that there is no table that we can read.
var ErrFormat = errors.New("not a pclntab of Go 1.16 or newer")

// Magic numbers (internal/abi/symtab.go).
const (
	magic116 = 0xfffffffa
	magic118 = 0xfffffff0
	magic120 = 0xfffffff1
)

const (
	maxFuncs  = 1 << 24            // largest number of functions; big binaries have some 10^5
	maxOffset = 1 << 32            // largest offset of a sub-table: _func holds offsets as u32
	maxHeader = 8 + 8*8            // bytes of the longest header
	maxAddr   = math.MaxInt64 >> 1 // so that sums of addresses and offsets fit int64
)

// A layout is what differs between versions of the format.
type layout struct {
	headerWords int    // words of 8 bytes after the first
	entry       uint64 // bytes of an entry address or offset; a functab entry has twice that
	startLine   bool   // _func and inlined calls have start lines
}

// layoutOf returns the layout that a magic number stands for.
func layoutOf(magic uint32) (layout, bool) {
	switch magic {
	case magic116:
		return layout{headerWords: 7, entry: 8}, true
	case magic118:
		return layout{headerWords: 8, entry: 4}, true
	case magic120:
		return layout{headerWords: 8, entry: 4, startLine: true}, true
	}
	return layout{}, false
}

// relative reports whether entries are offsets from text, and funcdata offsets from gofunc.
func (l layout) relative() bool { return l.entry == 4 }

// A header is the checked pcHeader (runtime/symtab.go). Sub-tables are addresses; each ends where
// the next begins, functab (which the _func records follow) has no stated end.
type header struct {
	layout
	minLC                                    uint64 // unit of pc deltas: 1 on amd64, 4 on arm64
	nfunc                                    uint64
	funcname, cutab, filetab, pctab, functab uint64
}

// parseHeader decodes b, which starts at address base.
func parseHeader(b []byte, base uint64) (header, error) {
	var h header
	if len(b) < 8 {
		return h, fmt.Errorf("%w: header at %#x is cut short", ErrFormat, base)
	}
	var ok bool
	if h.layout, ok = layoutOf(binary.LittleEndian.Uint32(b)); !ok {
		return h, fmt.Errorf("%w: magic %#x at %#x", ErrFormat, binary.LittleEndian.Uint32(b), base)
	}
	if len(b) < 8+8*h.headerWords {
		return h, fmt.Errorf("%w: header at %#x is cut short", ErrFormat, base)
	}
	h.minLC = uint64(b[6])
	if b[4] != 0 || b[5] != 0 || b[7] != 8 || h.minLC != 1 && h.minLC != 4 {
		return h, fmt.Errorf("%w: bytes % x after the magic at %#x: want 00 00, 01 (amd64) or 04 (arm64), 08", ErrFormat, b[4:8], base)
	}
	h.nfunc = binary.LittleEndian.Uint64(b[8:])
	if h.nfunc == 0 || h.nfunc > maxFuncs {
		return h, fmt.Errorf("%w: %d functions", ErrFormat, h.nfunc)
	}
	return h, h.setTables(b, base)
}

// setTables checks and sets the sub-tables, whose offsets are the header's last five words.
func (h *header) setTables(b []byte, base uint64) error {
	size := 8 + 8*h.headerWords
	prev := uint64(size) - 1
	for i, table := range []*uint64{&h.funcname, &h.cutab, &h.filetab, &h.pctab, &h.functab} {
		off := binary.LittleEndian.Uint64(b[size-8*(5-i):])
		if off <= prev || off > maxOffset {
			return fmt.Errorf("%w: offset %#x of sub-table %d after %#x", ErrFormat, off, i, prev)
		}
		*table, prev = base+off, off
	}
	return nil
}
