package objfile

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

func mapped(start, end uint64, id ImageID, bias uint64) Mapping {
	return Mapping{Start: start, End: end, Image: &Image{ID: id}, Bias: bias}
}

func TestResolve(t *testing.T) {
	s := &Space{maps: []Mapping{mapped(0x1000, 0x2000, 2, 0), mapped(0x2000, 0x3000, 3, 0x1000), mapped(0x5000, 0x6000, 4, ^uint64(0))}}
	for _, c := range []struct {
		addr uint64
		want Addr
		ok   bool
	}{
		{0xfff, Addr{}, false}, {0x1000, Addr{2, 0x1000}, true}, {0x1fff, Addr{2, 0x1fff}, true}, {0x2000, Addr{3, 0x1000}, true},
		{0x3000, Addr{}, false}, {0x5000, Addr{4, 0x5001}, true}, {0x6000, Addr{}, false}, {0, Addr{}, false},
		{1<<63 - 1, Addr{}, false}, {1 << 63, Addr{KernelImage, 1 << 63}, true}, {^uint64(0), Addr{KernelImage, ^uint64(0)}, true},
	} {
		for range 2 { // the second time from the last hit
			if got, ok := s.Resolve(c.addr); got != c.want || ok != c.ok {
				t.Errorf("%#x: %+v %v, want %+v %v", c.addr, got, ok, c.want, c.ok)
			}
		}
	}
}

func TestResolveDoesNotAllocate(t *testing.T) {
	s := &Space{maps: []Mapping{mapped(0x1000, 0x2000, 2, 0), mapped(0x2000, 0x3000, 3, 0)}}
	n := testing.AllocsPerRun(100, func() {
		s.Resolve(0x1500)
		s.Resolve(0x2500)
		s.Resolve(0x9000)
		s.Resolve(1 << 63)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkResolve(b *testing.B) {
	s := new(Space)
	for i := range uint64(50) {
		s.maps = append(s.maps, mapped(i<<20, i<<20+0x8000, 2, 0))
	}
	addrs := make([]uint64, 1024)
	for i := range addrs {
		addrs[i] = rand.Uint64N(50)<<20 + rand.Uint64N(0x8000)
	}
	for i := 0; b.Loop(); i++ {
		s.Resolve(addrs[i%len(addrs)])
	}
}

// The oracle is a byte map: each byte belongs to the fresh mapping, else to the old one.
func TestMergeKeepsWhatIsNotOverlapped(t *testing.T) {
	const size = 64
	random := func(id ImageID) (maps []Mapping, bytes [size]ImageID) {
		for pos := uint64(rand.IntN(8)); pos < size; {
			end := min(size, pos+1+uint64(rand.IntN(12)))
			maps = append(maps, Mapping{Start: pos, End: end, FileOff: pos, Image: &Image{ID: id}})
			for i := pos; i < end; i++ {
				bytes[i] = id
			}
			pos = end + uint64(rand.IntN(6))
		}
		return maps, bytes
	}
	for range 2000 {
		old, want := random(2)
		fresh, freshBytes := random(3)
		for i, id := range freshBytes {
			if id != 0 {
				want[i] = id
			}
		}
		var got [size]ImageID
		var last uint64
		for _, m := range mergeMappings(old, fresh) {
			if m.Start < last || m.End <= m.Start || m.FileOff != m.Start {
				t.Fatalf("old %v\nfresh %v\nmerged out of order or empty: %+v", old, fresh, m)
			}
			last = m.End
			for i := m.Start; i < m.End; i++ {
				got[i] = m.Image.ID
			}
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("old %v\nfresh %v\n%s", old, fresh, diff)
		}
	}
}

func TestImagesCountReferences(t *testing.T) {
	images := NewImages()
	if im := images.Get(KernelImage); im == nil || im.Path != pathKernel {
		t.Fatalf("kernel image %+v", im)
	}
	a := images.copied("a", []byte("x"))
	if b := images.copied("b", []byte("x")); b != a {
		t.Error("the same content is two images")
	}
	images.Retain(a.ID)
	for i := range 3 {
		if images.Get(a.ID) == nil {
			t.Errorf("gone after %d of 3 releases", i)
		}
		if err := images.Release(a.ID); err != nil {
			t.Error(err)
		}
	}
	if images.Get(a.ID) != nil {
		t.Error("still there after the last release")
	}
	if c := images.copied("c", []byte("x")); c.ID == a.ID {
		t.Error("an ID is used twice")
	}
	if err := images.Release(KernelImage); err != nil || images.Get(KernelImage) == nil {
		t.Error("the kernel's image is released")
	}
}
