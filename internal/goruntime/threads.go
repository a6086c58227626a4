package goruntime

import (
	"encoding/binary"
	"fmt"

	"github.com/pprofd/pprofd/objfile"
)

// StackOf is a stack that a thread can be on.
type StackOf struct {
	Lo, Hi uint64
	// SchedPC, SchedSP and SchedLR are where it goes on, as the runtime saved it when the thread left it last: it may be back since.
	SchedPC, SchedSP, SchedLR uint64
}

// Has says whether SP lies on it.
func (s *StackOf) Has(sp uint64) bool { return sp >= s.Lo && sp < s.Hi }

// Thread is what a runtime.m says: the thread, the goroutine that it runs, and its stacks.
type Thread struct {
	ID             int    // m.procid, in its own PID namespace
	CurG           uint64 // 0: it runs no goroutine
	Go, G0, Signal StackOf
	// VDSOPC and VDSOSP are where the vDSO returns to; 0: it is not in the vDSO, or that is not known.
	VDSOPC, VDSOSP uint64
}

// maxM bounds what is read of an m: the fields that are needed, and vdsoSP, which lies furthest behind.
const maxM = 4 << 10

// Thread reads the m at an address.
func (g *Goroutines) Thread(mem Memory, m uint64) (Thread, error) {
	var t Thread
	o := &g.Offsets
	end := 8 + max(o.MG0, o.MProcid, o.MGsignal, o.MCurg, o.MVDSOSP, o.MVDSOPC)
	if m == 0 || m%8 != 0 || o.MProcid == 0 || o.MGsignal == 0 || o.MCurg == 0 || end > maxM {
		return t, fmt.Errorf("%w: no thread at %#x, or its layout is not known", ErrNoGoroutines, m)
	}
	image := make([]byte, end)
	if err := readFull(mem, m, image); err != nil {
		return t, err
	}
	t.ID, t.CurG = int(word(image, o.MProcid)), word(image, o.MCurg)
	t.VDSOPC, t.VDSOSP = word(image, o.MVDSOPC), word(image, o.MVDSOSP)
	for _, s := range []struct {
		g  uint64
		to *StackOf
	}{{binary.LittleEndian.Uint64(image[o.MG0:]), &t.G0}, {word(image, o.MGsignal), &t.Signal}, {t.CurG, &t.Go}} {
		var err error
		if *s.to, err = g.stackOf(mem, s.g); err != nil {
			return t, err
		}
	}
	return t, nil
}

// stackOf reads where the stack of a g is.
func (g *Goroutines) stackOf(mem Memory, addr uint64) (s StackOf, err error) {
	if addr == 0 || addr%8 != 0 {
		return s, nil
	}
	image := make([]byte, g.size())
	if err := readFull(mem, addr, image); err != nil {
		return s, err
	}
	s = StackOf{
		Lo: binary.LittleEndian.Uint64(image), Hi: word(image, 8),
		SchedPC: word(image, g.GSchedPC), SchedSP: word(image, g.GSchedSP), SchedLR: word(image, g.GSchedBP-8),
	}
	if s.Lo >= s.Hi || s.Hi > 1<<56 {
		return StackOf{}, nil
	}
	return s, nil
}

// PanicSignal is the signal that the processor has raised in a goroutine, and that it panics for (runtime/signal_unix.go: sigpanic); the zero
// value: there is none. A panic that is recovered ends that.
func (g *Goroutines) PanicSignal(mem Memory, addr uint64) (s objfile.CoreSignal) {
	image := make([]byte, g.size())
	if g.GSig == 0 || addr%8 != 0 || readFull(mem, addr, image) != nil {
		return s
	}
	s = objfile.CoreSignal{
		Number: int(int32(binary.LittleEndian.Uint32(image[g.GSig:]))), Code: int32(word(image, g.GSigCode)), Addr: word(image, g.GSigAddr),
	}
	if !s.Raised() {
		return objfile.CoreSignal{}
	}
	return s
}
