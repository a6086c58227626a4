package pyroscope

import (
	"slices"

	"github.com/google/pprof/profile"
)

// stacks cuts those of more than maxFrames, inlined calls counted, in the middle.
func (m *mender) stacks() {
	c := &cutter{d: m.d, pieces: map[piece]*profile.Location{}}
	for _, s := range m.d.Sample {
		if frames(s) > maxFrames {
			s.Location = c.cut(s.Location)
			m.changed = true
			m.e.stats.stacks.Add(1)
		}
	}
}

func frames(s *profile.Sample) (n int) {
	for _, l := range s.Location {
		n += max(1, len(l.Line))
	}
	return n
}

// cutter makes the locations that cut stacks need beside those of the profile, each once.
type cutter struct {
	d      *profile.Profile
	marker *profile.Location
	pieces map[piece]*profile.Location
}

// piece is a range of the inlined calls of one address.
type piece struct {
	of       *profile.Location
	from, to int
}

// cut leaves the frames at both ends, half of them each, and the marker between them.
func (c *cutter) cut(stack []*profile.Location) []*profile.Location {
	const leafs, roots = (maxFrames - 1) / 2, maxFrames - 1 - (maxFrames-1)/2
	var out []*profile.Location
	for i, n := 0, leafs; n > 0; i++ {
		l := stack[i]
		take := min(n, max(1, len(l.Line)))
		out = append(out, c.part(piece{l, 0, take}))
		n -= take
	}
	out = append(out, c.mark())
	end := len(out)
	for i, n := len(stack)-1, roots; n > 0; i-- {
		l := stack[i]
		all := max(1, len(l.Line))
		take := min(n, all)
		out = append(out, c.part(piece{l, all - take, all}))
		n -= take
	}
	slices.Reverse(out[end:])
	return out
}

func (c *cutter) part(p piece) *profile.Location {
	if p.to-p.from >= len(p.of.Line) {
		return p.of
	}
	l, ok := c.pieces[p]
	if !ok {
		l = &profile.Location{Mapping: p.of.Mapping, Address: p.of.Address, IsFolded: p.of.IsFolded, Line: p.of.Line[p.from:p.to]}
		c.pieces[p] = l
		c.d.Location = append(c.d.Location, l)
	}
	return l
}

func (c *cutter) mark() *profile.Location {
	if c.marker == nil {
		f := &profile.Function{Name: truncatedFrame, SystemName: truncatedFrame}
		c.marker = &profile.Location{Line: []profile.Line{{Function: f}}}
		c.d.Function, c.d.Location = append(c.d.Function, f), append(c.d.Location, c.marker)
	}
	return c.marker
}
