package goruntime

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/pprofd/pprofd/gopclntab"
	"github.com/pprofd/pprofd/objfile"
)

// Find makes the layout of the Go program f, whose build information says version.
// What cannot be found is named in Layout.Missing; an error means that f has no Go tables. It takes milliseconds, except where DWARF must be read.
func Find(f *objfile.File, version string) (Layout, error) {
	p, err := openProgram(f)
	if err != nil {
		return Layout{}, err
	}
	rel := parseVersion(version)
	l := Layout{Labels: rel.labelKind(), Funcs: p.ranges(), Globals: p.globals()}
	code := p.decode()
	l.TLS, l.HasTLS, l.TLSSlot = code.TLS, code.HasTLS, code.TLSSlot
	p.chooseOffsets(&l, rel, code.Offsets)
	l.Missing = append(l.missing(), p.deltas(&l.Deltas)...)
	if !l.HasTLS && l.TLSSlot == 0 && p.mach == elf.EM_X86_64 {
		l.Missing = append(l.Missing, "TLS")
	}
	if l.Labels == LabelsNone {
		l.Missing = append(l.Missing, "label layout")
	}
	return l, nil
}

// UseDWARF replaces the offsets of l by those of f's DWARF, which may take a second on a large program:
// for a caller whose Verify has failed. The layout is unchanged where there is no DWARF.
func (l *Layout) UseDWARF(f *objfile.File) error {
	off, err := offsetsFromFile(f)
	if err != nil {
		return err
	}
	l.setOffsets(off, sourceDWARF, false)
	return nil
}

const borrowed = ", borrowed"

// Borrowed says that the version has no row of its own in the table, nor DWARF: its offsets are those of the newest row.
func (l *Layout) Borrowed() bool { return strings.HasSuffix(l.Source, borrowed) }

// setOffsets sets the offsets and what follows from them.
func (l *Layout) setOffsets(off Offsets, source string, unproven bool) {
	rest := l.Missing[:0:0]
	for _, name := range l.Missing {
		if !strings.Contains(name, ".") { // not a field of g or m
			rest = append(rest, name)
		}
	}
	l.Offsets, l.Source, l.Unproven = off, source, unproven
	l.Missing = append(off.missing(), rest...)
}

// chooseOffsets sets l's offsets: from the row of the version if the code agrees with it; else from DWARF;
// else, for a version that is newer than the table or has no number, from the newest row if the code agrees
// with that; else from code alone.
func (p *program) chooseOffsets(l *Layout, rel release, code Offsets) {
	if off, ok := rowFor(rel.minor); ok && len(off.conflicts(code)) == 0 {
		off.merge(code)
		l.setOffsets(off, fmt.Sprint(TableSource, rel.minor), false)
		return
	}
	if off, err := offsetsFromFile(p.file); err == nil {
		l.setOffsets(off, sourceDWARF, false)
		return
	}
	code.merge(p.decodeLabels(code.GM))
	newest := newestRow()
	newer := rel.minor == 0 || rel.minor > newest.minor
	checked := code.GM != 0 && code.MCurg != 0 && code.GSchedSP != 0
	if newer && checked && len(newest.off.conflicts(code)) == 0 {
		newest.off.merge(code)
		l.Labels = release{minor: newest.minor}.labelKind()
		l.setOffsets(newest.off, fmt.Sprint(TableSource, newest.minor, borrowed), true)
		return
	}
	l.setOffsets(code, "code", false)
}

// program is what Find works on.
type program struct {
	file  *objfile.File
	table *gopclntab.Table
	mach  elf.Machine
	funcs map[string]gopclntab.Func
}

// stackFuncs are the functions whose ranges unwinding must know.
func stackFuncs() []string {
	return []string{
		"runtime.systemstack", "runtime.systemstack_switch", "runtime.mcall", "runtime.gogo", "runtime.goexit",
		"runtime.morestack", "runtime.morestack_noctxt", "runtime.newstack", "runtime.switchToCrashStack0",
		"runtime.mstart", "runtime.mstart0", "runtime.mstart1", "runtime.rt0_go",
		"runtime.asmcgocall", "runtime.asmcgocall_landingpad", "runtime.asmcgocall_no_g",
		"runtime.cgocall", "runtime.cgocallback", "runtime.cgocallbackg",
		"runtime.sigtramp", "runtime.cgoSigtramp", "runtime.sigreturn__sigaction", "runtime.sigreturn", "runtime.sigtrampgo",
		"runtime.asyncPreempt", "runtime.asyncPreempt2",
		"runtime.nanotime1", "runtime.walltime", "runtime.vgetrandom1",
		"racecall",
	}
}

