package gopclntab

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// Image says where the tables of one Go module lie. All addresses are link-time virtual addresses.
type Image struct {
	PCHeader uint64 // the pclntab header (runtime.pcHeader)
	Text     uint64 // moduledata.text; the address of section .text is another one with external linking
	EText    uint64 // moduledata.etext
	GoFunc   uint64 // moduledata.gofunc (Go 1.18+); 0: inline trees cannot be read
}

// Table answers questions about the program counters of one Go module.
// It is not safe for concurrent use: it owns a small page cache.
type Table struct {
	header
	im      Image
	pages   pages
	wrapper wrapperID
	budget  int // bytes of pc-value tables that the current call may still decode

	first, end uint64   // of the text, as functab has it
	top        []uint64 // the entries that Find looks at first, 0: not read yet; nil: nor are first and end
}

// Open checks the header at im.PCHeader and returns the table. r is addressed by link-time
// virtual address: ReadAt(p, addr) reads the image's memory at addr. Nothing beyond the header's
// page is read. Errors wrap ErrFormat.
func Open(r io.ReaderAt, im Image) (*Table, error) {
	if max(im.PCHeader, im.Text, im.EText, im.GoFunc) > maxAddr {
		return nil, fmt.Errorf("%w: address out of range in %+x", ErrFormat, im)
	}
	t := &Table{im: im, pages: pages{r: r}}
	var b [maxHeader]byte
	n := 0
	for n < len(b) {
		m := copy(b[n:], t.pages.at(im.PCHeader+uint64(n)))
		if m == 0 {
			break
		}
		n += m
	}
	h, err := parseHeader(b[:n], im.PCHeader)
	if err != nil {
		return nil, err
	}
	t.header = h
	return t, nil
}

// funcEntry returns the entry of the i-th function, 0 <= i <= nfunc; that of the last is the end of the text.
func (t *Table) funcEntry(i uint64) (uint64, bool) {
	addr := t.functab + i*2*t.entry
	if !t.relative() {
		return t.pages.u64(addr)
	}
	off, ok := t.pages.u32(addr)
	return t.im.Text + uint64(off), ok
}

// funcRecord returns the address of the _func record of the i-th function, 0 <= i < nfunc.
func (t *Table) funcRecord(i uint64) (uint64, bool) {
	off, ok := t.pages.u32(t.functab + i*2*t.entry + t.entry)
	return t.functab + uint64(off), ok
}

// Find returns the function that covers pc. Padding after a function belongs to it.
func (t *Table) Find(pc uint64) (Func, bool) {
	if t.im.EText != 0 && pc >= t.im.EText {
		return Func{}, false
	}
	lo, hi := uint64(0), t.nfunc
	entry, end, ok := t.bounds()
	if !ok || pc < entry || pc >= end {
		return Func{}, false
	}
	for node := uint64(1); hi-lo > 1; { // entry <= pc < end
		mid := lo + (hi-lo)/2
		e, ok := t.middle(node, mid)
		if !ok {
			return Func{}, false
		}
		node *= 2
		if e <= pc {
			lo, entry = mid, e
			node++
		} else {
			hi, end = mid, e
		}
	}
	rec, ok := t.funcRecord(lo)
	return Func{t: t, rec: rec, Entry: entry, End: end}, ok
}

// Bounds of Table.top.
const (
	topSpacing = 128     // functions between two remembered entries: a kilobyte of functab
	maxTop     = 1 << 12 // 32 KiB; half a million functions
)

// bounds returns the entry of the first function, and the end of the last.
func (t *Table) bounds() (first, end uint64, ok bool) {
	if t.top == nil {
		var ok1, ok2 bool
		t.first, ok1 = t.funcEntry(0)
		t.end, ok2 = t.funcEntry(t.nfunc)
		if !ok1 || !ok2 {
			return 0, 0, false
		}
		t.top = make([]uint64, min(1<<bits.Len64(t.nfunc/topSpacing), maxTop))
	}
	return t.first, t.end, true
}

// middle is funcEntry(mid) for the binary search, whose steps node numbers as those of a heap, from 1 on. The first steps are
// the same in all searches and lead all over functab, a page each: they are remembered.
func (t *Table) middle(node, mid uint64) (uint64, bool) {
	if node >= uint64(len(t.top)) {
		return t.funcEntry(mid)
	}
	if t.top[node] == 0 {
		e, ok := t.funcEntry(mid)
		if !ok {
			return 0, false
		}
		t.top[node] = e
	}
	return t.top[node], true
}

