//go:build linux && (amd64 || arm64)

package stepper

import (
	"errors"
	"fmt"
)

// Offsets that are the same in Go 1.18 to 1.27 (runtime/runtime2.go: type g, type m).
const (
	gStackLo = 0x00
	gStackHi = 0x08
	gM       = 0x30
	mG0      = 0x00
)

// maxInitial bounds the stack at the first marker.
const maxInitial = 1000

// entry is a return address and the stack slot that it lies in; on arm64, where it may be in a register, the caller's SP.
type entry struct{ slot, ra uint64 }

// stack is what is known of one goroutine's stack, or of a thread's system stack.
type stack struct {
	g       uint64  // address of the runtime's g
	lo, hi  uint64  // bounds, as g.stack had them when it was last entered
	entries []entry // outermost first: slots fall
	known   bool    // everything from the base was seen
	base    uint64  // entries at this slot and above do not belong to the current use of a system stack

	from      *stack // the goroutine's stack that was left for this system stack, or nil
	fromCount int    // so many of its entries are live
}

// shadow keeps the true stacks of one thread. Stacks are known by their g, whose bounds say which SP is whose:
// when SP leaves the bounds, the new stack is that of the g in the thread's TLS or of its m.g0 (nanotime1 and time.now
// go to g0's stack without changing g). A goroutine's stack that was moved (copystack) has new bounds when it is entered
// again, and its entries move with the upper bound. A system stack starts afresh whenever it is entered.
type shadow struct {
	p        *process
	goexit   span
	gogo     span
	funcs    []span // by address
	stacks   map[uint64]*stack
	cur      *stack
	switches int
}

func newShadow(p *process, funcs []span) *shadow {
	s := &shadow{p: p, funcs: funcs, stacks: map[uint64]*stack{}}
	for _, f := range funcs {
		switch f.name {
		case "runtime.goexit", "runtime.goexit.abi0":
			s.goexit = f
		case "gogo", "gogo<>":
			s.gogo = f
		}
	}
	return s
}

// span is a function's.
type span struct {
	name       string
	start, end uint64
}

func (f span) has(pc uint64) bool { return pc >= f.start && pc < f.end }

// begin takes the stack at the entry of a function, from frame pointers.
func (s *shadow) begin(r *Regs) error {
	st, err := s.resolve(r)
	if err != nil {
		return err
	}
	found := []entry{s.first(r)}
	for fp := r.FP; ; fp = s.p.word(fp) {
		last := found[len(found)-1]
		if s.inGoexit(last.ra) {
			break
		}
		if len(found) == maxInitial || fp+8 < last.slot || fp >= st.hi {
			return fmt.Errorf("no whole stack at the marker: frame pointer %#x after slot %#x", fp, last.slot)
		}
		e := s.above(last, fp)
		if e.slot < last.slot { // arm64: the outermost function has no caller whose SP there would be
			e.slot = st.hi
		}
		found = append(found, e)
	}
	for i := len(found) - 1; i >= 0; i-- {
		st.entries = append(st.entries, found[i])
	}
	st.known = true
	s.cur = st
	return nil
}

func (s *shadow) inGoexit(pc uint64) bool { return s.goexit.has(pc) }

// after brings the stacks up to date with an instruction that has been executed.
func (s *shadow) after(in instruction, before, after *Regs) error {
	if after.SP < s.cur.lo || after.SP > s.cur.hi {
		if err := s.enter(after); err != nil {
			return err
		}
	}
	s.cur.drop(after.SP)
	if in.call {
		s.cur.entries = append(s.cur.entries, called(in, before.PC, before, after))
	} else {
		s.returned(before, after)
	}
	return nil
}

// drop forgets entries below SP.
func (st *stack) drop(sp uint64) {
	n := len(st.entries)
	for n > 0 && st.entries[n-1].slot < sp {
		n--
	}
	st.entries = st.entries[:n]
}

// enter follows SP to another stack.
func (s *shadow) enter(r *Regs) error {
	s.switches++
	next, err := s.resolve(r)
	if err != nil {
		return err
	}
	last := s.cur
	s.cur = next
	next.drop(r.SP)
	if next.g == s.g0(r) {
		next.entries, next.base, next.known = next.entries[:0], r.SP, true
		next.from, next.fromCount = last, len(last.entries)
		return nil
	}
	if e, ok := s.begun(next, r); ok {
		next.entries, next.known = append(next.entries[:0], e), true
	}
	return nil
}

// resolve finds the stack that SP is on, and moves its entries if it was moved.
func (s *shadow) resolve(r *Regs) (*stack, error) {
	for _, g := range []uint64{s.g(r), s.g0(r)} {
		lo, hi := s.p.word(g+gStackLo), s.p.word(g+gStackHi)
		if r.SP < lo || r.SP > hi {
			continue
		}
		st := s.stacks[g]
		if st == nil {
			st = &stack{g: g, lo: lo, hi: hi}
			s.stacks[g] = st
		}
		st.move(lo, hi)
		return st, nil
	}
	return nil, errors.New("SP is neither on the stack of the current g nor on that of its thread's g0")
}

// move rebases the entries on new bounds: copystack keeps distances from the upper end (runtime/stack.go).
func (st *stack) move(lo, hi uint64) {
	for i := range st.entries {
		st.entries[i].slot += hi - st.hi
	}
	st.lo, st.hi = lo, hi
}

func (s *shadow) g0(r *Regs) uint64 { return s.p.word(s.p.word(s.g(r)+gM) + mG0) }

func (s *shadow) known() bool {
	return s.cur.known && (s.cur.from == nil || s.cur.from.known)
}

// append appends the return addresses, innermost first.
func (s *shadow) append(dst []uint64) []uint64 {
	dst = appendReversed(dst, s.cur.entries)
	if s.cur.from != nil {
		dst = appendReversed(dst, s.cur.from.entries[:s.cur.fromCount])
	}
	return dst
}

func appendReversed(dst []uint64, entries []entry) []uint64 {
	for i := len(entries) - 1; i >= 0; i-- {
		dst = append(dst, entries[i].ra)
	}
	return dst
}

func (s *shadow) joined() int { return len(s.cur.entries) }

func (s *shadow) caller() (ra, slot uint64, ok bool) {
	entries := s.cur.entries
	if len(entries) == 0 && s.cur.from != nil {
		entries = s.cur.from.entries[:s.cur.fromCount]
	}
	if len(entries) == 0 {
		return 0, 0, false
	}
	top := entries[len(entries)-1]
	return top.ra, top.slot, true
}
