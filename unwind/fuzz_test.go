//go:build linux

package unwind_test

import (
	"debug/elf"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/unwind"
)

// FuzzComplete completes samples that no honest program would give, of a real program for each architecture: whatever
// stands in registers, on the stack and in the chain of frame records, a stack of known images comes out of it, bounded by
// what came in.
func FuzzComplete(f *testing.F) {
	amd := openFuzzed(f, testprog.Options{Go: "1.27.4"})
	arm := openFuzzed(f, testprog.Options{Go: "1.27.4", Arch: "arm64"})
	for i := range uint8(4) { // a leaf in its prologue; then g0, a signal and a callback above the goroutine
		f.Add(i&1 == 1, crafted(i))
	}
	f.Fuzz(func(t *testing.T, arm64 bool, data []byte) {
		p := amd
		if arm64 {
			p = arm
		}
		in := p.input(data)
		limit := 1
		for i := range in.Segments {
			limit += len(in.Segments[i].Frames) + len(in.Segments[i].Window) + 20
		}
		first, status := p.unwinder.Complete([]objfile.Addr{{Image: 77}}, p.space, in)
		again, statusAgain := p.unwinder.Complete([]objfile.Addr{{Image: 77}}, p.space, in)
		if !slices.Equal(first, again) || status != statusAgain {
			t.Errorf("%v %v, then %v %v", first, status, again, statusAgain)
		}
		if len(first) == 0 || first[0] != (objfile.Addr{Image: 77}) || len(first) > limit || status > unwind.Broken {
			t.Errorf("%d addresses, limit %d, %v", len(first), limit, status)
		}
		for i, a := range first[1:] {
			if p.images.Get(a.Image) == nil && a != (objfile.Addr{}) { // where nothing was mapped at a segment's PC
				t.Errorf("address %d is in no image: %+v", i, a)
			}
		}
	})
}

// fuzzed is a program whose samples are crafted.
type fuzzed struct {
	images   *objfile.Images
	space    *objfile.Space
	unwinder *unwind.Unwinder
	text     uint64
	size     uint64
	roles    []uint64 // entries of functions that the unwinder knows by name
}

func openFuzzed(f testing.TB, o testprog.Options) *fuzzed {
	f.Helper()
	path := testprog.Build(f, "hello", o)
	e, err := elf.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	defer e.Close()
	text := e.Section(".text")
	p := &fuzzed{images: objfile.NewImages(), text: text.Addr, size: text.Size}
	if p.space, err = objfile.OpenSpace(p.images, mapped(f, path, text), 1); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := p.space.Close(); err != nil {
			f.Error(err)
		}
	})
	p.unwinder = unwind.New(p.images)
	table, err := p.space.Main().Image.File.Pclntab()
	if err != nil {
		f.Fatal(err)
	}
	names := []string{
		"main.main", "runtime.goexit", "runtime.mstart", "runtime.mcall", "runtime.morestack", "runtime.systemstack",
		"runtime.systemstack_switch", "runtime.asmcgocall", "runtime.cgocallback", "runtime.gogo", "runtime.sigtramp",
		"runtime.sigreturn__sigaction", "runtime.asyncPreempt", "runtime.sigpanic", "runtime.nanotime1", "runtime.clone",
	}
	found := table.Lookup(names...)
	for _, name := range names {
		p.roles = append(p.roles, found[name].Entry) // 0 where it is not linked in
	}
	return p
}

// craftedStack is where the stacks of crafted samples lie.
const craftedStack = 0xc000100000

// input makes a sample of bytes. Each word has a byte that says what it is, so that many words are addresses that matter.
func (p *fuzzed) input(b []byte) *unwind.Input {
	take := func() byte {
		if len(b) == 0 {
			return 0
		}
		v := b[0]
		b = b[1:]
		return v
	}
	u32 := func() uint64 {
		var w [4]byte
		b = b[copy(w[:], b):]
		return uint64(binary.LittleEndian.Uint32(w[:]))
	}
	word := func() uint64 {
		switch kind := take(); {
		case kind == 0:
			return 0
		case kind < 64:
			return p.roles[int(kind)%len(p.roles)] + uint64(take())
		case kind < 128:
			return p.text + u32()%p.size
		case kind < 224:
			return craftedStack + 8*uint64(take()) - uint64(kind&1)
		}
		return u32()<<32 | u32()
	}
	words := func(n int) (list []uint64) {
		for i := 0; i < n && len(b) > 0; i++ {
			list = append(list, word())
		}
		return list
	}
	in := &unwind.Input{Truncated: take()&1 == 1}
	for len(b) > 0 && len(in.Segments) < 8 {
		s := unwind.Segment{Kind: unwind.SegmentKind(take() % 8), End: unwind.End(take() % 8), Stack: unwind.Stack(take() % 4), Scanned: take()&1 == 1}
		s.PC, s.SP, s.FP, s.LR = word(), word(), word(), word()
		s.Window = words(int(take()))
		s.Frames = words(int(take()))
		in.Segments = append(in.Segments, s)
	}
	return in
}

// crafted is a sample for input.
func crafted(n uint8) []byte {
	segment := func(kind, end, stack, role byte) []byte {
		b := []byte{kind, end, stack, 0, role, 1, 128, 0, 128, 4, 64, 1, 2, 3, 0, 8}
		for i := range byte(8) {
			b = append(b, 128, i, 64, i, 0, 1, 0)[:len(b)+7]
		}
		return append(b, 4, 64, 1, 2, 0, 0, 64, 9, 9, 0, 0, 16, 1, 17, 2)
	}
	b := []byte{0}
	b = append(b, segment(1, 5, 2, n)...)
	if n > 0 {
		b = append(b, segment(2+n, 1, 1, 3*n)...)
	}
	return b
}
