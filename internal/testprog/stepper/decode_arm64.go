//go:build linux

package stepper

import (
	"cmp"
	"encoding/binary"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trap is the instruction of a breakpoint: BRK #0. The program stops before it.
var trap = []byte{0x00, 0x00, 0x20, 0xd4}

const stopsAfter = 0

// exclusiveLimit bounds the instructions from a load-exclusive to the branch behind its store.
const exclusiveLimit = 16

// decode decodes the instruction at pc (Arm ARM, C4.1).
func (d *decoder) decode(pc uint64) instruction {
	i := d.word(pc)
	in := instruction{size: 4, call: i&0xfc000000 == 0x94000000 || i&0xfffffc1f == 0xd63f0000} // BL, BLR
	if i&0x3fc00000 == 0x08400000 {                                                            // LDXR and LDAXR: each step clears what the store asks for, so that it would fail for ever
		in.skip = d.behindStore(pc)
	}
	return in
}

func (d *decoder) word(pc uint64) uint32 {
	var code [4]byte
	if _, err := d.p.ReadAt(code[:], int64(pc)); err != nil {
		return 0
	}
	return binary.LittleEndian.Uint32(code[:])
}

// behindStore is the address behind the STXR that belongs to the load at pc, and behind the branch that repeats both.
func (d *decoder) behindStore(pc uint64) uint64 {
	for n := uint64(1); n < exclusiveLimit; n++ {
		if d.word(pc+4*n)&0x3fc00000 != 0x08000000 {
			continue
		}
		if next := d.word(pc + 4*n + 4); next&0x7e000000 == 0x34000000 { // CBZ, CBNZ
			n++
		}
		return pc + 4*n + 4
	}
	return 0
}

func getRegs(tid int, r *Regs) error {
	k, err := readRegs(tid)
	*r = Regs{PC: k.Pc, SP: k.Sp, FP: k.Regs[29], LR: k.Regs[30], G: k.Regs[28]}
	return err
}

// ntPrStatus is NT_PRSTATUS, the set of the general registers (linux/elf.h).
const ntPrStatus = 1

func readRegs(tid int) (k unix.PtraceRegs, err error) {
	return k, regSet(unix.PTRACE_GETREGSET, tid, &k)
}

func setPC(tid int, pc uint64) error {
	k, err := readRegs(tid)
	if err != nil {
		return err
	}
	k.Pc = pc
	return regSet(unix.PTRACE_SETREGSET, tid, &k)
}

func regSet(request uintptr, tid int, k *unix.PtraceRegs) error {
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(k)), Len: uint64(unsafe.Sizeof(*k))}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, request, uintptr(tid), ntPrStatus, uintptr(unsafe.Pointer(&iov)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// g is the address of the runtime's g of the thread. C code of the vDSO may use the register.
func (s *shadow) g(r *Regs) uint64 { return r.G }

// first is the innermost return address at the entry of a function. The slot of an entry is the caller's SP.
func (s *shadow) first(r *Regs) entry { return entry{r.SP, r.LR} }

// above is the return address of the frame at fp, which has called the frame of e: the word at its SP. Its record holds the frame
// pointer of its own caller, which is 8 below that one's SP.
func (s *shadow) above(e entry, fp uint64) entry { return entry{s.p.word(fp) + 8, s.p.word(fp + 8)} }

// called is the entry of a call that was executed at pc.
func called(in instruction, pc uint64, before, _ *Regs) entry {
	return entry{before.SP, pc + uint64(in.size)}
}

// returned drops the innermost entry if a branch has gone where it says, with the caller's SP, or where gogo
// was told to go on in the function that called (recovery). It notices the beginning of goroutines.
func (s *shadow) returned(before, after *Regs) {
	st := s.cur
	n := len(st.entries)
	byGogo := s.gogo.has(before.PC) && !s.gogo.has(after.PC)
	if byGogo && s.inGoexit(after.LR) && (n == 0 || st.entries[n-1].ra != after.PC) {
		st.entries, st.known = append(st.entries[:0], entry{after.SP, after.LR}), true
		return
	}
	if n == 0 || after.PC == before.PC+4 || st.entries[n-1].slot != after.SP {
		return
	}
	if ra := st.entries[n-1].ra; ra == after.PC || byGogo && s.function(ra) == s.function(after.PC) {
		st.entries = st.entries[:n-1]
	}
}

// begun says nothing: gogo sets the link register, from which returned knows it, after SP.
func (s *shadow) begun(st *stack, r *Regs) (entry, bool) { return entry{}, false }

// function is the name of the function at pc.
func (s *shadow) function(pc uint64) string {
	i, found := slices.BinarySearchFunc(s.funcs, pc, func(f span, pc uint64) int { return cmp.Compare(f.start, pc) })
	if !found {
		i--
	}
	if i < 0 || !s.funcs[i].has(pc) {
		return ""
	}
	return s.funcs[i].name
}
