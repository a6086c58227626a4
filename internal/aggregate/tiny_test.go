package aggregate

import (
	"debug/elf"
	"encoding/binary"
)

// tinyProgram is an executable of one segment and one function, in whose second half a call of main.inlined is inlined: less
// than 4 KiB in which every byte matters. The function's code is at 0x400100.
func tinyProgram(name, file string) []byte {
	const base, text, size, header, module, tree = 0x400000, 0x400100, 0x80, 0x200, 0x600, 0xa00
	le := binary.LittleEndian
	b := make([]byte, 0xc00)
	words := func(off int, list ...uint64) {
		for i, v := range list {
			le.PutUint64(b[off+8*i:], v)
		}
	}
	copy(b, elf.ELFMAG+"\x02\x01\x01")
	le.PutUint16(b[16:], uint16(elf.ET_EXEC))
	le.PutUint16(b[18:], uint16(elf.EM_X86_64))
	words(24, text, 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	words(64, uint64(elf.PT_LOAD)|7<<32, 0, base, base, uint64(len(b)), uint64(len(b)), 0x1000)

	sub := [][]byte{ // funcnametab, cutab, filetab, pctab, functab
		[]byte("\x00" + name + "\x00main.inlined\x00"), {0, 0, 0, 0}, []byte(file + "\x00"),
		{0, 2, 0x80, 1, 0, 22, 0x80, 1, 0, 0, 0x40, 2, 0x40, 0}, nil,
	}
	functab := []uint32{
		0, 12, size, // functab; then the _func:
		0, 1, 0, 0, 1, 1, 5, 3, 0, 7, 4 << 24, // entry, name, args, deferreturn, pcsp, pcfile, pcln, npcdata, unit, line, nfuncdata
		0, 0, 9, ^uint32(0), ^uint32(0), ^uint32(0), 0, // pcdata, funcdata
	}
	for _, v := range functab {
		sub[4] = le.AppendUint32(sub[4], v)
	}
	copy(b[header:], "\xf1\xff\xff\xff\x00\x00\x01\x08")
	offs := []uint64{1, 1, 0}
	at := uint64(0x48)
	for _, s := range sub {
		offs = append(offs, at)
		at += uint64(copy(b[header+at:], s))
	}
	words(header+8, offs...)

	pclntab := uint64(base + header)
	words(module, pclntab, pclntab+offs[3])
	words(module+8*16, pclntab+offs[7], 2, 2)
	words(module+8*20, text, text+size, text, text+size)
	words(module+8*40, base+tree, base+tree+0x40, 1, 1) // gofunc, textsectmap
	words(tree+0x40, 0, size, text)
	le.PutUint32(b[tree+4:], uint32(2+len(name))) // the inlined call: its name, at the function's first instruction
	return b
}
