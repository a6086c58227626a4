package profiler

import (
	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/aggregate"
)

// Every byte that the runtime accounts for while a process is probed is counted, whether or not a sample is taken of it. So
// the samples need not say how much was allocated, but only by whom: they are scaled to what was counted, size by size where
// there are enough of them, the rest together.

const (
	minSamples     = 16       // of objects of one size, to be scaled alone
	maxSmall       = 32 << 10 // bytes; larger objects have spans of their own (runtime/sizeclasses.go: _MaxSmallSize)
	largeStratum   = -1
	certainStratum = -2
)

// stratum is what was counted of objects, and what the samples of them add up to.
type stratum struct {
	counted float64
	samples int64
	sampled float64
}

// scales are by how much what the samples say is to be multiplied.
func (p *Profiler) scales() map[aggregate.SizeKey]float64 {
	kind := uint8(bpf.KindAlloc)
	scales := make(map[aggregate.SizeKey]float64)
	sizes, lost := p.table.Sizes(kind), p.table.Losses(kind)
	for _, t := range p.all {
		if t.alloc == nil {
			continue
		}
		if t.alloc.rate > 0 {
			t.scaleOwn(scales, sizes)
			continue
		}
		s := p.strata(t, sizes)
		own := t.alloc.correction(t)
		factor := own * keptShare(s, float64(lost[t.id].Sum))
		rest := s.pool()
		for k := range sizes {
			if k.Target != t.id {
				continue
			}
			if p.allocs.certain[k.Size] && t.throttled.Count == 0 {
				scales[k] = own
				continue
			}
			of := s[p.strataOf(k.Size)]
			if of == nil || of.samples < minSamples {
				of = rest
			}
			if of.sampled > 0 {
				scales[k] = factor * of.counted / of.sampled
			}
		}
		if rest.sampled == 0 && rest.counted > 0 {
			p.table.Lost(t.id, kind, "no sample of objects of these sizes", 0, int64(own*rest.counted))
		}
	}
	return scales
}

// scaleOwn lets samples that the runtime chose stand for those that were not taken.
func (t *target) scaleOwn(scales map[aggregate.SizeKey]float64, sizes map[aggregate.SizeKey]aggregate.Value) {
	taken := int64(0)
	for k, v := range sizes {
		if k.Target == t.id {
			taken += v.Count
		}
	}
	for k := range sizes {
		if k.Target == t.id && taken > 0 {
			scales[k] = 1 + float64(t.throttled.Count)/float64(taken)
		}
	}
}

type strata map[int64]*stratum

// strataOf is what samples of a size, by number, are scaled with.
func (p *Profiler) strataOf(number uint16) int64 {
	switch size := p.allocs.sizes[number]; {
	case p.allocs.certain[number]:
		return certainStratum
	case size > maxSmall:
		return largeStratum
	default:
		return size
	}
}

// strata: objects of which each is in the profile are one only where some were not taken all the same.
func (p *Profiler) strata(t *target, sizes map[aggregate.SizeKey]aggregate.Value) strata {
	s := make(strata)
	at := func(which int64) *stratum {
		if s[which] == nil {
			s[which] = &stratum{}
		}
		return s[which]
	}
	for _, c := range t.alloc.totals {
		switch {
		case c.class == bpf.ClassAlways:
			at(certainStratum).counted += c.bytes
		case c.size == 0:
			at(largeStratum).counted += c.bytes
		default:
			at(c.size).counted += c.bytes
		}
	}
	for k, v := range sizes {
		if k.Target == t.id {
			st := at(p.strataOf(k.Size))
			st.samples += v.Count
			st.sampled += float64(v.Sum)
		}
	}
	if t.throttled.Count == 0 {
		delete(s, certainStratum)
	}
	return s
}

// pool adds up what has too few samples to be scaled alone.
func (s strata) pool() *stratum {
	rest := &stratum{}
	for _, st := range s {
		if st.samples < minSamples {
			rest.counted += st.counted
			rest.samples += st.samples
			rest.sampled += st.sampled
		}
	}
	return rest
}

// keptShare is the share of what was counted that is not in [lost].
func keptShare(s strata, lost float64) float64 {
	counted := 0.0
	for _, st := range s {
		counted += st.counted
	}
	if lost <= 0 || counted <= 0 {
		return 1
	}
	return max(0, 1-lost/counted)
}

// correction is by how much what was counted in the slots that were probed is to be multiplied so that it adds up to what the
// runtime itself has counted all the time. All that was probed needs none.
func (a *allocTarget) correction(t *target) float64 {
	own, ok := a.ownTotal(t)
	counted := 0.0
	for _, c := range a.totals {
		counted += c.bytes
	}
	if !a.duty.partial || !ok || counted == 0 {
		return 1
	}
	return own / counted
}
