package aggregate

import (
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// Calls is a stack that was walked: addresses of calls, one for each physical frame.
type Calls struct {
	Leaf   string         // the name of a frame above the stack, such as [running]; "": none
	Stack  []objfile.Addr // leaf first
	Status Status
	Labels []Label
}

// AddCalls adds a sample. What c holds stays the caller's.
func (s *Snapshot) AddCalls(c *Calls, values ...int64) {
	b := s.b
	b.stack, b.frames = b.stack[:0], b.frames[:0]
	if c.Leaf != "" {
		b.stack = append(b.stack, b.named(c.Leaf))
	}
	for _, a := range c.Stack {
		b.frames = append(b.frames, b.sym.Frames(a))
	}
	b.masks = symbolize.Elide(b.masks[:0], b.frames)
	for i, mask := range b.masks {
		if mask != 0 {
			b.stack = append(b.stack, s.location(c.Stack[i], mask, b.frames[i]))
		}
	}
	b.roots(c.Status)
	sample := &profile.Sample{Location: append([]*profile.Location(nil), b.stack...), Value: append([]int64(nil), values...)}
	for _, l := range s.o.Labels {
		addLabel(sample, l)
	}
	for _, l := range c.Labels {
		addLabel(sample, l)
	}
	b.p.Sample = append(b.p.Sample, sample)
}
