package unwind

// steps walks by SP delta through the window of a segment, beside the chain of frame records.
type steps struct {
	*walk
	seg    *Segment
	pc     pcInfo // of the current frame
	sp, fp uint64
	lr     uint64   // the link register, until its frame was taken; the sample's stays: it may be completed again
	chain  []uint64 // what is left of it; chain[0] belongs to the record at fp
	synced bool     // the record at fp is known to be the current frame's or a later one's
	called bool     // the current frame has called the one before
}

// run steps until the rest of the chain is certain. It reports whether the walk of the segment is over.
func (s *steps) run() bool {
	for range maxSteps {
		if !s.pc.isGo || !s.pc.sound {
			return false
		}
		ra, more := s.next()
		if !more {
			return s.done
		}
		if !s.frame(ra) {
			return true
		}
		a, _ := s.resolve(ra)
		by := s.pc.role
		s.pc, s.called = s.u.info(a), true
		if by == roleAsyncPreempt || by == roleSigpanic {
			s.interrupted()
		}
		if s.pc.spWrite && s.seg.Stack != StackGo || s.pc.role == roleCgocallback { // has called on another stack
			return s.hasNext && s.pc.role != roleCgocallback
		}
	}
	s.broken = s.broken || !s.synced
	return false
}

// own reports whether the frame pointer is the current function's own: its record holds the return address.
func (s *steps) own(i pcInfo) bool {
	if s.called && (s.arm64 || s.moving()) { // up to Go 1.20, copystack leaves arm64's frame pointers as they were
		return i.delta > 0
	}
	if s.arm64 { // the record was at SP-8 when it was made; SP may have gone down since, and the caller's is at SP+delta-8
		return s.fp-(s.sp-8) < uint64(i.delta)
	}
	return s.fp == s.sp+uint64(i.delta)-8
}

// moving reports whether the goroutine's stack is being copied (runtime.copystack): SP and frame pointers may then be of
// different copies, which differ by nothing else. A function that has called another has its frame.
func (s *steps) moving() bool { return s.seg.Kind == SegmentSched && s.seg.Stack == StackUnknown }

// interrupted undoes what a signal handler did to the current frame to make it call: on arm64 it pushed the link register
// (pushCall and preparePanic in runtime/signal_arm64.go).
func (s *steps) interrupted() {
	s.called = false
	if !s.arm64 {
		return
	}
	if s.pc.delta == 0 {
		s.lr, _ = s.word(s.sp)
	}
	s.sp += 16
}

// next returns the return address of the current frame and makes the caller's the current one.
// more is false where only the chain knows how to go on.
func (s *steps) next() (ra uint64, more bool) {
	if s.own(s.pc) {
		s.synced = true
		return s.follow()
	}
	ra, ok := s.returnAddress()
	if ok {
		_, ok = s.resolve(ra)
	}
	if !ok {
		s.done = s.pc.role == roleClone // of a new thread: nothing has called it there
		s.broken = !s.done
		return 0, false
	}
	s.sp += uint64(s.pc.delta)
	if !s.arm64 {
		s.sp += 8
	}
	return ra, true
}

// follow takes one record of the chain; its successor must be in the window for the steps to go on.
func (s *steps) follow() (ra uint64, more bool) {
	next, ok := s.word(s.fp)
	if !ok || len(s.chain) == 0 {
		return 0, false
	}
	ra, s.chain = s.chain[0], s.chain[1:]
	if s.arm64 {
		ra = s.overLR(ra)
	}
	s.sp += uint64(s.pc.delta)
	if !s.arm64 {
		s.sp += 8
	}
	s.fp = next
	return ra, true
}

// overLR returns the link register in place of a return address that the interrupted function has overwritten: assembly
// that calls nothing may use the word at SP, as internal/chacha8rand does.
func (s *steps) overLR(ra uint64) uint64 {
	lr := s.lr
	s.lr = 0
	if _, ok := s.resolve(ra); ok || lr == 0 {
		return ra
	}
	return lr
}

// returnAddress of the current frame, by SP delta.
func (s *steps) returnAddress() (uint64, bool) {
	if !s.arm64 {
		return s.word(s.sp + uint64(s.pc.delta))
	}
	if s.pc.delta == 0 {
		lr := s.lr
		s.lr = 0 // good for one frame
		return lr, lr != 0
	}
	ra, ok := s.word(s.sp)
	if ok {
		ra = s.overLR(ra)
	}
	return ra, ok
}

// word reads the copied stack.
func (s *steps) word(addr uint64) (uint64, bool) {
	base := s.seg.SP
	if s.arm64 {
		base -= 16
	}
	if addr < base || addr&7 != 0 {
		return 0, false
	}
	i := (addr - base) / 8
	if i >= uint64(len(s.seg.Window)) {
		return 0, false
	}
	return s.seg.Window[i], true
}
