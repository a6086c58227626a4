package goruntime

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/pprofd/pprofd/objfile"
)

// AllocFunc is a function of the runtime that sees allocations.
type AllocFunc uint8

// Functions that see allocations.
const (
	NextFree     AllocFunc = iota // (*mcache).nextFree(c, spanClass)
	Refill                        // (*mcache).refill(c, spanClass), which nextFree calls; where that was inlined
	AllocLarge                    // (*mcache).allocLarge(c, size, noscan)
	MallocLarge                   // mallocgcLarge(size, typ, needzero), which calls it; where that was inlined
	ReleaseAll                    // (*mcache).releaseAll(c)
	ProfileAlloc                  // profilealloc(mp, x, size)
)

// Site is an instruction at which a function can be probed: the arguments are in their registers, the return address is
// where SP points to (arm64: in LR), and the kernel emulates the instruction instead of single-stepping it.
type Site struct {
	Func       AllocFunc
	Addr       uint64 // link-time
	Code       []byte // the instruction
	StackCheck bool   // it is the branch of the stack check: a growing stack comes to it twice
}

// AllocSites are the places at which a program's allocations can be seen.
type AllocSites struct {
	Heap    []Site // all allocations, a span at a time
	Profile []Site // those that the runtime itself samples; nil: memory profiling is linked out

	// TotalAlloc is the link-time address of gcController.totalAlloc, the bytes that were ever allocated but for those in
	// spans in use; 0: not found.
	TotalAlloc uint64

	Linked bool // something reads the runtime's own memory profile
	Heaps  HeapOffsets
	allp   uint64 // link-time address of runtime.allp
}

// ErrNoAllocSites is wrapped by errors that say why a program cannot be probed.
var ErrNoAllocSites = errors.New("its allocations cannot be probed")

func allocFuncs() map[string]AllocFunc {
	return map[string]AllocFunc{
		"runtime.(*mcache).refill": Refill, "runtime.(*mcache).nextFree": NextFree, "runtime.(*mcache).allocLarge": AllocLarge,
		"runtime.(*mcache).releaseAll": ReleaseAll, "runtime.profilealloc": ProfileAlloc,
		"runtime.mallocgcLarge": MallocLarge,
	}
}

// FindAllocSites finds where the allocations of f can be seen, whose build information says version.
func FindAllocSites(f *objfile.File, version string) (AllocSites, error) {
	t, err := f.Pclntab()
	if err != nil {
		return AllocSites{}, err
	}
	p := &program{file: f, table: t, mach: f.Machine()}
	names := append(memProfileReaders(), "runtime.preemptall", "runtime.gcMarkTinyAllocs")
	for name := range allocFuncs() {
		names = append(names, name)
	}
	p.funcs = t.Lookup(names...)
	s := AllocSites{Linked: p.linked(memProfileReaders())}
	if s.Heaps, err = p.heapOffsets(version); err != nil {
		return s, err
	}
	for _, fn := range []string{"runtime.preemptall", "runtime.gcMarkTinyAllocs"} {
		if s.allp == 0 {
			s.allp = p.variable("runtime.allp", fn, 0)
		}
	}
	s.TotalAlloc = p.totalAlloc()
	sites := make(map[AllocFunc]Site)
	for name, fn := range allocFuncs() {
		if site, ok := p.site(name); ok {
			site.Func = fn
			sites[fn] = site
		}
	}
	return s, s.choose(sites, p.inlining())
}

// totalAlloc finds the first variable that allocLarge, also where it was inlined, adds to atomically: lea var, reg; lock xadd x, (reg). Since Go 1.19, on
// amd64. Who uses it compares what it says with what was counted.
func (p *program) totalAlloc() uint64 {
	src, ok := p.source(AllocLarge.String())
	if !ok {
		src, ok = p.source(MallocLarge.String())
	}
	if !ok || p.mach != elf.EM_X86_64 {
		return 0
	}
	at := make(map[x86asm.Reg]uint64) // addresses of variables in registers
	for code, next := src.code, src.addr; len(code) > 0; {
		in, err := x86asm.Decode(code, 64)
		if err != nil || in.Len <= 0 {
			return 0
		}
		next, code = next+uint64(in.Len), code[in.Len:]
		to, isReg := in.Args[0].(x86asm.Reg)
		mem, isMem := in.Args[0].(x86asm.Mem)
		from, _ := in.Args[1].(x86asm.Mem)
		switch {
		case in.Op == x86asm.CALL:
			clear(at)
		case in.Op == x86asm.LEA && from.Base == x86asm.RIP:
			at[to] = next + uint64(disp(from))
		case in.Op == x86asm.XADD && isMem && at[mem.Base] != 0 && mem.Index == 0:
			if found := p.writable([]uint64{at[mem.Base] + uint64(disp(mem))}); len(found) == 1 {
				return found[0]
			}
		case isReg:
			delete(at, to)
		}
	}
	return 0
}

