package unwind

import (
	"encoding/binary"

	"github.com/pprofd/pprofd/objfile"
)

// Stopped is a goroutine that does not run: where it goes on, and its stack as it was then. Or one that ran when its process was
// stopped, with the registers of its thread.
type Stopped struct {
	PC, SP uint64
	LR     uint64 // arm64: where a function returns to that has no frame yet
	Stack  []byte // from SP on, as far as it was read
	End    uint64 // of the stack
	Top    uint64 // what SP is before the first function is called (runtime.g.stktopsp); 0: not known
	Exact  bool   // PC is an instruction that was about to be executed, not a return address
	Joined bool   // what the goroutine runs on another stack was walked before: systemstack_switch, which stands for that, is not shown
}

// Walked says how the walk of a stopped goroutine ended.
type Walked uint8

// Ends of a walk.
const (
	ToTop  Walked = iota // at the goroutine's first function, and SP is where it must be
	ToEdge               // the stack goes on behind what was read of it
	ToMax                // there are more frames than are wanted
	Astray               // this is no stack: what is where a return address must be is none
)

// Walk appends the stack of a stopped goroutine to dst, leaf first: addresses of calls (return address minus one), where
// nothing was called yet and below signals the address itself. At most limit of them are appended. It goes by SP delta alone,
// which is exact wherever a goroutine can stop (runtime/traceback.go walks in the same way).
func (u *Unwinder) Walk(dst []objfile.Addr, space *objfile.Space, g *Stopped, limit int) ([]objfile.Addr, Walked) {
	s := stopped{u: u, space: space, in: g, pc: g.PC, sp: g.SP, lr: g.LR, exact: g.Exact}
	for n := 0; ; n++ {
		a, ok := space.Resolve(s.pc)
		if !ok {
			return dst, Astray
		}
		s.arm64 = u.image(a.Image).arm64
		info := u.info(a)
		if !info.isGo || !info.sound || info.delta < 0 || info.delta&7 != 0 || n == 0 && g.Exact && !mayStop(info) {
			return dst, Astray
		}
		if info.role == roleGoexit {
			return dst, s.top(n)
		}
		if n >= limit {
			return dst, ToMax
		}
		if n > 0 || !g.Joined || info.role != roleSystemstackSwitch {
			dst = append(dst, s.shown(a, n == 0 || info.role == roleSystemstackSwitch))
		}
		if info.role == roleTop {
			return dst, ToTop
		}
		if end := s.up(info); end != ToTop {
			return dst, end
		}
	}
}

// stopped is the state of one Walk.
type stopped struct {
	u      *Unwinder
	space  *objfile.Space
	in     *Stopped
	pc, sp uint64
	lr     uint64 // arm64: of a function that a signal interrupted before it had a frame
	exact  bool   // pc is no return address
	arm64  bool
}

// shown is the address to show for a. It may be where a function begins: one that has not been called yet, or systemstack_switch,
// which stands below callbacks from C for a call up to Go 1.19.
func (s *stopped) shown(a objfile.Addr, mayBegin bool) objfile.Addr {
	switch {
	case s.exact:
	case mayBegin && s.u.entry(a):
	default:
		a.Off--
	}
	return a
}

// entry says whether a function begins at a.
func (u *Unwinder) entry(a objfile.Addr) bool {
	im := u.image(a.Image)
	f, ok := im.table.Find(a.Off)
	return ok && f.Entry == a.Off
}

// up goes to the caller. ToTop means that there may be one.
func (s *stopped) up(info pcInfo) Walked {
	at := s.sp + uint64(info.delta)
	next := at + 8
	if s.arm64 {
		at, next = s.sp, s.sp+uint64(info.delta)
	}
	ra, ok := s.word(at)
	if s.arm64 && s.lr != 0 && info.delta == 0 {
		ra, ok = s.lr, true
	}
	s.lr = 0
	switch {
	case next > s.in.End || next < s.sp:
		return Astray
	case !ok && at+8 > s.in.SP+uint64(len(s.in.Stack)):
		return ToEdge
	case !ok || ra == s.pc && next == s.sp:
		return Astray
	}
	s.pc, s.sp = ra, next
	s.exact = info.role == roleAsyncPreempt || info.role == roleSigpanic
	if s.exact && s.arm64 {
		return s.injected()
	}
	return ToTop
}

// injected undoes what a signal handler did on arm64 to make an interrupted function call: it pushed the link register
// (pushCall and preparePanic in runtime/signal_arm64.go).
func (s *stopped) injected() Walked {
	lr, ok := s.word(s.sp)
	if !ok {
		return ToEdge
	}
	s.lr = lr
	s.sp += 16
	return ToTop
}

// top is what a walk has come to at goexit, after n frames.
func (s *stopped) top(n int) Walked {
	if n == 0 || s.in.Top != 0 && s.sp != s.in.Top {
		return Astray
	}
	return ToTop
}

func (s *stopped) word(addr uint64) (uint64, bool) {
	i := addr - s.in.SP
	if addr&7 != 0 || addr < s.in.SP || i >= uint64(len(s.in.Stack)) || uint64(len(s.in.Stack))-i < 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(s.in.Stack[i:]), true
}
