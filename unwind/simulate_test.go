//go:build linux && (amd64 || arm64)

package unwind_test

import (
	"encoding/binary"
	"runtime"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog/stepper"
	"github.com/pprofd/pprofd/unwind"
)

// simulator does in Go, on a stopped process, what bpf/walk.h does in the kernel on a running one, so that the
// unwinder can be judged at every single instruction. profiler's tests judge the real one by samples.
type simulator struct {
	read       func(b []byte, addr int64) (int, error)
	layout     goruntime.Layout
	text, end  uint64
	curg, g, m uint64
	g0, signal bounds
	cur        bounds
	sched      struct{ sp, pc, bp, lr uint64 }
	segments   []unwind.Segment
	pool       [8][2][]uint64
	joined     bool
	copying    bool // curg's stack is being moved
	blocks     [16]block
	step       int
}

// block is memory as of one step: reading words one by one would take most of the test's time.
type block struct {
	number uint64 // of the block in memory
	step   int
	b      [blockSize]byte
}

const blockSize = 1024

const arm64 = runtime.GOARCH == "arm64"

type bounds struct{ lo, hi uint64 }

func (b bounds) has(p uint64) bool { return p >= b.lo && p <= b.hi }

func (s *simulator) word(addr uint64) uint64 {
	if addr%8 != 0 {
		return 0
	}
	number := addr / blockSize
	c := &s.blocks[number%uint64(len(s.blocks))]
	if c.number != number || c.step != s.step {
		if n, err := s.read(c.b[:], int64(number*blockSize)); err != nil || n < blockSize {
			c.step = 0
			return 0
		}
		c.number, c.step = number, s.step
	}
	return binary.LittleEndian.Uint64(c.b[addr%blockSize:])
}

func (s *simulator) stackOf(g uint64) bounds {
	if g == 0 {
		return bounds{}
	}
	return bounds{s.word(g), s.word(g + 8)}
}

// walk makes the segments of the stack at regs.
func (s *simulator) walk(regs *stepper.Regs) []unwind.Segment {
	l := &s.layout
	s.segments, s.joined = s.segments[:0], false
	s.step++
	if s.g = regs.G; !arm64 {
		s.g = s.word(regs.TLS + uint64(l.TLS))
	}
	s.m = s.word(s.g + uint64(l.GM))
	s.curg = s.word(s.m + uint64(l.MCurg))
	s.g0, s.signal, s.cur = s.stackOf(s.word(s.m)), s.stackOf(s.word(s.m+uint64(l.MGsignal))), s.stackOf(s.curg)
	s.sched.sp, s.sched.pc, s.sched.bp, s.sched.lr, s.copying = 0, 0, 0, 0, false
	if s.curg != 0 {
		s.sched.sp, s.sched.pc = s.word(s.curg+uint64(l.GSchedSP)), s.word(s.curg+uint64(l.GSchedPC))
		s.sched.bp = s.word(s.curg + uint64(l.GSchedBP))
		if arm64 {
			s.sched.lr = s.word(s.curg + uint64(l.GSchedBP) - 8)
		}
		s.copying = s.word(s.curg+uint64(l.GAtomicStatus))&0xfff == 8
	}
	s.segment(unwind.SegmentStart, regs.PC, regs.SP, regs.FP, regs.LR)
	return s.segments
}

func (s *simulator) on(sp uint64) (unwind.Stack, bounds) {
	switch {
	case s.copying && (len(s.segments) > 0 || s.cur.has(sp)):
		return unwind.StackUnknown, bounds{0, ^uint64(0)}
	case s.cur.has(sp):
		return unwind.StackGo, bounds{sp, s.cur.hi}
	case s.g0.has(sp):
		return unwind.StackG0, bounds{sp, s.g0.hi}
	case s.signal.has(sp):
		return unwind.StackSignal, bounds{sp, s.signal.hi}
	}
	return unwind.StackUnknown, bounds{sp, sp + 1<<20}
}