// decodedFuncs are further functions whose code is read.
func decodedFuncs() []string {
	return []string{"runtime.forEachGRace", "runtime.load_g"}
}

func openProgram(f *objfile.File) (*program, error) {
	t, err := f.Pclntab()
	if err != nil {
		return nil, err
	}
	p := &program{file: f, table: t, mach: f.Machine()}
	p.funcs = t.Lookup(append(stackFuncs(), decodedFuncs()...)...)
	// Names outside package runtime would take a search of all functions: find them through their neighbours.
	if fn, ok := p.callee("runtime.systemstack", gosave); ok {
		p.funcs[gosave] = fn
	}
	if fn, ok := p.near("runtime.nanotime1", "time.now"); ok {
		p.funcs["time.now"] = fn
	}
	return p, nil
}

// gosave is the assembly function that fills g.sched before the stack is switched.
const gosave = "gosave_systemstack_switch"

// callee finds the function of the given name among those that caller calls.
func (p *program) callee(caller, name string) (gopclntab.Func, bool) {
	c, ok := p.callOf(caller, name)
	if !ok {
		return gopclntab.Func{}, false
	}
	return p.table.Find(c.target)
}

// callOf finds caller's first call of the function of the given name.
func (p *program) callOf(caller, name string) (call, bool) {
	src, ok := p.source(caller)
	if !ok {
		return call{}, false
	}
	for _, c := range decodeCalls(p.mach, src) {
		if fn, ok := p.table.Find(c.target); ok && c.target != 0 && fn.Name() == name {
			return c, true
		}
	}
	return call{}, false
}

// near finds a function at most maxNear functions behind another: the linker keeps the assembly of
// package runtime together, also where a function's name belongs to another package (time.now).
func (p *program) near(from, name string) (gopclntab.Func, bool) {
	const maxNear = 128
	fn, ok := p.funcs[from]
	for i := 0; ok && i < maxNear; i++ {
		if fn.Name() == name {
			return fn, true
		}
		fn, ok = p.table.Find(fn.End)
	}
	return gopclntab.Func{}, false
}

// source reads a function's code, at most maxCode bytes.
func (p *program) source(name string) (source, bool) {
	fn, ok := p.funcs[name]
	if !ok || fn.End <= fn.Entry {
		return source{}, false
	}
	code := make([]byte, min(fn.End-fn.Entry, maxCode))
	n, err := p.file.ReadAt(code, int64(fn.Entry))
	if err != nil && !errors.Is(err, io.EOF) {
		return source{}, false
	}
	return source{code[:n], fn.Entry}, true
}

// ranges are the addresses of the functions that are linked in.
func (p *program) ranges() map[string]Range {
	out := make(map[string]Range)
	for _, name := range append(stackFuncs(), "time.now") {
		if fn, ok := p.funcs[name]; ok {
			out[name] = Range{fn.Entry, fn.End}
		}
	}
	return out
}

// decode reads the anchor functions. Where two of them disagree on a field, it is left out.
func (p *program) decode() facts {
	var out facts
	if src, ok := p.source("runtime.systemstack"); ok {
		out = decodeSystemstack(p.mach, src)
	}
	if src, ok := p.source(gosave); ok {
		off, _ := decodeGosave(p.mach, src)
		out.combine(off)
	}
	if src, ok := p.source("runtime.nanotime1"); ok {
		out.combine(decodeVDSO(p.mach, src))
	}
	if p.mach == elf.EM_AARCH64 {
		out.TLS, out.HasTLS, out.TLSSlot = p.armTLS()
	}
	return out
}

// combine adds what off knows and forgets fields on which the two disagree.
func (o *Offsets) combine(off Offsets) {
	bad := o.conflicts(off)
	o.merge(off)
	for _, f := range fields() {
		for _, name := range bad {
			if f.name == name {
				*f.ptr(o) = 0
			}
		}
	}
}

// armTLS: arm64 programs keep g in TLS only if they use cgo (runtime.iscgo, tls_arm64.s).
func (p *program) armTLS() (int64, bool, uint64) {
	src, ok := p.source("runtime.load_g")
	if !ok || !p.file.Cgo() {
		return 0, false, 0
	}
	out := decodeLoadG(src)
	return out.TLS, out.HasTLS, out.TLSSlot
}

// decodeLabels finds g.labels in code. Programs without runtime/pprof.SetGoroutineLabels lack the
// function; they have no labels. The search goes through all functions.
func (p *program) decodeLabels(gm uint32) Offsets {
	const name = "runtime/pprof.runtime_setProfLabel"
	fn, ok := p.table.Lookup(name)[name]
	if !ok || gm == 0 {
		return Offsets{}
	}
	p.funcs[name] = fn
	src, _ := p.source(name)
	return decodeSetLabels(p.mach, src, gm)
}

