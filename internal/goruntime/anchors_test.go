package goruntime

import (
	"debug/elf"
	"testing"
)

// TestDecodeAgreesWithDWARF decodes every anchor function of unstripped programs.
func TestDecodeAgreesWithDWARF(t *testing.T) {
	for _, tc := range toolchains() {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(tc+"/"+arch, func(t *testing.T) {
				t.Parallel()
				path := buildTruth(t, tc, mode{}, "GOARCH="+arch)
				checkDecode(t, openSymbols(t, path), dwarfTruth(t, path))
			})
		}
	}
}

func checkDecode(t *testing.T, s symbols, want Offsets) {
	mach := s.f.Machine
	sys := decodeSystemstack(mach, s.source(t, "runtime.systemstack"))
	save, switchPC := decodeGosave(mach, s.source(t, "gosave_systemstack_switch"))
	vdso := decodeVDSO(mach, s.source(t, "runtime.nanotime1"))
	labels := decodeSetLabels(mach, s.source(t, "runtime/pprof.runtime_setProfLabel"), sys.GM)
	same := func(name string, got, want uint32) {
		if got != want || got == 0 {
			t.Errorf("%s = %#x, DWARF says %#x", name, got, want)
		}
	}
	same("systemstack: g.m", sys.GM, want.GM)
	same("systemstack: m.gsignal", sys.MGsignal, want.MGsignal)
	same("systemstack: m.curg", sys.MCurg, want.MCurg)
	same("systemstack: g.sched.sp", sys.GSchedSP, want.GSchedSP)
	same("gosave: g.sched.sp", save.GSchedSP, want.GSchedSP)
	same("gosave: g.sched.pc", save.GSchedPC, want.GSchedPC)
	same("gosave: g.sched.bp", save.GSchedBP, want.GSchedBP)
	same("nanotime1: g.m", vdso.GM, want.GM)
	same("nanotime1: m.vdsoSP", vdso.MVDSOSP, want.MVDSOSP)
	same("nanotime1: m.vdsoPC", vdso.MVDSOPC, want.MVDSOPC)
	same("nanotime1: m.curg", vdso.MCurg, want.MCurg)
	same("runtime_setProfLabel: g.labels", labels.GLabels, want.GLabels)
	if sw := s.source(t, "runtime.systemstack_switch"); switchPC < sw.addr || switchPC > sw.addr+16 {
		t.Errorf("gosave: sched.pc = %#x, want it in systemstack_switch at %#x", switchPC, sw.addr)
	}
	checkGlobals(t, s)
	if mach == elf.EM_X86_64 && (!sys.HasTLS || sys.TLS != -8) {
		t.Errorf("TLS = %d, %v, want -8 in an executable without cgo", sys.TLS, sys.HasTLS)
	}
}

// checkGlobals compares the anchors of variables with the symbol table.
func checkGlobals(t *testing.T, s symbols) {
	refs := decodeRefs(s.f.Machine, s.source(t, "runtime.forEachGRace"))
	want := []uint64{s.syms["runtime.allglen"].Value, s.syms["runtime.allgptr"].Value}
	if len(refs) < 2 || refs[0] != want[0] || refs[1] != want[1] {
		t.Errorf("forEachGRace refers to %#x, want %#x", refs, want)
	}
	m0 := s.syms["runtime.m0"].Value
	if refs := decodeRefs(s.f.Machine, s.source(t, "runtime.mstart1")); len(refs) == 0 || refs[0] != m0 {
		t.Errorf("mstart1 refers to %#x, want m0 %#x first", refs, m0)
	}
}

// TestLoadG: runtime.load_g of arm64, Go 1.27.4, linked internally: MRS TPIDR_EL0, R0; MOVD $16, R27; MOVD (R0)(R27), g.
func TestLoadG(t *testing.T) {
	code := []byte{
		0x7b, 0x0a, 0x00, 0xb0, 0x60, 0x87, 0xb7, 0x39, 0x80, 0x00, 0x00, 0xb4, 0x40, 0xd0, 0x3b, 0xd5,
		0x1b, 0x02, 0x80, 0xd2, 0x1c, 0x68, 0x7b, 0xf8, 0xc0, 0x03, 0x5f, 0xd6,
	}
	if got := decodeLoadG(source{code, 0x8b980}); !got.HasTLS || got.TLS != 16 {
		t.Errorf("TLS %d, %v, want 16", got.TLS, got.HasTLS)
	}
}
