package unwind

import "github.com/pprofd/pprofd/objfile"

// walk is the state of one Complete.
type walk struct {
	u       *Unwinder
	space   *objfile.Space
	dst     []objfile.Addr
	stack   Stack
	hasNext bool // another segment follows
	done    bool // the bottom was reached
	broken  bool
	lastGo  bool // the last frame is Go's
	arm64   bool // the segment was entered in such code
	left    bool // the goroutine that switched to the system stack no longer runs: another is looked for, or begins
	exact   bool // the next address is no return address: its callee did not call it, a signal did
}

// segment walks one segment.
func (w *walk) segment(seg *Segment) {
	w.stack = seg.Stack
	a, ok := w.space.Resolve(seg.PC)
	if !ok && seg.Kind == SegmentStart {
		w.dst = append(w.dst, a) // an address that nothing is mapped at any more still counts
	}
	info := pcInfo{}
	if ok {
		info = w.u.info(a)
		w.leaf(seg, a, info)
	}
	if w.done {
		return
	}
	if info.role == roleRestorer {
		w.broken = w.broken || !w.hasNext
		return
	}
	w.arm64 = ok && w.u.image(a.Image).arm64
	if !info.isGo {
		w.foreign(seg, a)
		return
	}
	s := steps{walk: w, seg: seg, pc: info, sp: seg.SP, fp: seg.FP, lr: seg.LR, chain: seg.Frames}
	switch {
	case w.switched(seg, &s, info):
	case s.run():
	default:
		w.rest(s.chain)
	}
}

// leaf appends the first address of a segment, if it is a frame that the runtime shows.
func (w *walk) leaf(seg *Segment, a objfile.Addr, info pcInfo) {
	w.lastGo = info.isGo
	w.left = info.role == roleSchedule
	switch {
	case info.role == roleGoexit:
		w.done = true
		return
	case seg.Kind == SegmentStart, seg.Kind == SegmentSignal:
		w.exact = info.role == roleAsyncPreempt
		w.dst = append(w.dst, a)
		w.done = info.role == roleGogo || info.role == roleTop
	case info.role == roleSystemstackSwitch: // stands for systemstack or asmcgocall
	default:
		w.dst = append(w.dst, objfile.Addr{Image: a.Image, Off: a.Off - 1})
	}
}

// switched handles a leaf that has already left the stack that its SP deltas speak of. It reports whether it was one.
func (w *walk) switched(seg *Segment, s *steps, info pcInfo) bool {
	if !info.spWrite || s.own(info) || (seg.Kind != SegmentStart && seg.Kind != SegmentSignal) {
		return false
	}
	switch {
	case info.role == roleClock:
		if info.delta <= 8 || s.arm64 && seg.Stack == StackGo { // not yet, or no longer
			return false
		}
		w.rest(seg.Frames)
	case seg.Stack != StackG0:
		return false
	case info.role == roleMcall:
		w.done = true
	case len(seg.Frames) > 0 && w.hasNext: // not yet: called on the system stack
		return false
	case w.hasNext: // systemstack, asmcgocall, morestack: g.sched follows
	default:
		w.rest(seg.Frames)
	}
	return true
}

// foreign appends the frames of a segment that was interrupted in code without pc tables: C, the vDSO.
func (w *walk) foreign(seg *Segment, a objfile.Addr) {
	if w.u.image(a.Image).vdso {
		w.clockCaller(seg)
	}
	w.rest(seg.Frames)
}

// clockCaller appends runtime.nanotime1 (or its like) if the vDSO's code had no frame record of its own when it was
// interrupted: the return address is in the link register, or lies in the first words of the stack.
func (w *walk) clockCaller(seg *Segment) {
	if len(seg.Frames) > 0 && w.isClock(seg.Frames[0]) {
		return
	}
	if w.isClock(seg.LR) {
		w.frame(seg.LR)
		return
	}
	for _, word := range seg.Window {
		if w.isClock(word) {
			w.frame(word)
			return
		}
	}
}

func (w *walk) isClock(pc uint64) bool {
	a, ok := w.resolve(pc)
	return ok && w.u.image(a.Image).role(a.Off) == roleClock
}

// addressBits are those of a program's addresses on arm64: in the return addresses of C code and of the vDSO the processor keeps
// a signature above them (pointer authentication; Documentation/arch/arm64/pointer-authentication.rst).
const addressBits = 1<<48 - 1

// resolve finds what a return address is in.
func (w *walk) resolve(ra uint64) (objfile.Addr, bool) {
	a, ok := w.space.Resolve(ra)
	if !ok && w.arm64 && ra > addressBits {
		return w.space.Resolve(ra & addressBits)
	}
	return a, ok
}

// rest appends return addresses as the chain has them, until one is none or ends the stack.
func (w *walk) rest(chain []uint64) {
	for _, ra := range chain {
		if !w.frame(ra) {
			return
		}
	}
}

// frame appends the call that returns to ra. It reports whether the walk along this segment goes on.
func (w *walk) frame(ra uint64) bool {
	a, ok := w.resolve(ra)
	if !ok {
		w.broken = w.broken || w.lastGo
		return false
	}
	im := w.u.image(a.Image)
	w.lastGo = im.table != nil
	exact := w.exact
	w.exact = false
	switch im.role(a.Off) {
	case roleGoexit:
		w.done = true
		return false
	case roleMorestack: // the grower follows, unless it has been descheduled already
		if w.hasNext && !w.left || w.stack != StackG0 {
			w.broken = w.broken || !w.hasNext
			return true
		}
		w.done = true
	case roleAsmcgocall, roleSystemstackSwitch:
		return true
	case roleTop, roleMcall:
		w.done = true
	case roleRestorer:
		w.broken = w.broken || !w.hasNext
		return false
	case roleSigtramp:
		w.broken = w.broken || !w.hasNext
		w.add(a, exact)
		return false
	case roleAsyncPreempt, roleSigpanic:
		w.exact = true
	case roleCrosscall:
		w.lastGo = false // its caller is C, which may keep no frame pointer
	case roleSchedule:
		w.left = true
	}
	w.add(a, exact)
	return !w.done
}

func (w *walk) add(a objfile.Addr, exact bool) {
	if !exact {
		a.Off--
	}
	w.dst = append(w.dst, a)
}
