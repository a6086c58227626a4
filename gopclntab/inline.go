package gopclntab

import "encoding/binary"

const (
	maxInline    = 1000    // inlined calls at one pc
	maxInlineIdx = 1 << 20 // entries of an inline tree (runtime/symtabinl.go)

	pcdataInlTreeIndex = 2 // internal/abi/symtab.go
	funcdataInlTree    = 3
)

// Frame is one source-level frame.
type Frame struct {
	Func, File      string // File is "?" and Line 0 where the tables do not say, as in the runtime
	Line, StartLine int    // StartLine is 0 before Go 1.20
	Inlined         bool   // into the next frame of the slice
	Wrapper         bool   // a compiler-generated wrapper, which runtime/pprof elides: see Elided
}

// An inlinedCall is an entry of an inline tree (runtime.inlinedCall).
type inlinedCall struct {
	funcID    uint8
	nameOff   int32
	parentPC  int32 // an instruction at the position of the call, as an offset from the function's entry
	startLine int32
}

// A frameReader holds what is the same for all frames of one AppendFrames.
type frameReader struct {
	f     Func
	rec   record
	tree  uint64 // address of the inline tree, 0: none
	index uint32 // offset of pcdata[pcdataInlTreeIndex], 0: none
}

// AppendFrames appends the frames at pc, innermost first: more than one where calls were inlined.
// pc is used as is: pass the address of the call, not the return address.
func (f Func) AppendFrames(dst []Frame, pc uint64) []Frame {
	if pc < f.Entry || pc >= f.End {
		return dst
	}
	rec, ok := f.record()
	if !ok {
		return dst
	}
	wrapper := f.t.wrapperFuncID()
	f.t.budget = maxDecode
	fr := frameReader{f: f, rec: rec}
	fr.tree, fr.index = f.inlineTree(rec)
	for range maxInline {
		call, ok := fr.inlined(pc)
		if !ok {
			break
		}
		file, line := fr.position(pc)
		dst = append(dst, Frame{
			Func: f.t.name(call.nameOff), File: file, Line: line, StartLine: int(call.startLine),
			Inlined: true, Wrapper: wrapper.is(call.funcID),
		})
		pc = f.Entry + uint64(int64(call.parentPC))
	}
	file, line := fr.position(pc)
	return append(dst, Frame{
		Func: f.t.name(rec.nameOff), File: file, Line: line, StartLine: int(rec.startLine),
		Wrapper: wrapper.is(rec.funcID),
	})
}

// inlinedCalls appends the offsets of the names of the functions that were inlined into f, one for each call, most at most.
// It takes what it decodes from the table's budget.
func (f Func) inlinedCalls(names []int32, most int) []int32 {
	rec, ok := f.record()
	if !ok {
		return names
	}
	tree, index := f.inlineTree(rec)
	if tree == 0 {
		return names
	}
	n := min(int(f.t.largest(index, f.Entry, f.End))+1, most)
	for i := range n {
		call, ok := f.t.inlinedCall(tree, uint64(i))
		if !ok {
			break
		}
		names = append(names, call.nameOff)
	}
	return names
}

// inlineTree returns the address of the function's inline tree and the table of indexes in it.
func (f Func) inlineTree(rec record) (tree uint64, index uint32) {
	if rec.npcdata <= pcdataInlTreeIndex || rec.nfuncdata <= funcdataInlTree {
		return 0, 0
	}
	index, ok := f.t.pages.u32(rec.pcdata + 4*pcdataInlTreeIndex)
	if !ok || index == 0 {
		return 0, 0
	}
	return f.t.inlineTree(rec.pcdata + 4*uint64(rec.npcdata)), index
}

// inlineTree reads the address of an inline tree out of the funcdata array at addr; 0: none.
func (t *Table) inlineTree(addr uint64) uint64 {
	if !t.relative() { // addresses, 8-aligned
		tree, ok := t.pages.u64((addr+7)&^7 + 8*funcdataInlTree)
		if !ok || tree > maxAddr {
			return 0
		}
		return tree
	}
	off, ok := t.pages.u32(addr + 4*funcdataInlTree)
	if !ok || off == ^uint32(0) || t.im.GoFunc == 0 {
		return 0
	}
	return t.im.GoFunc + uint64(off)
}

// inlined returns the innermost call inlined at pc.
func (fr *frameReader) inlined(pc uint64) (inlinedCall, bool) {
	idx, ok := fr.value(fr.index, pc)
	if fr.tree == 0 || !ok || idx < 0 || idx >= maxInlineIdx {
		return inlinedCall{}, false
	}
	return fr.f.t.inlinedCall(fr.tree, uint64(idx))
}

// inlinedCall reads entry idx of the inline tree at addr.
func (t *Table) inlinedCall(addr, idx uint64) (inlinedCall, bool) {
	var b [20]byte
	word := func(off int) int32 { return int32(binary.LittleEndian.Uint32(b[off:])) }
	if t.startLine {
		ok := t.pages.read(b[:16], addr+16*idx)
		return inlinedCall{funcID: b[0], nameOff: word(4), parentPC: word(8), startLine: word(12)}, ok
	}
	ok := t.pages.read(b[:20], addr+20*idx)
	return inlinedCall{funcID: b[2], nameOff: word(12), parentPC: word(16)}, ok
}

// value looks pc up in one of the function's pc-value tables.
func (fr *frameReader) value(off uint32, pc uint64) (int32, bool) {
	if pc < fr.f.Entry || pc >= fr.f.End {
		return 0, false
	}
	r, ok := fr.f.t.pcvalue(off, fr.f.Entry, pc)
	return r.val, ok
}

// position returns the file and line of pc (runtime.funcline1).
func (fr *frameReader) position(pc uint64) (file string, line int) {
	fileno, ok1 := fr.value(fr.rec.pcfile, pc)
	n, ok2 := fr.value(fr.rec.pcln, pc)
	if !ok1 || !ok2 || fileno < 0 || n == -1 {
		return "?", 0
	}
	return fr.f.t.file(fr.rec.cuOffset, fileno), int(n)
}

// file returns the name of a compilation unit's file, "?" if there is none.
func (t *Table) file(cuOffset uint32, fileno int32) string {
	addr := t.cutab + 4*(uint64(cuOffset)+uint64(fileno))
	if addr+4 > t.filetab {
		return "?"
	}
	off, ok := t.pages.u32(addr)
	if !ok || off == ^uint32(0) {
		return "?"
	}
	return t.pages.cstring(t.filetab+uint64(off), t.pctab)
}
