// Package gopclntab reads Go's pc tables: functions, stack pointer deltas, lines and inline trees.
//
// The linker writes one table per Go module, needs it at run time, and so leaves it in stripped
// binaries too. [Open] checks the header only; everything else is read when it is asked for,
// through a page cache of bounded size. Nothing in a table is trusted: every length, offset and
// loop has a bound, and what cannot be read is false or "", never a panic.
//
// # Format
//
// A header names the sub-tables by their offsets from the header:
//
//	funcnametab  names of functions, C strings
//	cutab        u32: (compilation unit, file number) -> offset in filetab; ^0: no such file
//	filetab      names of files, C strings
//	pctab        pc-value tables: pairs of varints (zigzag value delta, pc delta / minLC),
//	             from value -1 at the function's entry up to a value delta of 0
//	functab      sorted (entry, offset of _func from functab), one more entry for the end;
//	             then the _func records, each followed by pcdata offsets (in pctab) and funcdata
//
// A _func names its pc-value tables: pcsp (SP delta), pcfile, pcln, and in pcdata[2] the index of
// the innermost call inlined at a pc; funcdata[3] is the function's tree of inlined calls. An entry
// of the tree has the callee's name and parentPc, an instruction of the call's own position: the
// tables looked up there give the line of the call and the next outer inlined call.
//
//	Go         magic       header  functab   _func            inline tree  funcdata
//	1.16-1.17  0xfffffffa  64 B    2 x u64   44 B, u64 entry  20 B         addresses
//	1.18-1.19  0xfffffff0  72 B    2 x u32   40 B             20 B         offsets from gofunc
//	1.20-1.25  0xfffffff1  72 B    2 x u32   44 B, startLine  16 B         offsets from gofunc
//	1.26-1.27  0xfffffff1  72 B, text start is 0; otherwise as 1.20
//
// Entries are offsets from moduledata.text since Go 1.18, absolute before (in a position-independent
// executable they then need relocation, which is up to the reader given to Open).
// Function flags exist since Go 1.17, FlagAsm since 1.18. A text that the linker has split into several sections
// (moduledata.textsectmap: ppc64 and 32-bit arm, never amd64 or Linux/arm64) is not supported.
//
// Names are those of runtime/pprof: the full symbol name, which has the shapes of type arguments
// since Go 1.21 ("main.f[go.shape.int]") and "[...]" before.
//
// Sources: runtime/symtab.go, runtime/symtabinl.go (1.21), runtime/runtime2.go (type _func),
// internal/abi/symtab.go (1.21), cmd/link/internal/ld/pcln.go, cmd/internal/objabi/funcid.go
// of Go 1.16.15 ... 1.27.4.
package gopclntab
