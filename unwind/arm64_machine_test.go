//go:build linux

package unwind_test

import (
	"maps"
	"math/bits"

	"github.com/pprofd/pprofd/unwind"
)

// insn is an A64 instruction (Arm ARM, C4.1).
type insn uint32

func (i insn) is(value, mask uint32) bool { return uint32(i)&mask == value }

func (i insn) field(low, n int) int { return int(i>>low) & (1<<n - 1) }

// signed is a field in two's complement.
func (i insn) signed(low, n int) int64 { return int64(i.field(low, n)) << (64 - n) >> (64 - n) }

func (i insn) isCall() bool { return i.is(0x94000000, 0xfc000000) || i.is(0xd63f0000, 0xfffffc1f) }

const (
	fp = 29
	lr = 30
	sp = 31
)

// value is a register's, if it is known.
type value struct {
	v  uint64
	ok bool
}

// machine is the state that matters to unwinding: registers and the stack, as far as they follow from the code alone.
type machine struct {
	pc    uint64
	regs  [32]value // 31 is SP
	stack map[uint64]value
}

// newMachine has just called the function at pc: SP, a frame record of the caller below it, the link register.
func newMachine(p *program, pc uint64) *machine {
	m := &machine{pc: pc, stack: map[uint64]value{
		stackTop - 8: {0, true}, // the caller's frame record: its caller has none
		stackTop:     {p.bottom, true},
	}}
	m.regs[sp], m.regs[fp], m.regs[lr] = value{stackTop, true}, value{stackTop - 8, true}, value{p.caller, true}
	return m
}

func (m *machine) clone() *machine {
	c := *m
	c.stack = maps.Clone(m.stack)
	return &c
}

// segment is what the kernel side would record. Words that the function did not write itself are return addresses, as
// they may be in what earlier calls have left.
func (m *machine) segment(p *program) unwind.Segment {
	s := unwind.Segment{Kind: unwind.SegmentStart, Stack: unwind.StackGo, End: unwind.EndZero,
		PC: m.pc, SP: m.regs[sp].v, FP: m.regs[fp].v, LR: m.regs[lr].v}
	if !m.regs[lr].ok {
		s.LR = p.poison
	}
	if s.FP != 0 && s.FP < s.SP-8 { // around calls of duffzero and duffcopy, and while a frame is freed; see bpf/walk.h
		s.FP = s.SP - 8
	}
	for a := s.SP - 16; a < s.SP-16+512; a += 8 {
		s.Window = append(s.Window, m.word(p, a))
	}
	for f := s.FP; f != 0 && len(s.Frames) < 4; f = m.word(p, f) {
		s.Frames = append(s.Frames, m.word(p, f+8))
	}
	return s
}

func (m *machine) word(p *program, addr uint64) uint64 {
	w, written := m.stack[addr]
	switch {
	case !written:
		return p.poison
	case !w.ok:
		return 7
	}
	return w.v
}

// step executes the instruction at pc: where it may branch to, and whether the next may follow.
func (m *machine) step(p *program) (branch uint64, falls bool) {
	i := p.at(m.pc)
	switch {
	case i.is(0x14000000, 0xfc000000): // B
		return m.pc + uint64(i.signed(0, 26)*4), false
	case i.is(0x54000000, 0xff000010), i.is(0x34000000, 0x7e000000): // B.cond, CBZ, CBNZ
		return m.pc + uint64(i.signed(5, 19)*4), true
	case i.is(0x36000000, 0x7e000000): // TBZ, TBNZ
		return m.pc + uint64(i.signed(5, 14)*4), true
	case i.is(0x94000000, 0xfc000000):
		return 0, m.call(p, m.pc+uint64(i.signed(0, 26)*4))
	case i.is(0xd63f0000, 0xfffffc1f): // BLR
		return 0, m.call(p, 0)
	case i.is(0xd61f0000, 0xfe9ffc1f), i.is(0, 0xffff0000), i.is(0xd4200000, 0xffe0001f): // BR, RET, UDF, BRK
		return 0, false
	case i.is(0x28000000, 0x3a000000), i.is(0x38000000, 0x3a000000), i.is(0x08000000, 0x3f000000), i.is(0x0c000000, 0xbe000000):
		m.memory(i)
	default:
		m.arithmetic(i)
	}
	return 0, true
}

// call forgets what a call may change. The frame pointer and SP are as before, but for what returns another way.
func (m *machine) call(p *program, to uint64) (returns bool) {
	if f, ok := p.table.Find(to); ok && noreturn.MatchString(f.Name()) {
		return false
	}
	if p.growsStack[to] {
		return true // gogo restores the link register
	}
	for r := range fp {
		m.regs[r] = value{}
	}
	m.regs[lr] = value{m.pc + 4, true}
	return true
}

// register is n as an operand that may be ZR.
func (m *machine) register(n int) value {
	if n == 31 {
		return value{0, true}
	}
	return m.regs[n]
}

func (m *machine) set(n int, v value) {
	if n != 31 {
		m.regs[n] = v
	}
}