// ReadTotalAlloc reads gcController.totalAlloc of a live process.
func (s *AllocSites) ReadTotalAlloc(mem io.ReaderAt, bias uint64) (uint64, error) {
	var b [8]byte
	if err := readFull(mem, s.TotalAlloc+bias, b[:]); err != nil {
		return 0, fmt.Errorf("read what the process has allocated: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// choose takes the sites that together see each allocation once. inlining says for each of allocFuncs into which functions it was inlined:
// where it was, it is not called. With a profile for the compiler (-pgo) it is here and not there.
func (s *AllocSites) choose(sites map[AllocFunc]Site, inlining map[AllocFunc][]string) error {
	if site, ok := sites[ProfileAlloc]; ok && s.Linked && len(inlining[ProfileAlloc]) == 0 {
		s.Profile = []Site{site}
	}
	spans, err := chooseSpans(sites, inlining)
	if err != nil {
		return err
	}
	large, err := chooseLarge(sites, inlining)
	if err != nil {
		return err
	}
	for _, fn := range append(append(spans, large), ReleaseAll) {
		if site, ok := sites[fn]; ok {
			s.Heap = append(s.Heap, site)
		}
	}
	return nil
}

// chooseSpans: nextFree sees what refill would, where the span is full, and more. Where it was inlined refill is called, unless that was
// inlined, too; into nextFree itself it may be.
func chooseSpans(sites map[AllocFunc]Site, inlining map[AllocFunc][]string) ([]AllocFunc, error) {
	_, called := sites[NextFree]
	if called && len(inlining[NextFree]) == 0 {
		return []AllocFunc{NextFree}, nil
	}
	list, in := []AllocFunc{Refill}, slices.Clone(inlining[Refill])
	if own := slices.Index(in, NextFree.String()); called && own >= 0 {
		list, in = []AllocFunc{NextFree, Refill}, slices.Delete(in, own, own+1)
	}
	if _, ok := sites[Refill]; !ok || len(in) > 0 {
		return nil, unseen(Refill, in)
	}
	return list, nil
}

// chooseLarge: since Go 1.24 mallocgcLarge is all that calls allocLarge.
func chooseLarge(sites map[AllocFunc]Site, inlining map[AllocFunc][]string) (AllocFunc, error) {
	in := inlining[AllocLarge]
	if _, ok := sites[AllocLarge]; ok && len(in) == 0 {
		return AllocLarge, nil
	}
	_, called := sites[MallocLarge]
	if called && len(in) == 1 && in[0] == MallocLarge.String() && len(inlining[MallocLarge]) == 0 {
		return MallocLarge, nil
	}
	return 0, unseen(AllocLarge, in)
}

// unseen says why the calls of fn are not seen.
func unseen(fn AllocFunc, in []string) error {
	if len(in) == 0 {
		return fmt.Errorf("%w: the code of %s is not as expected", ErrNoAllocSites, fn)
	}
	return fmt.Errorf("%w: the compiler has inlined %s into %s", ErrNoAllocSites, fn, strings.Join(in, ", "))
}

// String is the function's full name.
func (fn AllocFunc) String() string {
	for name, is := range allocFuncs() {
		if is == fn {
			return name
		}
	}
	return "a function of the allocator"
}

// inlining says into which functions those that see allocations were inlined.
func (p *program) inlining() map[AllocFunc][]string {
	found := make(map[AllocFunc][]string)
	for name, in := range p.table.Inlining(slices.Collect(maps.Keys(allocFuncs()))...) {
		for _, f := range in {
			found[allocFuncs()[name]] = append(found[allocFuncs()[name]], f.Name())
		}
	}
	return found
}

// maxPrologue bounds the instructions before the stack check.
const maxPrologue = 8

// site finds the first instruction of a function that the kernel emulates.
func (p *program) site(name string) (Site, bool) {
	src, ok := p.source(name)
	if !ok {
		return Site{}, false
	}
	find := siteX86
	if p.mach == elf.EM_AARCH64 {
		find = siteA64
	}
	off, n, check := find(src.code)
	if n == 0 {
		return Site{}, false
	}
	s := Site{Addr: src.addr + uint64(off), Code: src.code[off : off+n], StackCheck: check}
	delta, ok := p.funcs[name].SPDelta(s.Addr)
	return s, ok && delta == 0
}

// siteX86 finds jbe or push %rbp behind nothing but the comparison of the stack check: cmp 16(r14), sp, or lea -x(sp), r12
// and cmp 16(r14), r12 (cmd/internal/obj/x86/obj6.go: stacksplit). The kernel emulates both (arch/x86/kernel/uprobes.c:
// branch_setup_xol_ops, push_setup_xol_ops); others it would single-step, for ten times the price.
func siteX86(code []byte) (off, n int, check bool) {
	for range maxPrologue {
		in, err := x86asm.Decode(code[off:], 64)
		if err != nil || in.Len <= 0 {
			return 0, 0, false
		}
		switch {
		case in.Op == x86asm.JBE:
			return off, in.Len, true
		case in.Op == x86asm.PUSH && in.Args[0] == x86asm.RBP && in.Len == 1:
			return off, in.Len, false
		case in.Op == x86asm.CMP, in.Op == x86asm.LEA && in.Args[0] == x86asm.R12:
		default:
			return 0, 0, false
		}
		off += in.Len
	}
	return 0, 0, false
}

// siteA64 finds b.ls behind nothing but the comparison of the stack check: ldr 16(x28), x16; [sub $x, sp, x17 or mov sp, x17]; cmp
// (cmd/internal/obj/arm64/obj7.go: stacksplit). The kernel simulates conditional branches (arch/arm64/kernel/probes/decode-insn.c).
func siteA64(code []byte) (off, n int, check bool) {
	for ; off+4 <= len(code) && off < 4*maxPrologue; off += 4 {
		in := binary.LittleEndian.Uint32(code[off:])
		rd := in & 31
		scratch := rd == 16 || rd == 17 || rd == a64SP
		switch {
		case in&0xFF00001F == 0x54000009: // B.LS
			return off, 4, true
		case in&0xFFC003E0 == 0xF9400380 && scratch: // LDR Xt, [X28, #imm]
		case in&0xFF0003E0 == 0xD10003E0 && scratch: // SUB Xd, SP, #imm
		case in&0xFFFFFFE0 == 0x910003E0 && scratch: // MOV Xd, SP: Go 1.18
		case in&0xFFE0001F == 0xEB20001F, in&0xFF20001F == 0xEB00001F: // CMP
		default:
			return 0, 0, false
		}
	}
	return 0, 0, false
}

// VerifySites compares the code at sites in the live process with the file's: it must be the file's where nothing is
// probed yet. mem is the process's memory, bias its run-time minus link-time addresses.
func VerifySites(mem io.ReaderAt, bias uint64, sites []Site) error {
	for _, s := range sites {
		b := make([]byte, len(s.Code))
		if err := readFull(mem, s.Addr+bias, b); err != nil {
			return fmt.Errorf("%w: code at %#x: %w", ErrNoAllocSites, s.Addr, err)
		}
		if !slices.Equal(b, s.Code) && !isBreakpoint(b, s.Code) { // another profiler's: the kernel knows of both
			return fmt.Errorf("%w: the code at %#x is % x in the process and % x in its file", ErrNoAllocSites, s.Addr, b, s.Code)
		}
	}
	return nil
}

// isBreakpoint: what the kernel writes over code for a uprobe: int3; brk #5 (arch/arm64/include/asm/brk-imm.h: UPROBES_BRK_IMM).
func isBreakpoint(b, code []byte) bool {
	return b[0] == 0xcc && slices.Equal(b[1:], code[1:]) || len(b) == 4 && binary.LittleEndian.Uint32(b) == 0xd42000a0
}
