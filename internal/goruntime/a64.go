package goruntime

import "encoding/binary"

// Register numbers with a meaning (Go's arm64 ABI; 31 is SP in addresses).
const (
	a64G  = 28
	a64FP = 29
	a64LR = 30
	a64SP = 31
)

// runA64 reads arm64 code that starts at addr until it ends or m is done.
// Encodings: Arm Architecture Reference Manual, C4.1.
func (m *machine) runA64(code []byte, addr uint64) {
	code = code[:min(len(code), maxCode)]
	for len(code) >= 4 && !m.done {
		m.stepA64(binary.LittleEndian.Uint32(code), addr)
		addr += 4
		code = code[4:]
	}
}

// stepA64 sees the instruction in at pc.
func (m *machine) stepA64(in uint32, pc uint64) {
	rd, rn, rm := in&31, in>>5&31, in>>16&31
	switch {
	case in&0xFFC00000 == 0xF9400000: // LDR Xt, [Xn, #imm]
		m.loadA64(rd, rn, int64(in>>10&0xFFF)*8)
	case in&0xFFC00000 == 0xF9000000: // STR Xt, [Xn, #imm]
		m.storeA64(rd, rn, int64(in>>10&0xFFF)*8)
	case in&0xFFC00000 == 0xB9400000: // LDR Wt: only its address matters
		m.refA64(rn, int64(in>>10&0xFFF)*4)
		m.setA64(rd, value{})
	case in&0xFFE0FC00 == 0xF8606800: // LDR Xt, [Xn, Xm]
		m.setA64(rd, m.indexedA64(rn, rm))
	case in&0xFFE0FFE0 == 0xAA0003E0: // MOV Xd, Xm
		m.setA64(rd, m.readA64(rm))
	case in&0xFF800000 == 0x91000000: // ADD Xd, Xn, #imm
		m.addA64(rd, rn, uint64(in>>10&0xFFF)<<(in>>22&1*12))
	case in&0xFF20001F == 0xEB00001F: // CMP Xn, Xm
		m.compare(m.readA64(rn), m.readA64(rm))
	case in&0x9F000000 == 0x90000000: // ADRP
		m.setA64(rd, value{isAddr, adrpTarget(in, pc)})
	case in&0xFF800000 == 0xD2800000: // MOVZ Xd, #imm
		m.setA64(rd, value{isConst, uint64(in>>5&0xFFFF) << (in >> 21 & 3 * 16)})
	case in&0xFFFFFFE0 == 0xD53BD040: // MRS Xt, TPIDR_EL0
		m.setA64(rd, value{kind: isTP})
	default:
		m.flowA64(in, pc)
	}
}

// flowA64 sees calls, and forgets what any other instruction may write.
func (m *machine) flowA64(in uint32, pc uint64) {
	switch {
	case in&0xFC000000 == 0x94000000: // BL
		m.addCall(pc+4, pc+uint64(int64(int32(in<<6))>>4))
	case in&0xFFFFFC1F == 0xD63F0000: // BLR
		v := m.readA64(in >> 5 & 31)
		if v.kind != isAddr {
			v.n = 0
		}
		m.addCall(pc+4, v.n)
	case in>>26&7 == 5: // other branches and system instructions: nothing that is followed changes
	case in>>25&5 == 4:
		m.forgetA64(in)
	default:
		m.setA64(in&31, value{})
	}
}

// forgetA64 forgets what a load or store changes that is not followed: LDRB, LDP, writeback to SP.
func (m *machine) forgetA64(in uint32) {
	if in>>5&31 == a64SP {
		clear(m.slots)
	}
	pair := in>>27&7 == 5
	switch load := in>>22&1 == 1 || !pair && in>>23&1 == 1; {
	case !load || in>>26&1 == 1: // a store, or a vector register
	case pair:
		m.setA64(in>>10&31, value{})
		fallthrough
	default:
		m.setA64(in&31, value{})
	}
}

// loadA64 sees LDR rd, [rn, #disp].
func (m *machine) loadA64(rd, rn uint32, disp int64) {
	base := m.baseA64(rn)
	switch base.kind {
	case isSP:
		m.setA64(rd, m.slots[disp])
	case isAddr:
		m.refA64(rn, disp)
		m.setA64(rd, value{isGOT, base.n + uint64(disp)})
	default:
		m.setA64(rd, m.load(base, disp))
	}
}

// storeA64 sees STR rt, [rn, #disp].
func (m *machine) storeA64(rt, rn uint32, disp int64) {
	if rn == a64SP {
		m.setSlot(disp, m.readA64(rt))
		return
	}
	m.store(m.baseA64(rn), disp, m.readA64(rt))
}

// indexedA64 is the value of the word at [rn, rm]: g where rn is the thread pointer (runtime.load_g).
func (m *machine) indexedA64(rn, rm uint32) value {
	if m.readA64(rn).kind != isTP {
		return value{}
	}
	return m.setTLS(m.readA64(rm))
}

// addA64 sees ADD rd, rn, #imm; with imm 0 it moves to and from SP.
func (m *machine) addA64(rd, rn uint32, imm uint64) {
	v := m.baseA64(rn)
	if v.kind == isAddr {
		v.n += imm
		m.addRef(v.n)
	} else if v.kind != isSP && imm != 0 {
		v = value{}
	}
	if rd == a64SP {
		m.switchStack(v)
		return
	}
	m.setA64(rd, v)
}

// refA64 records the address rn+disp where it is known.
func (m *machine) refA64(rn uint32, disp int64) {
	if v := m.baseA64(rn); v.kind == isAddr {
		m.addRef(v.n + uint64(disp))
	}
}

// baseA64 is register r where 31 means SP.
func (m *machine) baseA64(r uint32) value {
	if r == a64SP {
		return value{kind: isSP}
	}
	return m.regs[r]
}

// readA64 is register r where 31 means zero.
func (m *machine) readA64(r uint32) value {
	if r == a64SP {
		return value{}
	}
	return m.regs[r]
}

// setA64 sets a register; writes to the zero register vanish.
func (m *machine) setA64(r uint32, v value) {
	if r != a64SP {
		m.regs[r] = v
	}
}

// adrpTarget is the page address that ADRP at pc gives.
func adrpTarget(in uint32, pc uint64) uint64 {
	imm := int64(int32(in<<8)>>13)<<2 | int64(in>>29&3) // immhi:immlo, 21 bits, signed
	return pc&^0xFFF + uint64(imm<<12)
}