func (s *simulator) segment(kind unwind.SegmentKind, pc, sp, fp, lr uint64) {
	stack, b := s.on(sp)
	below := uint64(0)
	switch {
	case arm64:
		below = 16
		if b.lo != 0 {
			b.lo -= below
		}
		if stack != unwind.StackUnknown && fp < sp-8 && fp >= s.start(stack) {
			fp = sp - 8
		}
	case fp < sp && fp+16 >= sp:
		fp = s.word(fp)
	}
	n := len(s.segments)
	if n == len(s.pool) {
		return
	}
	seg := unwind.Segment{Kind: kind, Stack: stack, PC: pc, SP: sp, FP: fp, LR: lr, Frames: s.pool[n][0][:0]}
	ok := func(fp uint64) bool { return fp >= b.lo && fp+16 <= b.hi && fp&7 == 0 }
	scan := (!arm64 || stack != unwind.StackUnknown) && !ok(fp) && fp != 0 && pc >= s.text && pc < s.end && (fp < s.cur.lo || fp >= s.cur.hi)
	size := uint64(512)
	if scan {
		size = 2048
	}
	seg.Window = s.window(s.pool[n][1][:0], sp-below, min(size, b.hi-sp))
	if scan {
		for at := sp; at+16 <= min(sp+size, b.hi); at += 8 {
			if next, ra := s.word(at), s.word(at+8); next > at && next < b.hi && next&7 == 0 && ra >= s.text && ra < s.end {
				fp, seg.FP, seg.Scanned = at, at, true
				break
			}
		}
	}
	for fp != 0 || stack == unwind.StackG0 {
		if !ok(fp) {
			if copied := s.copied(stack, b, fp); copied != 0 {
				fp = copied
				continue
			}
			if next := s.leave(stack, fp); next != unwind.StackUnknown {
				stack, b = next, bounds{fp, s.cur.hi}
				continue
			}
			break
		}
		seg.Frames = append(seg.Frames, s.word(fp+8))
		if b.lo != 0 {
			b.lo = fp + 16
		}
		fp = s.word(fp)
	}
	seg.End = unwind.EndBounds
	switch {
	case fp == 0 && stack != unwind.StackG0:
		seg.End = unwind.EndZero
	case stack == unwind.StackG0 && s.joins():
		seg.End = unwind.EndSwitch
	}
	s.pool[n] = [2][]uint64{seg.Frames, seg.Window}
	s.segments = append(s.segments, seg)
	if seg.End == unwind.EndSwitch {
		s.joined = true
		s.segment(unwind.SegmentSched, s.sched.pc, s.sched.sp, s.sched.bp, s.sched.lr)
	}
}

// start is the low end of a stack.
func (s *simulator) start(stack unwind.Stack) uint64 {
	switch stack {
	case unwind.StackGo:
		return s.cur.lo
	case unwind.StackG0:
		return s.g0.lo
	default:
		return s.signal.lo
	}
}

// copied is find_copied of bpf/walk.h: where the frame record at fp, of a stack that was copied, is now; 0: nowhere.
func (s *simulator) copied(stack unwind.Stack, b bounds, fp uint64) uint64 {
	const minStack = 2048
	at := b.lo + (fp-b.lo)&(minStack-1)
	if ra := s.word(at + 8); !arm64 || stack != unwind.StackGo || at+16 > b.hi || ra < s.text || ra >= s.end {
		return 0
	}
	return at
}

func (s *simulator) joins() bool {
	return s.curg != 0 && s.g != s.curg && s.sched.pc != 0 && !s.joined
}

// leave says on which stack a chain that has left its own goes on; StackUnknown: on none.
func (s *simulator) leave(stack unwind.Stack, fp uint64) unwind.Stack {
	if stack == unwind.StackG0 && s.joins() || stack == unwind.StackGo || stack == unwind.StackUnknown {
		return unwind.StackUnknown
	}
	if fp >= s.cur.lo && fp < s.cur.hi {
		return unwind.StackGo
	}
	return unwind.StackUnknown
}

func (s *simulator) window(dst []uint64, sp, n uint64) []uint64 {
	for at := sp; at+8 <= sp+n; at += 8 {
		dst = append(dst, s.word(at))
	}
	return dst
}