func (m *machine) arithmetic(i insn) {
	rd, rn, rm := i.field(0, 5), i.field(5, 5), i.field(16, 5)
	add := func(a, b value) value {
		if i.field(30, 1) == 1 {
			b.v = -b.v
		}
		return value{a.v + b.v, a.ok && b.ok}
	}
	switch {
	case i.is(0x91000000, 0xbf000000): // ADD, SUB immediate: 31 is SP
		m.regs[rd] = add(m.regs[rn], value{uint64(i.field(10, 12)) << (12 * i.field(22, 1)), true})
	case i.is(0x8b200000, 0xbfe00000): // extended register: 31 is SP
		m.regs[rd] = add(m.regs[rn], value{m.register(rm).v << i.field(10, 3), m.register(rm).ok && i.field(13, 3) == 3})
	case i.is(0x8b000000, 0xbfe00000): // shifted register
		m.set(rd, add(m.register(rn), value{m.register(rm).v << i.field(10, 6), m.register(rm).ok}))
	case i.is(0xaa000000, 0xffe0fc00) && rn == 31: // MOV
		m.set(rd, m.register(rm))
	case i.is(0xb2000000, 0xff800000) && rn == 31: // MOV of a bitmask immediate: 31 is SP
		m.regs[rd] = bitmask(i)
	case i.is(0xd2800000, 0xff800000): // MOVZ
		m.set(rd, value{uint64(i.field(5, 16)) << (16 * i.field(21, 2)), true})
	case i.is(0x92800000, 0xff800000): // MOVN
		m.set(rd, value{^(uint64(i.field(5, 16)) << (16 * i.field(21, 2))), true})
	case i.is(0xf2800000, 0xff800000): // MOVK
		shift := 16 * i.field(21, 2)
		old := m.register(rd)
		m.set(rd, value{old.v&^(0xffff<<shift) | uint64(i.field(5, 16))<<shift, old.ok})
	case i.is(0x1e000000, 0x1e000000) || i.is(0x0e000000, 0x0e000000): // floating point and SIMD; few write a general register
		if rd < fp {
			m.regs[rd] = value{}
		}
	default:
		m.set(rd, value{})
	}
}

// bitmask decodes a logical immediate (Arm ARM, DecodeBitMasks) of 64-bit instructions.
func bitmask(i insn) value {
	n, immr, imms := i.field(22, 1), i.field(16, 6), i.field(10, 6)
	length := bits.Len(uint(n<<6|^imms&0x3f)) - 1
	if length < 1 {
		return value{}
	}
	size := 1 << length
	s, r := imms&(size-1), immr&(size-1)
	element := uint64(1)<<(s+1) - 1
	element = element>>r | element<<(size-r)
	if size < 64 {
		element &= 1<<size - 1
	}
	var v uint64
	for at := 0; at < 64; at += size {
		v |= element << at
	}
	return value{v, true}
}

// memory executes loads and stores; only 64-bit general registers are followed.
func (m *machine) memory(i insn) {
	rt, rn, rt2 := i.field(0, 5), i.field(5, 5), i.field(10, 5)
	pair := i.is(0x28000000, 0x3a000000)
	vector := i.field(26, 1) == 1
	base := m.regs[rn]
	offset, writeback, post, known := address(i, pair)
	at := base
	if !post {
		at.v += uint64(offset)
	}
	load := i.field(22, 1) == 1 || !pair && i.field(23, 1) == 1
	wide := i.field(30, 2) == 3 || pair && i.field(30, 2) == 2
	switch {
	case !load && !known, !load && !at.ok: // elsewhere than the stack, since SP is always known
	case load && !vector:
		m.set(rt, m.load(at, known && wide))
		if pair {
			m.set(rt2, m.load(value{at.v + 8, at.ok}, known && wide))
		}
	case !load:
		m.stack[at.v] = m.stored(rt, wide && !vector)
		if pair {
			m.stack[at.v+8] = m.stored(rt2, wide && !vector)
		}
	}
	if writeback {
		m.regs[rn] = value{base.v + uint64(offset), base.ok && known}
	}
}

func (m *machine) load(at value, known bool) value {
	if !at.ok || !known {
		return value{}
	}
	return m.stack[at.v]
}

func (m *machine) stored(r int, known bool) value {
	if !known {
		return value{}
	}
	return m.register(r)
}

// address decodes the addressing mode; known is false for those that add a register, and for atomics.
func address(i insn, pair bool) (offset int64, writeback, post, known bool) {
	switch {
	case pair:
		scale := int64(4) << i.field(31, 1)
		if i.field(26, 1) == 1 {
			scale = 4 << i.field(30, 2)
		}
		mode := i.field(23, 2)
		return i.signed(15, 7) * scale, mode == 1 || mode == 3, mode == 1, true
	case i.is(0x39000000, 0x3b000000):
		return int64(i.field(10, 12)) << i.field(30, 2), false, false, true
	case i.is(0x38000000, 0x3b200000):
		mode := i.field(10, 2)
		return i.signed(12, 9), mode == 1 || mode == 3, mode == 1, true
	}
	return 0, false, false, false
}
