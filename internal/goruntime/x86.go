package goruntime

import (
	"golang.org/x/arch/x86/x86asm"
)

// runX86 reads amd64 code that starts at addr until it ends, cannot be decoded, or m is done.
func (m *machine) runX86(code []byte, addr uint64) {
	code = code[:min(len(code), maxCode)]
	for len(code) > 0 && !m.done {
		in, err := x86asm.Decode(code, 64)
		if err != nil || in.Len <= 0 || in.Len > len(code) {
			return
		}
		m.stepX86(in, addr+uint64(in.Len))
		addr += uint64(in.Len)
		code = code[in.Len:]
	}
}

// stepX86 sees one instruction; next is the address after it.
func (m *machine) stepX86(in x86asm.Inst, next uint64) {
	m.refX86(in, next)
	switch in.Op {
	case x86asm.MOV:
		m.moveX86(in, next)
	case x86asm.LEA:
		m.setX86(in.Args[0], m.addressX86(in.Args[1], next))
	case x86asm.CMP:
		m.compare(m.valueX86(in.Args[0], next), m.valueX86(in.Args[1], next))
	case x86asm.CALL:
		m.callX86(in.Args[0], next)
	case x86asm.PUSH, x86asm.POP, x86asm.SUB, x86asm.ADD, x86asm.AND:
		clear(m.slots) // SP may have moved
		if in.Op != x86asm.PUSH {
			m.setX86(in.Args[0], value{})
		}
	default:
		m.setX86(in.Args[0], value{})
	}
}

// disp is a displacement with its sign: x86asm extends that of 8 bits, but not that of 32.
func disp(mem x86asm.Mem) int64 { return int64(int32(mem.Disp)) }

// refX86 records rip-relative operands.
func (m *machine) refX86(in x86asm.Inst, next uint64) {
	for _, a := range in.Args {
		if mem, ok := a.(x86asm.Mem); ok && mem.Base == x86asm.RIP {
			m.addRef(next + uint64(disp(mem)))
		}
	}
}

// moveX86 sees a MOV.
func (m *machine) moveX86(in x86asm.Inst, next uint64) {
	src := m.valueX86(in.Args[1], next)
	if in.DataSize != 64 && src.kind != isConst {
		src = value{}
	}
	mem, ok := in.Args[0].(x86asm.Mem)
	switch {
	case !ok && in.Args[0] == x86asm.RSP:
		m.switchStack(src)
	case !ok:
		m.setX86(in.Args[0], src)
	case mem.Segment != 0 || mem.Index != 0:
	case mem.Base == x86asm.RSP:
		m.setSlot(disp(mem), src)
	default:
		m.store(m.regX86(mem.Base), disp(mem), src)
	}
}

// callX86 sees a CALL, direct or through a register.
func (m *machine) callX86(target x86asm.Arg, next uint64) {
	switch t := target.(type) {
	case x86asm.Rel:
		m.addCall(next, next+uint64(int64(t)))
	case x86asm.Reg:
		v := m.regX86(t)
		if v.kind != isAddr {
			v.n = 0
		}
		m.addCall(next, v.n)
	default:
		m.addCall(next, 0)
	}
}

// valueX86 is the value of a source operand.
func (m *machine) valueX86(a x86asm.Arg, next uint64) value {
	switch a := a.(type) {
	case x86asm.Imm:
		return value{isConst, uint64(int64(a))}
	case x86asm.Reg:
		return m.regX86(a)
	case x86asm.Mem:
		return m.loadX86(a, next)
	}
	return value{}
}

// loadX86 is the value of a memory operand.
func (m *machine) loadX86(mem x86asm.Mem, next uint64) value {
	switch {
	case mem.Index != 0:
		return value{}
	case mem.Segment == x86asm.FS && mem.Base == 0:
		return m.setTLS(value{isConst, uint64(disp(mem))})
	case mem.Segment == x86asm.FS:
		off := m.regX86(mem.Base)
		if off.kind == isConst {
			off.n += uint64(disp(mem))
		} else if disp(mem) != 0 {
			off = value{}
		}
		return m.setTLS(off)
	case mem.Segment != 0:
		return value{}
	case mem.Base == x86asm.RIP:
		return value{isGOT, next + uint64(disp(mem))}
	case mem.Base == x86asm.RSP:
		return m.slots[disp(mem)]
	}
	return m.load(m.regX86(mem.Base), disp(mem))
}

// addressX86 is the value of LEA's operand.
func (m *machine) addressX86(a x86asm.Arg, next uint64) value {
	mem, ok := a.(x86asm.Mem)
	switch {
	case !ok || mem.Index != 0:
		return value{}
	case mem.Base == x86asm.RIP:
		return value{isAddr, next + uint64(disp(mem))}
	case mem.Base == x86asm.RSP:
		return value{kind: isSP}
	}
	return value{}
}

// regX86 is the value of a register. 32-bit names are never followed.
func (m *machine) regX86(r x86asm.Reg) value {
	if r == x86asm.RSP {
		return value{kind: isSP}
	}
	if r < x86asm.RAX || r > x86asm.R15 {
		return value{}
	}
	return m.regs[r-x86asm.RAX]
}

// setX86 sets a register operand; others are left alone. A write to a part of a register forgets it.
func (m *machine) setX86(a x86asm.Arg, v value) {
	r, ok := a.(x86asm.Reg)
	switch {
	case !ok:
	case r >= x86asm.RAX && r <= x86asm.R15:
		m.regs[r-x86asm.RAX] = v
	case r >= x86asm.EAX && r <= x86asm.R15L:
		m.regs[r-x86asm.EAX] = value{}
	}
}