// funcAt returns the i-th function.
func (t *Table) funcAt(i uint64) (Func, bool) {
	entry, ok1 := t.funcEntry(i)
	end, ok2 := t.funcEntry(i + 1)
	rec, ok3 := t.funcRecord(i)
	return Func{t: t, rec: rec, Entry: entry, End: end}, ok1 && ok2 && ok3
}

// Func is one function of a Table: a small value, cheap to copy.
type Func struct {
	t          *Table
	rec        uint64 // address of its _func
	Entry, End uint64 // link-time addresses [Entry, End)
}

// Flag bits of runtime._func.flag (internal/abi/symtab.go): none in Go 1.16, no FlagAsm in 1.17.
const (
	FlagTopFrame = 1 << iota
	FlagSPWrite
	FlagAsm
)

// A record is the fixed part of runtime._func.
type record struct {
	nameOff                               int32
	pcsp, pcfile, pcln, npcdata, cuOffset uint32
	startLine                             int32
	funcID, flag, nfuncdata               uint8
	pcdata                                uint64 // address of what follows the fixed part
}

// record reads the function's _func.
func (f Func) record() (record, bool) {
	if f.t == nil {
		return record{}, false
	}
	l := f.t.layout
	var buf [44]byte
	size := l.entry + 32 + 4 // entry, eight words, four bytes
	if l.startLine {
		size += 4
	}
	if !f.t.pages.read(buf[:size], f.rec) {
		return record{}, false
	}
	word := func(i uint64) uint32 { return binary.LittleEndian.Uint32(buf[l.entry+4*i:]) }
	tail := buf[size-4 : size]
	rec := record{
		nameOff: int32(word(0)), // words 1 and 2: args, deferreturn
		pcsp:    word(3), pcfile: word(4), pcln: word(5), npcdata: word(6), cuOffset: word(7),
		funcID: tail[0], flag: tail[1], nfuncdata: tail[3],
		pcdata: f.rec + size,
	}
	if l.startLine {
		rec.startLine = int32(word(8))
	}
	return rec, true
}

// Name is the function's full name as runtime/pprof writes it. For a generic function that is
// "main.f[go.shape.int]" since Go 1.21, and "main.f[...]" before; runtime.FuncForPC(pc).Name()
// prints "main.f[...]" always.
func (f Func) Name() string {
	if f.t == nil {
		return ""
	}
	off, ok := f.t.nameOff(f.rec)
	if !ok {
		return ""
	}
	return f.t.name(off)
}

// nameOff reads the name's offset out of the _func at rec.
func (t *Table) nameOff(rec uint64) (int32, bool) {
	off, ok := t.pages.u32(rec + t.entry)
	return int32(off), ok
}

// name returns the function name at an offset of funcnametab. Offset 0 is the name of the module's
// first function, for which the runtime prints "".
func (t *Table) name(off int32) string {
	if off < 0 {
		return ""
	}
	return t.pages.cstring(t.funcname+uint64(off), t.cutab)
}

// Flags are the FlagXxx bits.
func (f Func) Flags() uint8 {
	rec, _ := f.record()
	return rec.flag
}

// SPDelta returns the distance from SP to the return address slot at pc (amd64),
// or to the caller's SP (arm64), before the instruction at pc executes. It is as the table has it:
// -8 in syscall.rawVforkSyscall on amd64, which pops its return address; anything in a forged one.
// It does not allocate when the pages it needs are cached.
func (f Func) SPDelta(pc uint64) (int32, bool) {
	delta, _, _, ok := f.SPRange(pc)
	return delta, ok
}

// SPRange is SPDelta with the instructions around pc, [start, end), that it holds for.
func (f Func) SPRange(pc uint64) (delta int32, start, end uint64, ok bool) {
	if f.t == nil || pc < f.Entry || pc >= f.End {
		return 0, 0, 0, false
	}
	off, ok := f.t.pages.u32(f.rec + f.t.entry + 4*3)
	if !ok {
		return 0, 0, 0, false
	}
	f.t.budget = maxDecode
	r, ok := f.t.pcvalue(off, f.Entry, pc)
	return r.val, max(r.start, f.Entry), min(r.end, f.End), ok
}
