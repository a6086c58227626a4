//go:build linux

package unwind_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/unwind"
)

// FuzzWalk walks stacks that no honest program would have: whatever stands in them and in the registers, a stack of known
// images comes out, no longer than was asked for, and one that goes to the top has SP there.
func FuzzWalk(f *testing.F) {
	amd := openFuzzed(f, testprog.Options{Go: "1.27.4"})
	arm := openFuzzed(f, testprog.Options{Go: "1.27.4", Arch: "arm64"})
	f.Add(false, uint16(100), []byte{64, 1, 0, 0, 0, 1, 1, 128, 9, 9, 0, 0, 17, 1})
	f.Add(true, uint16(2000), slices.Repeat([]byte{128, 1, 1, 0, 0}, 50))
	f.Fuzz(func(t *testing.T, arm64 bool, size uint16, data []byte) {
		p := amd
		if arm64 {
			p = arm
		}
		in := p.input(append([]byte{0, 0, 0, 0, 0}, data...))
		if len(in.Segments) == 0 {
			return
		}
		s := &in.Segments[0]
		g := unwind.Stopped{PC: s.PC, SP: craftedStack, LR: s.LR, End: craftedStack + uint64(size), Top: s.FP}
		for _, word := range append(s.Window, s.Frames...) {
			g.Stack = binary.LittleEndian.AppendUint64(g.Stack, word)
		}
		g.Stack = g.Stack[:min(len(g.Stack), int(size))]
		const limit = 50
		first, end := p.unwinder.Walk(nil, p.space, &g, limit)
		again, endAgain := p.unwinder.Walk(nil, p.space, &g, limit)
		if !slices.Equal(first, again) || end != endAgain {
			t.Errorf("%v %v, then %v %v", first, end, again, endAgain)
		}
		if len(first) > limit || end > unwind.Astray || end == unwind.ToMax && len(first) < limit {
			t.Errorf("%d addresses, %v", len(first), end)
		}
		for i, a := range first {
			if p.images.Get(a.Image) == nil {
				t.Errorf("address %d is in no image: %+v", i, a)
			}
		}
	})
}

// TestWalk walks a stack that is made by hand: frames by SP delta, a signal in the middle, the end and what makes no sense.
func TestWalk(t *testing.T) {
	h := openHello(t)
	main, delta := h.frame(t, "main.main")
	goexit := h.entry(t, "runtime.goexit") + 1
	preempt, preemptDelta := h.frame(t, "runtime.asyncPreempt")
	const sp = craftedStack
	stack := func(words map[uint64]uint64, size uint64) []byte {
		b := make([]byte, size)
		for at, w := range words {
			binary.LittleEndian.PutUint64(b[at:], w)
		}
		return b
	}
	two := stack(map[uint64]uint64{delta: main, 2*delta + 8: goexit}, 2*delta+32)
	top := sp + 2*(delta+8)
	interrupted := stack(map[uint64]uint64{preemptDelta: main, preemptDelta + 8 + delta: goexit}, preemptDelta+delta+64)
	for name, tc := range map[string]struct {
		g     unwind.Stopped
		limit int
		want  []uint64
		end   unwind.Walked
	}{
		"two frames":           {unwind.Stopped{PC: main, Stack: two, Top: top}, 9, []uint64{main - 1, main - 1}, unwind.ToTop},
		"not at the top":       {unwind.Stopped{PC: main, Stack: two, Top: top + 8}, 9, []uint64{main - 1, main - 1}, unwind.Astray},
		"top is not known":     {unwind.Stopped{PC: main, Stack: two}, 9, []uint64{main - 1, main - 1}, unwind.ToTop},
		"more is to be read":   {unwind.Stopped{PC: main, Stack: two[:delta+8], Top: top}, 9, []uint64{main - 1, main - 1}, unwind.ToEdge},
		"enough":               {unwind.Stopped{PC: main, Stack: two, Top: top}, 1, []uint64{main - 1}, unwind.ToMax},
		"no return address":    {unwind.Stopped{PC: main, Stack: stack(nil, 64+delta), Top: top}, 9, []uint64{main - 1}, unwind.Astray},
		"nothing there":        {unwind.Stopped{PC: 42, Stack: two, Top: top}, 9, nil, unwind.Astray},
		"at its beginning":     {unwind.Stopped{PC: h.entry(t, "main.main"), Stack: stack(map[uint64]uint64{0: goexit}, 16), Top: sp + 8}, 9, []uint64{h.entry(t, "main.main")}, unwind.ToTop},
		"a signal interrupted": {unwind.Stopped{PC: preempt, Stack: interrupted, Top: sp + preemptDelta + delta + 16}, 9, []uint64{preempt - 1, main}, unwind.ToTop},
	} {
		t.Run(name, func(t *testing.T) {
			tc.g.SP, tc.g.End = sp, sp+1<<16
			got, end := h.unwinder.Walk(nil, h.space, &tc.g, tc.limit)
			var offs []uint64
			for _, a := range got {
				offs = append(offs, a.Off)
			}
			if !slices.Equal(offs, tc.want) || end != tc.end {
				t.Errorf("%#x, %v; want %#x, %v", offs, end, tc.want, tc.end)
			}
		})
	}
}

// hello is a program whose stacks are made by hand.
type hello struct {
	unwinder *unwind.Unwinder
	space    *objfile.Space
}

func openHello(t *testing.T) hello {
	t.Helper()
	p := openFuzzed(t, testprog.Options{Go: "1.27.4"})
	return hello{p.unwinder, p.space}
}

func (h hello) entry(t *testing.T, name string) uint64 {
	t.Helper()
	table, err := h.space.Main().Image.File.Pclntab()
	if err != nil {
		t.Fatal(err)
	}
	f, ok := table.Lookup(name)[name]
	if !ok {
		t.Fatalf("no function %s", name)
	}
	return f.Entry
}

// frame is an address in a function's body, where its frame is set up, and the distance from SP to its return address there.
func (h hello) frame(t *testing.T, name string) (pc, delta uint64) {
	t.Helper()
	table, err := h.space.Main().Image.File.Pclntab()
	if err != nil {
		t.Fatal(err)
	}
	f, ok := table.Lookup(name)[name]
	for pc := f.Entry; ok && pc < f.End; pc++ {
		if d, ok := f.SPDelta(pc); ok && d > 8 {
			return pc + 1, uint64(d)
		}
	}
	t.Fatalf("%s has no frame", name)
	return 0, 0
}
