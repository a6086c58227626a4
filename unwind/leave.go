package unwind

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/pprofd/pprofd/objfile"
)

// Left says how a thread came to the stack that Leave has walked.
type Left uint8

// Ways onto a stack of a thread's own.
const (
	LeftLost   Left = iota // that is not known
	LeftSched              // the goroutine's code changed to it, and saved where it goes on in g.sched
	LeftSignal             // a signal handler: the kernel has left what it interrupted
	LeftClock              // for the vDSO, whose caller is in m.vdsoPC and m.vdsoSP
)

// switchRoom is what systemstack, mcall and morestack have at most on the stack that they change to when they call: 16 bytes for
// arguments and what the frame pointer is saved in.
const switchRoom = 64

// Leave appends what a thread has called on a stack of its own, g0's or the one for signals, leaf first, as Walk does, and says how
// it came there; frame is where the kernel's signal frame is (arch/x86/include/asm/sigframe.h: rt_sigframe; arch/arm64/kernel/signal.c).
// in.Top is g0.sched.sp, below which the runtime changes to g0's stack; 0: it does not change to this one. Whatever is not certain is
// LeftLost: C code, functions that change stacks and were interrupted there, the scheduler that no goroutine has called.
func (u *Unwinder) Leave(dst []objfile.Addr, space *objfile.Space, in *Stopped, limit int) (out []objfile.Addr, how Left, frame uint64) {
	s := stopped{u: u, space: space, in: in, pc: in.PC, sp: in.SP, lr: in.LR, exact: in.Exact}
	for range limit {
		a, ok := space.Resolve(s.pc)
		if !ok {
			return dst, LeftLost, 0
		}
		im := u.image(a.Image)
		s.arm64 = im.arm64
		info, leaf := u.info(a), s.exact
		if leaf && (im.vdso || info.role == roleClock) {
			return append(dst, a), LeftClock, 0
		}
		if !info.isGo || !info.sound || info.delta < 0 || info.delta&7 != 0 || leaf && info.spWrite {
			return dst, LeftLost, 0
		}
		switch info.role {
		case roleSystemstack, roleMcall, roleMorestack:
			if s.sp > in.Top || in.Top-s.sp > switchRoom {
				return dst, LeftLost, 0
			}
			if info.role != roleMorestack { // which tracebacks do not show
				dst = append(dst, s.shown(a, false))
			}
			return dst, LeftSched, 0
		case roleSigtramp:
			return append(dst, s.shown(a, false)), LeftSignal, s.sp + uint64(info.delta)
		case roleTop, roleGoexit, roleGogo, roleClone, roleRestorer, roleCgocallback, roleCrosscall, roleAsmcgocall, roleSystemstackSwitch, roleClock:
			return dst, LeftLost, 0
		}
		if info.spWrite {
			return dst, LeftLost, 0
		}
		dst = append(dst, s.shown(a, false))
		if s.up(info) != ToTop {
			return dst, LeftLost, 0
		}
	}
	return dst, LeftLost, 0
}

// mayStop says whether the SP delta of a function is right where a thread was interrupted in it, on the goroutine's stack: those that
// change stacks have another one there, but for those that do not touch SP while it is the goroutine's.
func mayStop(info pcInfo) bool {
	switch info.role {
	case roleSystemstack, roleMcall, roleMorestack, roleAsmcgocall, roleClock:
		return true
	case roleGogo, roleGoexit:
		return false
	}
	return !info.spWrite
}

// Interrupted is what the kernel keeps of what a signal has interrupted.
type Interrupted struct {
	PC, SP, LR uint64
	Info       []byte // the beginning of its siginfo_t
}

// Where the kernel's signal frame has what, from its start.
const (
	amd64Context, amd64Info = 8 + 40, 8 + 304 // pretcode, ucontext {flags, link, stack[3], sigcontext, sigmask}, siginfo
	amd64SP, amd64PC        = amd64Context + 15*8, amd64Context + 16*8
	arm64X30                = 128 + 176 + 8 + 30*8 // siginfo (128), ucontext {.. sigcontext at 176: fault_address, regs[31], sp, pc}
	arm64SP, arm64PC        = arm64X30 + 8, arm64X30 + 16

	infoSize  = 32
	frameSize = arm64PC + 8 // of what is read of either
)

// ReadInterrupted reads the kernel's signal frame at frame.
func ReadInterrupted(mem io.ReaderAt, frame uint64, arm64 bool) (Interrupted, error) {
	var b [frameSize]byte
	if frame > 1<<62 || frame%8 != 0 {
		return Interrupted{}, fmt.Errorf("no signal frame at %#x", frame)
	}
	if n, err := mem.ReadAt(b[:], int64(frame)); n < len(b) {
		return Interrupted{}, fmt.Errorf("read the signal frame at %#x: %w", frame, err)
	}
	word := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	if arm64 {
		return Interrupted{PC: word(arm64PC), SP: word(arm64SP), LR: word(arm64X30), Info: b[:infoSize]}, nil
	}
	return Interrupted{PC: word(amd64PC), SP: word(amd64SP), Info: b[amd64Info:][:infoSize]}, nil
}
