package aggregate

import (
	"math"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/symbolize"
)

// Objects describe a profile of objects: its samples have how many there were, and their bytes, and the label "bytes", which
// is the size of one of them, as the runtime's own heap profiles have it. Functions of the runtime at the leaf are left out.
type Objects struct {
	Sizes []int64 // bytes of one object, by Key.Size
	// Scale is by how much the bytes of a target's objects of a size are to be multiplied; may be nil.
	Scale func(target uint32, size uint16) float64
}

// values are those of a sample.
func (b *builder) values(k Key, v Value) []int64 {
	o, values := b.o.Objects, b.valueSlab.take(2)
	if o == nil {
		values[0], values[1] = v.Count, v.Sum
		if b.o.Weight != nil {
			values[1] = int64(math.Round(float64(v.Sum) * b.o.Weight(k.Target)))
		}
		return values
	}
	bytes := float64(v.Sum)
	if o.Scale != nil {
		bytes *= o.Scale(k.Target, k.Size)
	}
	objects := 0.0
	if size := o.Sizes[k.Size]; size > 0 {
		objects = bytes / float64(size)
	}
	values[0], values[1] = int64(math.Round(objects)), int64(math.Round(bytes))
	return values
}

// emptyObjects has the header that runtime/pprof gives its profile of allocations, but for what is in use.
func emptyObjects(o BuildOptions) *profile.Profile {
	p := emptyProfile(BuildOptions{Type: "space", Unit: "bytes", Period: o.Period, Start: o.Start, Duration: o.Duration, Comments: o.Comments})
	p.SampleType = []*profile.ValueType{{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"}}
	p.DefaultSampleType = "alloc_space"
	return p
}

// hideAllocator clears the bits of the runtime's functions at the leaf, but for a stack that has no others
// (runtime/pprof/protomem.go: writeHeapProto).
func hideAllocator(masks []uint64, stack [][]symbolize.Frame) {
	for i, frames := range stack {
		for j := range frames {
			if isRuntime(frames[j].Func) {
				continue
			}
			for k := range i {
				masks[k] = 0
			}
			masks[i] &^= 1<<min(j, 63) - 1
			return
		}
	}
}

// SizeKey names the objects of a size that a target has samples of.
type SizeKey struct {
	Target uint32
	Size   uint16
}

// Sizes adds up the samples of a kind by target and size.
func (t *Table) Sizes(kind uint8) map[SizeKey]Value {
	sums := make(map[SizeKey]Value)
	for i := range t.entries.n {
		e := t.entries.at(i)
		if e.key.Kind != kind {
			continue
		}
		k := SizeKey{e.key.Target, e.key.Size}
		sums[k] = Value{sums[k].Count + e.value.Count, sums[k].Sum + e.value.Sum}
	}
	return sums
}

// Losses adds up what was lost of a kind, by target.
func (t *Table) Losses(kind uint8) map[uint32]Value {
	sums := make(map[uint32]Value)
	for k, v := range t.lost {
		if k.kind == kind {
			sums[k.target] = Value{sums[k.target].Count + v.Count, sums[k.target].Sum + v.Sum}
		}
	}
	return sums
}
