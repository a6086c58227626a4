//go:build linux

package unwind_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/unwind"
)

// FuzzLeave walks system stacks that no honest program would have.
func FuzzLeave(f *testing.F) {
	amd := openFuzzed(f, testprog.Options{Go: "1.27.4"})
	arm := openFuzzed(f, testprog.Options{Go: "1.27.4", Arch: "arm64"})
	f.Add(false, true, uint16(100), []byte{64, 1, 0, 0, 0, 1, 1, 128, 9, 9, 0, 0, 17, 1})
	f.Add(true, false, uint16(2000), slices.Repeat([]byte{128, 1, 1, 0, 0}, 50))
	f.Fuzz(func(t *testing.T, arm64, exact bool, top uint16, data []byte) {
		p := amd
		if arm64 {
			p = arm
		}
		in := p.input(append([]byte{0, 0, 0, 0, 0}, data...))
		if len(in.Segments) == 0 {
			return
		}
		s := &in.Segments[0]
		g := unwind.Stopped{PC: s.PC, SP: craftedStack, LR: s.LR, End: craftedStack + 1<<16, Top: craftedStack + uint64(top), Exact: exact}
		for _, word := range append(s.Window, s.Frames...) {
			g.Stack = binary.LittleEndian.AppendUint64(g.Stack, word)
		}
		const limit = 50
		first, how, frame := p.unwinder.Leave(nil, p.space, &g, limit)
		again, howAgain, frameAgain := p.unwinder.Leave(nil, p.space, &g, limit)
		if !slices.Equal(first, again) || how != howAgain || frame != frameAgain {
			t.Errorf("%v %v %#x, then %v %v %#x", first, how, frame, again, howAgain, frameAgain)
		}
		if len(first) > limit || how > unwind.LeftClock || how == unwind.LeftSignal && (frame < craftedStack || frame > g.End+1<<20) {
			t.Errorf("%d addresses, %v at %#x", len(first), how, frame)
		}
		for i, a := range first {
			if p.images.Get(a.Image) == nil {
				t.Errorf("address %d is in no image: %+v", i, a)
			}
		}
	})
}

// TestLeave walks system stacks that are made by hand. What is not sure is lost.
func TestLeave(t *testing.T) {
	h := openHello(t)
	main, delta := h.frame(t, "main.main")
	system, mcall, morestack := h.entry(t, "runtime.systemstack")+9, h.entry(t, "runtime.mcall")+9, h.entry(t, "runtime.morestack")+9
	sigtramp, sigDelta := h.frame(t, "runtime.sigtramp")
	mstart := h.entry(t, "runtime.mstart") + 1
	const sp = craftedStack
	after := sp + delta + 8 // SP in the caller of main.main
	calls := func(ra uint64) []byte {
		b := make([]byte, delta+256)
		binary.LittleEndian.PutUint64(b[delta:], ra)
		return b
	}
	for name, c := range map[string]struct {
		in    unwind.Stopped
		want  []uint64
		how   unwind.Left
		frame uint64
	}{
		"systemstack":            {unwind.Stopped{PC: main, Stack: calls(system), Top: after, Exact: true}, []uint64{main, system - 1}, unwind.LeftSched, 0},
		"mcall":                  {unwind.Stopped{PC: main, Stack: calls(mcall), Top: after + 8, Exact: true}, []uint64{main, mcall - 1}, unwind.LeftSched, 0},
		"morestack is not shown": {unwind.Stopped{PC: main, Stack: calls(morestack), Top: after, Exact: true}, []uint64{main}, unwind.LeftSched, 0},
		"a return address":       {unwind.Stopped{PC: main, Stack: calls(system), Top: after}, []uint64{main - 1, system - 1}, unwind.LeftSched, 0},
		"a signal":               {unwind.Stopped{PC: main, Stack: calls(sigtramp), Exact: true}, []uint64{main, sigtramp - 1}, unwind.LeftSignal, after + sigDelta},
		"not at the top":         {unwind.Stopped{PC: main, Stack: calls(system), Top: after + 4096, Exact: true}, []uint64{main}, unwind.LeftLost, 0},
		"above the top":          {unwind.Stopped{PC: main, Stack: calls(system), Top: after - 8, Exact: true}, []uint64{main}, unwind.LeftLost, 0},
		"in the switch itself":   {unwind.Stopped{PC: system, Stack: calls(system), Top: sp, Exact: true}, nil, unwind.LeftLost, 0},
		"a thread's first":       {unwind.Stopped{PC: main, Stack: calls(mstart), Top: after, Exact: true}, []uint64{main}, unwind.LeftLost, 0},
		"nowhere":                {unwind.Stopped{PC: main, Stack: calls(42), Top: after, Exact: true}, []uint64{main}, unwind.LeftLost, 0},
		"no stack":               {unwind.Stopped{PC: main, Stack: calls(system)[:delta], Top: after, Exact: true}, []uint64{main}, unwind.LeftLost, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.SP, c.in.End = sp, sp+1<<16
			got, how, frame := h.unwinder.Leave(nil, h.space, &c.in, 9)
			var offs []uint64
			for _, a := range got {
				offs = append(offs, a.Off)
			}
			if !slices.Equal(offs, c.want) || how != c.how || frame != c.frame {
				t.Errorf("%#x, %v, %#x; want %#x, %v, %#x", offs, how, frame, c.want, c.how, c.frame)
			}
		})
	}
}

// TestReadInterrupted: what is no signal frame is an error.
func TestReadInterrupted(t *testing.T) {
	for _, at := range []uint64{4, 1 << 63, 800, 1 << 40} {
		if i, err := unwind.ReadInterrupted(bytes.NewReader(make([]byte, 1000)), at, true); err == nil {
			t.Errorf("%#x: %+v", at, i)
		}
	}
	if i, err := unwind.ReadInterrupted(bytes.NewReader(make([]byte, 1000)), 0, false); err != nil || len(i.Info) < 24 || i.PC != 0 {
		t.Errorf("%+v, %v", i, err)
	}
}