// deltas fills in the stack-switch constants and names those that could not be found though
// the function is linked in.
func (p *program) deltas(d *Deltas) (missing []string) {
	for _, w := range []struct {
		field, fn, callee string
		to                *int32
	}{
		{"SigtrampDelta", "runtime.sigtramp", "runtime.sigtrampgo", &d.SigtrampDelta},
		{"CgocallbackDelta", "runtime.cgocallback", "runtime.cgocallbackg", &d.CgocallbackDelta},
		{"CgocallDelta", "runtime.cgocall", "runtime.asmcgocall", &d.CgocallDelta},
		{"AsmcgocallDelta", "runtime.asmcgocall", gosave, &d.AsmcgocallDelta},
		{"SystemstackDelta", "runtime.systemstack", gosave, &d.SystemstackDelta},
	} {
		delta, ok := p.deltaAfter(w.fn, w.callee)
		*w.to = delta
		if _, linked := p.funcs[w.fn]; linked && !ok {
			missing = append(missing, w.field)
		}
	}
	d.SigtrampReturn, d.CgocallbackReturn = p.returnOf("runtime.sigtramp", "runtime.sigtrampgo"), p.returnOf("runtime.cgocallback", "runtime.cgocallbackg")
	d.RacecallReturn = p.racecallReturn()
	if !p.switchDelta(d) {
		missing = append(missing, "SystemstackSwitchDelta")
	}
	return missing
}

// returnOf is the return address of fn's call of callee; 0 where there is none.
func (p *program) returnOf(fn, callee string) uint64 {
	c, _ := p.callOf(fn, callee)
	return c.ret
}

// racecallReturn finds racecall's only call, of an address in a register.
func (p *program) racecallReturn() uint64 {
	src, ok := p.source("racecall")
	if !ok || p.mach != elf.EM_X86_64 {
		return 0
	}
	for off := 0; off < len(src.code); {
		in, err := x86asm.Decode(src.code[off:], 64)
		if err != nil || in.Len <= 0 {
			return 0
		}
		off += in.Len
		if _, register := in.Args[0].(x86asm.Reg); in.Op == x86asm.CALL && register {
			return src.addr + uint64(off)
		}
	}
	return 0
}

// deltaAfter is the SP delta in fn at the return address of its call of callee.
func (p *program) deltaAfter(fn, callee string) (int32, bool) {
	c, ok := p.callOf(fn, callee)
	if !ok {
		return 0, false
	}
	return p.funcs[fn].SPDelta(c.ret)
}

// switchDelta finds where g.sched.pc points while a goroutine waits for systemstack.
func (p *program) switchDelta(d *Deltas) bool {
	src, ok := p.source(gosave)
	fn, linked := p.funcs["runtime.systemstack_switch"]
	if !ok || !linked {
		return false
	}
	_, pc := decodeGosave(p.mach, src)
	if pc < fn.Entry || pc >= fn.End {
		return false
	}
	d.SystemstackSwitchPC = pc
	d.SystemstackSwitchDelta, ok = fn.SPDelta(pc)
	return ok
}

// globals finds variables of the runtime by symbol, else by the code that uses them.
func (p *program) globals() Globals {
	g := Globals{}
	refs := func(name string) []uint64 {
		src, ok := p.source(name)
		if !ok {
			return nil
		}
		return p.writable(decodeRefs(p.mach, src))
	}
	if r := refs("runtime.forEachGRace"); len(r) >= 2 { // for i := range allglen { allgptr[i] }
		g.AllGLen, g.AllGPtr = r[0], r[1]
	}
	if r := refs("runtime.mstart1"); len(r) >= 1 { // if mp == &m0
		g.M0 = r[0]
	}
	symbols := map[string]*uint64{"runtime.allglen": &g.AllGLen, "runtime.allgptr": &g.AllGPtr, "runtime.m0": &g.M0}
	for name, a := range p.file.SymbolAddrs(slices.Collect(maps.Keys(symbols))...) { // one pass over the strings
		*symbols[name] = a
	}
	return g
}

// writable keeps the addresses that lie in writable segments.
func (p *program) writable(addrs []uint64) []uint64 {
	var out []uint64
	for _, a := range addrs {
		for _, s := range p.file.Segments() {
			if s.Flags&elf.PF_W != 0 && a >= s.Vaddr && a-s.Vaddr < s.Memsz {
				out = append(out, a)
				break
			}
		}
	}
	return out
}
