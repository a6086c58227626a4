package goruntime

import "debug/elf"

// source is the code of one function, at its link-time address.
type source struct {
	code []byte
	addr uint64
}

// newMachine starts with g in its register (Go's ABIInternal: R14 on amd64, R28 on arm64), the
// first argument in the first argument register, and what is known already.
func newMachine(mach elf.Machine, known Offsets) *machine {
	m := &machine{facts: facts{Offsets: known}}
	if mach == elf.EM_AARCH64 {
		m.regs[a64G], m.regs[a64FP], m.regs[a64LR] = value{kind: isG}, value{kind: isFP}, value{kind: isRetAddr}
		m.regs[0] = value{kind: isArg}
		return m
	}
	const rax, rbp, r14 = 0, 5, 14
	m.regs[r14], m.regs[rbp], m.regs[rax] = value{kind: isG}, value{kind: isFP}, value{kind: isArg}
	return m
}

// run reads src as code of the given machine.
func (m *machine) run(mach elf.Machine, src source) {
	if mach == elf.EM_AARCH64 {
		m.runA64(src.code, src.addr)
		return
	}
	m.runX86(src.code, src.addr)
}

// decodeSystemstack reads runtime.systemstack, which begins, in Go 1.18 to 1.27 (asm_amd64.s, asm_arm64.s):
// g from TLS; m = g.m; compare g with m.gsignal, with m.g0, with m.curg; SP = m.g0.sched.sp.
func decodeSystemstack(mach elf.Machine, src source) facts {
	m := newMachine(mach, Offsets{})
	m.inG = true
	m.run(mach, src)
	out := facts{TLS: m.TLS, HasTLS: m.HasTLS, TLSSlot: m.TLSSlot, calls: m.calls}
	out.GM, out.GSchedSP = m.GM, m.GSchedSP
	if len(m.cmps) >= 2 {
		out.MGsignal, out.MCurg = m.cmps[0], m.cmps[1]
	}
	return out
}

// decodeGosave reads gosave_systemstack_switch, which fills g.sched (asm_amd64.s, asm_arm64.s).
func decodeGosave(mach elf.Machine, src source) (Offsets, uint64) {
	m := newMachine(mach, Offsets{})
	m.run(mach, src)
	var pc uint64
	if len(m.refs) > 0 {
		pc = m.refs[len(m.refs)-1] // ADRP+ADD(+ADD): the last is the whole
	}
	return Offsets{GSchedSP: m.GSchedSP, GSchedPC: m.GSchedPC, GSchedBP: m.GSchedBP}, pc
}

// decodeVDSO reads a function that calls the vDSO (runtime.nanotime1, time.now), which stores
// its caller's pc and sp in m.vdsoPC and m.vdsoSP and compares g with m.curg (sys_linux_amd64.s).
func decodeVDSO(mach elf.Machine, src source) Offsets {
	m := newMachine(mach, Offsets{})
	m.inG = true
	m.run(mach, src)
	out := Offsets{GM: m.GM, MVDSOSP: m.MVDSOSP, MVDSOPC: m.MVDSOPC}
	if len(m.cmps) >= 1 {
		out.MCurg = m.cmps[0]
	}
	return out
}

// decodeSetLabels reads runtime/pprof.runtime_setProfLabel, which stores its argument in
// g.labels (runtime/proflabel.go). gm is the offset of g.m.
func decodeSetLabels(mach elf.Machine, src source, gm uint32) Offsets {
	m := newMachine(mach, Offsets{GM: gm})
	m.run(mach, src)
	return Offsets{GLabels: m.GLabels}
}

// decodeLoadG reads runtime.load_g of arm64, which loads g from TPIDR_EL0 + tls_g if iscgo (tls_arm64.s).
func decodeLoadG(src source) facts {
	m := &machine{}
	m.run(elf.EM_AARCH64, src)
	return facts{TLS: m.TLS, HasTLS: m.HasTLS, TLSSlot: m.TLSSlot}
}

// decodeCalls lists the calls of a function.
func decodeCalls(mach elf.Machine, src source) []call {
	m := newMachine(mach, Offsets{})
	m.run(mach, src)
	return m.calls
}

// decodeRefs lists the distinct pc-relative addresses that a function uses, in order.
func decodeRefs(mach elf.Machine, src source) []uint64 {
	m := newMachine(mach, Offsets{})
	m.run(mach, src)
	return m.refs
}
