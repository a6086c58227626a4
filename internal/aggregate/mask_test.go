package aggregate

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pprofd/pprofd/symbolize"
)

// TestMask: what is known of addresses beforehand leads to the same as looking at each stack as a whole.
func TestMask(t *testing.T) {
	frame := func(name string, kind symbolize.Kind, wrapper bool) symbolize.Frame {
		return symbolize.Frame{Func: name, Kind: kind, Wrapper: wrapper}
	}
	kinds := []symbolize.Frame{
		frame("main.a", symbolize.Go, false), frame("main.b", symbolize.Go, false), frame("main.w", symbolize.Go, true),
		frame("runtime.goexit", symbolize.Go, false), frame("runtime.asyncPreempt", symbolize.Go, false), frame("runtime.gopanic", symbolize.Go, false),
		frame("read", symbolize.Kernel, false), frame("write", symbolize.Kernel, false), frame("", symbolize.Unknown, false),
	}
	random := rand.New(rand.NewPCG(1, 2))
	var names []*name
	for i := range 60 {
		var frames []symbolize.Frame
		for range 1 + i%3*random.IntN(2) {
			frames = append(frames, kinds[random.IntN(len(kinds))])
		}
		m := &name{meaning: &meaning{frames: frames}}
		m.elision, m.all = elisionOf(frames)
		names = append(names, m)
	}
	names = append(names, &name{meaning: &meaning{frames: slices.Repeat(kinds[:1], 70)}})
	b := &builder{}
	quick := 0
	for range 20000 {
		b.list = b.list[:0]
		b.frames = nil
		var stack [][]symbolize.Frame
		for range random.IntN(5) {
			m := names[random.IntN(len(names))]
			b.list, stack = append(b.list, m), append(stack, m.frames)
		}
		b.mask()
		if len(b.list) > 0 && b.frames == nil {
			quick++
		}
		if want := symbolize.Elide(nil, stack); !slices.Equal(b.masks, want) {
			t.Fatalf("%b, want %b: %+v", b.masks, want, stack)
		}
	}
	if quick < 1000 {
		t.Errorf("%d stacks took the quick way", quick)
	}
}
