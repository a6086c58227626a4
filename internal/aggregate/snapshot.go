package aggregate

import (
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// SnapshotOptions describe a profile of what the Go runtime has counted itself.
type SnapshotOptions struct {
	Types         []profile.ValueType // of the values of a sample
	DefaultType   string              // which of them readers show at first; "": the last
	PeriodType    profile.ValueType
	Period        int64
	Start         time.Time
	Duration      time.Duration // 0: counted since the process began
	Main          objfile.ImageID
	Labels        []Label // of all samples
	HideAllocator bool    // leave out functions of the runtime at the leaf, as heap profiles do
	Wrappers      bool    // show functions that the compiler made, where nothing is inlined into them
}

// Snapshot makes one profile of the runtime's own records. Their stacks are logical: they have an address for each inlined
// call as well.
type Snapshot struct {
	b       *builder
	o       SnapshotOptions
	numbers map[objfile.Addr]uint32
	addrs   []objfile.Addr
}

// NewSnapshot returns one without samples.
func NewSnapshot(images symbolize.Images, sym *symbolize.Symbolizer, o SnapshotOptions) *Snapshot {
	s := &Snapshot{o: o, numbers: make(map[objfile.Addr]uint32)}
	names := newNaming(&addrSet{}, sym)
	s.b = newBuilder(nil, images, names, BuildOptions{Start: o.Start, Duration: o.Duration, Period: o.Period}, 0)
	s.b.p.SampleType, s.b.p.PeriodType, s.b.p.DefaultSampleType = nil, &o.PeriodType, o.DefaultType
	for i := range o.Types {
		s.b.p.SampleType = append(s.b.p.SampleType, &o.Types[i])
	}
	s.b.maps.main(o.Main)
	return s
}

// Add adds a sample. stack holds return addresses, leaf first; bytes is the label of that name, 0: none. The arguments stay
// the caller's.
func (s *Snapshot) Add(stack []objfile.Addr, bytes int64, values ...int64) {
	if s.o.HideAllocator {
		stack = s.withoutAllocator(stack)
	}
	s.expand(stack)
	b := s.b
	b.stack = b.stack[:0]
	b.masks = symbolize.Elide(b.masks[:0], b.frames)
	for i, mask := range b.masks {
		if f := b.frames[i]; s.o.Wrappers && len(f) > 0 && f[0].Wrapper {
			mask |= 1
		}
		if mask != 0 {
			b.stack = append(b.stack, s.location(s.addrs[i], mask, b.frames[i]))
		}
	}
	b.roots(0)
	sample := &profile.Sample{Location: append([]*profile.Location(nil), b.stack...), Value: append([]int64(nil), values...)}
	addNumber(sample, "bytes", bytes)
	for _, l := range s.o.Labels {
		addLabel(sample, l)
	}
	b.p.Sample = append(b.p.Sample, sample)
}

// Profile returns the profile; there is nothing to be added then.
func (s *Snapshot) Profile() *profile.Profile {
	s.b.finish()
	return s.b.p
}

// withoutAllocator cuts functions of the runtime at the leaf, but for a stack that has no others
// (runtime/pprof/protomem.go: writeHeapProto).
func (s *Snapshot) withoutAllocator(stack []objfile.Addr) []objfile.Addr {
	for i, a := range stack {
		frames := s.b.sym.Frames(a)
		if len(frames) == 0 || !isRuntime(frames[0].Func) {
			return stack[i:]
		}
	}
	return stack
}

func isRuntime(name string) bool {
	return strings.HasPrefix(name, "runtime.") || strings.HasPrefix(name, "internal/runtime/")
}

// expand turns a logical stack into addresses of calls with all their frames. The first address of a group of inlined
// calls has the frames of all; the further ones, which follow where the stack was not cut, are of no-op instructions.
func (s *Snapshot) expand(stack []objfile.Addr) {
	s.addrs, s.b.frames = s.addrs[:0], s.b.frames[:0]
	for i := 0; i < len(stack); {
		call := before(stack[i])
		frames := s.b.sym.Frames(call)
		s.addrs, s.b.frames = append(s.addrs, call), append(s.b.frames, frames)
		i++
		for level := 1; level < len(frames) && i < len(stack); i++ {
			outer := s.b.sym.Frames(before(stack[i]))
			level += indexFrames(frames[level:], outer)
			if level >= len(frames) {
				break
			}
			level++
		}
	}
}

func before(a objfile.Addr) objfile.Addr {
	a.Off--
	return a
}

// indexFrames is where frames end in outer, len(frames) if they do not. Levels in between are wrappers, which the runtime leaves
// out.
func indexFrames(frames, outer []symbolize.Frame) int {
	skip := len(frames) - len(outer)
	if skip < 0 {
		return len(frames)
	}
	for i := range outer {
		if a, b := &frames[skip+i], &outer[i]; a.Func != b.Func || a.Line != b.Line || a.File != b.File {
			return len(frames)
		}
	}
	return skip
}

func (s *Snapshot) location(a objfile.Addr, mask uint64, frames []symbolize.Frame) *profile.Location {
	n, ok := s.numbers[a]
	if !ok {
		n = uint32(len(s.numbers))
		s.numbers[a] = n
	}
	k := locKey{n, mask}
	if l := s.b.locs[k]; l != nil {
		return l
	}
	ids := make([]uint32, len(frames))
	for i := range frames {
		ids[i] = s.b.names.id(&frames[i])
	}
	l := s.b.newLocation(a, mask, frames, ids)
	s.b.locs[k] = l
	return l
}
