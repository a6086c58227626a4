//go:build linux

package stepper

import (
	"golang.org/x/arch/x86/x86asm"
	"golang.org/x/sys/unix"
)

// trap is the instruction of a breakpoint. The program stops behind it.
var trap = []byte{0xcc}

const stopsAfter = 1 // bytes from the breakpoint

// decode decodes the instruction at pc. One that x86asm does not know (VEX) is no call.
func (d *decoder) decode(pc uint64) instruction {
	var code [15]byte // the longest instruction
	n, _ := d.p.ReadAt(code[:], int64(pc))
	inst, err := x86asm.Decode(code[:n], 64)
	return instruction{call: err == nil && inst.Op == x86asm.CALL, size: inst.Len}
}

func getRegs(tid int, r *Regs) error {
	var k unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &k); err != nil {
		return err
	}
	*r = Regs{PC: k.Rip, SP: k.Rsp, FP: k.Rbp, TLS: k.Fs_base}
	return nil
}

func setPC(tid int, pc uint64) error {
	var k unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &k); err != nil {
		return err
	}
	k.Rip = pc
	return unix.PtraceSetRegs(tid, &k)
}

// g is the address of the runtime's g of the thread.
func (s *shadow) g(r *Regs) uint64 { return s.p.word(r.TLS - 8) }

// first is the innermost return address at the entry of a function.
func (s *shadow) first(r *Regs) entry { return entry{r.SP, s.p.word(r.SP)} }

// above is the return address of the frame at fp, which is the caller of the frame of the entry.
func (s *shadow) above(_ entry, fp uint64) entry { return entry{fp + 8, s.p.word(fp + 8)} }

// called is the entry of a call that was executed at pc.
func called(in instruction, pc uint64, _, after *Regs) entry {
	return entry{after.SP, pc + uint64(in.size)}
}

// returned does nothing: what returns moves SP above the slot of its return address.
func (s *shadow) returned(_, _ *Regs) {}

// begun reports whether a goroutine begins at the SP to which gogo has just switched; runtime/proc.go, newproc1.
func (s *shadow) begun(st *stack, r *Regs) (entry, bool) {
	top := s.p.word(r.SP)
	return entry{r.SP, top}, len(st.entries) <= 1 && s.inGoexit(top)
}
