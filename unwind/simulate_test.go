//go:build linux && amd64

package unwind_test

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/goruntime"
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
	sched      struct{ sp, pc, bp uint64 }
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
func (s *simulator) walk(regs *unix.PtraceRegs) []unwind.Segment {
	l := &s.layout
	s.segments, s.joined = s.segments[:0], false
	s.step++
	s.g = s.word(regs.Fs_base + uint64(l.TLS))
	s.m = s.word(s.g + uint64(l.GM))
	s.curg = s.word(s.m + uint64(l.MCurg))
	s.g0, s.signal, s.cur = s.stackOf(s.word(s.m)), s.stackOf(s.word(s.m+uint64(l.MGsignal))), s.stackOf(s.curg)
	s.sched.sp, s.sched.pc, s.sched.bp, s.copying = 0, 0, 0, false
	if s.curg != 0 {
		s.sched.sp, s.sched.pc = s.word(s.curg+uint64(l.GSchedSP)), s.word(s.curg+uint64(l.GSchedPC))
		s.sched.bp = s.word(s.curg + uint64(l.GSchedBP))
		s.copying = s.word(s.curg+uint64(l.GAtomicStatus))&0xfff == 8
	}
	s.segment(unwind.SegmentStart, regs.Rip, regs.Rsp, regs.Rbp)
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

func (s *simulator) segment(kind unwind.SegmentKind, pc, sp, fp uint64) {
	stack, b := s.on(sp)
	if fp < sp && fp+16 >= sp {
		fp = s.word(fp)
	}
	n := len(s.segments)
	if n == len(s.pool) {
		return
	}
	seg := unwind.Segment{Kind: kind, Stack: stack, PC: pc, SP: sp, FP: fp, Frames: s.pool[n][0][:0]}
	ok := func(fp uint64) bool { return fp >= b.lo && fp+16 <= b.hi && fp&7 == 0 }
	scan := !ok(fp) && fp != 0 && pc >= s.text && pc < s.end && (fp < s.cur.lo || fp >= s.cur.hi)
	size := uint64(512)
	if scan {
		size = 2048
	}
	seg.Window = s.window(s.pool[n][1][:0], sp, min(size, b.hi-sp))
	if scan {
		for i := range max(len(seg.Window)-1, 0) {
			at := sp + 8*uint64(i)
			if next, ra := seg.Window[i], seg.Window[i+1]; next > at && next < b.hi && next&7 == 0 && ra >= s.text && ra < s.end {
				fp, seg.FP, seg.Scanned = at, at, true
				break
			}
		}
	}
	for fp != 0 || stack == unwind.StackG0 {
		if !ok(fp) {
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
		s.segment(unwind.SegmentSched, s.sched.pc, s.sched.sp, s.sched.bp)
	}
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
