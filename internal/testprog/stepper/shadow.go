//go:build linux && amd64

package stepper

import (
	"debug/elf"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
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

// entry is a return address and the stack slot that it lies in.
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
	goexit   elf.Symbol
	stacks   map[uint64]*stack
	cur      *stack
	switches int
}

func newShadow(p *process, goexit elf.Symbol) *shadow {
	return &shadow{p: p, goexit: goexit, stacks: map[uint64]*stack{}}
}

// begin takes the stack at the entry of a function, from frame pointers.
func (s *shadow) begin(r *unix.PtraceRegs) error {
	st, err := s.resolve(r)
	if err != nil {
		return err
	}
	var found []entry
	for slot, bp := r.Rsp, r.Rbp; ; slot, bp = bp+8, s.p.word(bp) {
		ra := s.p.word(slot)
		found = append(found, entry{slot, ra})
		if s.inGoexit(ra) {
			break
		}
		if len(found) == maxInitial || bp < slot || bp >= st.hi {
			return fmt.Errorf("no whole stack at the marker: frame pointer %#x after slot %#x", bp, slot)
		}
	}
	for i := len(found) - 1; i >= 0; i-- {
		st.entries = append(st.entries, found[i])
	}
	st.known = true
	s.cur = st
	return nil
}

func (s *shadow) inGoexit(pc uint64) bool {
	return pc >= s.goexit.Value && pc < s.goexit.Value+s.goexit.Size
}

// after brings the stacks up to date with an instruction at pc that has been executed.
func (s *shadow) after(in instruction, pc uint64, r *unix.PtraceRegs) error {
	if r.Rsp < s.cur.lo || r.Rsp > s.cur.hi {
		if err := s.enter(r); err != nil {
			return err
		}
	}
	s.cur.drop(r.Rsp)
	if in.call {
		s.cur.entries = append(s.cur.entries, entry{r.Rsp, pc + uint64(in.size)})
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
func (s *shadow) enter(r *unix.PtraceRegs) error {
	s.switches++
	next, err := s.resolve(r)
	if err != nil {
		return err
	}
	last := s.cur
	s.cur = next
	next.drop(r.Rsp)
	if next.g == s.g0(r) {
		next.entries, next.base, next.known = next.entries[:0], r.Rsp, true
		next.from, next.fromCount = last, len(last.entries)
		return nil
	}
	if top := s.p.word(r.Rsp); len(next.entries) <= 1 && s.inGoexit(top) { // a new goroutine: runtime/proc.go, newproc1
		next.entries, next.known = append(next.entries[:0], entry{r.Rsp, top}), true
	}
	return nil
}

// resolve finds the stack that SP is on, and moves its entries if it was moved.
func (s *shadow) resolve(r *unix.PtraceRegs) (*stack, error) {
	for _, g := range []uint64{s.tlsG(r), s.g0(r)} {
		lo, hi := s.p.word(g+gStackLo), s.p.word(g+gStackHi)
		if r.Rsp < lo || r.Rsp > hi {
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

func (s *shadow) tlsG(r *unix.PtraceRegs) uint64 { return s.p.word(r.Fs_base - 8) }

func (s *shadow) g0(r *unix.PtraceRegs) uint64 { return s.p.word(s.p.word(s.tlsG(r)+gM) + mG0) }

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
