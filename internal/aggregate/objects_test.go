package aggregate

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// TestObjects: samples of objects are told apart by size, have counts and bytes scaled to what is known, and the label bytes.
func TestObjects(t *testing.T) {
	table := New(Limits{})
	stack := []objfile.Addr{{Image: 9, Off: 1}}
	for _, s := range []struct {
		size   uint16
		weight int64
	}{{1, 1000}, {1, 3000}, {2, 5000}} {
		table.Add(Key{Target: 1, Size: s.size}, stack, s.weight)
	}
	table.Lost(1, 0, "a reason", 1, 70)
	if d := cmp.Diff(map[SizeKey]Value{{1, 1}: {2, 4000}, {1, 2}: {1, 5000}}, table.Sizes(0)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[uint32]Value{1: {1, 70}}, table.Losses(0)); d != "" {
		t.Error(d)
	}
	o := BuildOptions{Period: 512, Objects: &Objects{Sizes: []int64{0, 16, 250}, Scale: func(_ uint32, size uint16) float64 {
		return []float64{1, 2, 0.5}[size]
	}}}
	got := map[int64][]int64{}
	for b := range table.Build(noImages, symbolize.New(noImages, nil), o) {
		p := b.Profile
		if p.SampleType[0].Type != "alloc_objects" || p.SampleType[1].Type != "alloc_space" || p.DefaultSampleType != "alloc_space" ||
			p.PeriodType.Type != "space" || p.Period != 512 {
			t.Errorf("header %v", p)
		}
		for _, s := range p.Sample {
			size := int64(0)
			if n := s.NumLabel["bytes"]; n != nil {
				size = n[0]
			}
			got[size] = s.Value
		}
	}
	if d := cmp.Diff(map[int64][]int64{16: {500, 8000}, 250: {10, 2500}, 0: {0, 70}}, got); d != "" {
		t.Error(d)
	}
}

// TestHideAllocator: the runtime's functions are left out at the leaf, inlined ones too, and nowhere else.
func TestHideAllocator(t *testing.T) {
	frames := func(names ...string) (list []symbolize.Frame) {
		for _, name := range names {
			list = append(list, symbolize.Frame{Func: name})
		}
		return list
	}
	for name, tt := range map[string]struct {
		stack [][]symbolize.Frame
		want  []uint64
	}{
		"calls":           {[][]symbolize.Frame{frames("runtime.mallocgc"), frames("main.f"), frames("runtime.main")}, []uint64{0, 1, 1}},
		"inlined":         {[][]symbolize.Frame{frames("runtime.mallocgc"), frames("runtime.newobject", "main.f", "main.g")}, []uint64{0, 0b110}},
		"nothing else":    {[][]symbolize.Frame{frames("runtime.mallocgc"), frames("runtime.main")}, []uint64{1, 1}},
		"internal":        {[][]symbolize.Frame{frames("internal/runtime/maps.NewMap"), frames("main.f")}, []uint64{0, 1}},
		"nothing to hide": {[][]symbolize.Frame{frames("main.f"), frames("runtime.main")}, []uint64{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var masks []uint64
			for _, f := range tt.stack {
				masks = append(masks, 1<<len(f)-1)
			}
			hideAllocator(masks, tt.stack)
			if d := cmp.Diff(tt.want, masks); d != "" {
				t.Error(d)
			}
		})
	}
}
