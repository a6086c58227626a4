package profiler

import (
	"errors"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/aggregate"
)

// counted is what of the kernel side's numbers is in profiles, by PID.
type counted struct{ lost, throttled map[uint32]bpf.Loss }

func newCounted() counted {
	return counted{make(map[uint32]bpf.Loss), make(map[uint32]bpf.Loss)}
}

// countLosses finds out, by target, what the kernel side had to drop, which goes into the table, and what it was told not to take.
// No more of it can come of a process that is a target no more.
func (p *Profiler) countLosses() error {
	lost, err := p.news(p.probes.Losses, p.counted.lost)
	throttled, errThrottled := p.news(p.probes.Throttled, p.counted.throttled)
	errs := []error{err, errThrottled}
	for _, m := range []map[uint32]bpf.Loss{p.counted.lost, p.counted.throttled} {
		for pid := range m {
			if p.targets[pid] == nil {
				delete(p.counted.lost, pid)
				delete(p.counted.throttled, pid)
				errs = append(errs, p.probes.ForgetLosses(pid))
			}
		}
	}
	for _, t := range p.all {
		if l := lost[t.pid]; l.Count > 0 {
			p.table.Lost(t.id, p.kind(), "ring buffer full", int64(l.Count), int64(l.Value))
			delete(lost, t.pid)
		}
		t.throttled = throttled[t.pid]
		delete(throttled, t.pid)
	}
	for pid, l := range lost {
		if p.cfg.Discovery != nil { // which need not have become a target
			p.past.unwanted += l.Count
			delete(lost, pid)
		}
	}
	if len(lost) > 0 {
		p.note("samples of %d processes that were replaced meanwhile are missing", len(lost))
	}
	return errors.Join(errs...)
}

// news is what was counted since the last time, by PID.
func (p *Profiler) news(read func() (map[uint32]bpf.Loss, error), counted map[uint32]bpf.Loss) (map[uint32]bpf.Loss, error) {
	all, err := read()
	if err != nil {
		return nil, err
	}
	for pid, l := range all {
		before := counted[pid]
		counted[pid] = l
		if all[pid] = (bpf.Loss{Count: l.Count - before.Count, Value: l.Value - before.Value}); l == before {
			delete(all, pid)
		}
	}
	return all, nil
}

// throttleWeights are by how much the weights of a target's samples are to be multiplied so that they stand for those, too, that were
// not taken, since samples may cost so much and no more; nil: of all targets all were. Where none was taken, a sample says so.
func (p *Profiler) throttleWeights() func(target uint32) float64 {
	some := false
	for _, t := range p.all {
		some = some || t.throttled.Count > 0
	}
	if !some || p.allocs != nil { // what was allocated is known anyway: see scales
		return nil
	}
	taken := p.table.Losses(p.kind())
	for k, v := range p.table.Sizes(p.kind()) {
		taken[k.Target] = aggregate.Value{Count: taken[k.Target].Count + v.Count, Sum: taken[k.Target].Sum + v.Sum}
	}
	weights := make(map[uint32]float64)
	for _, t := range p.all {
		switch {
		case t.throttled.Count == 0:
		case taken[t.id].Sum <= 0:
			p.table.Lost(t.id, p.kind(), aggregate.Throttled, 0, int64(t.throttled.Value))
		default:
			weights[t.id] = 1 + float64(t.throttled.Value)/float64(taken[t.id].Sum)
		}
	}
	return func(target uint32) float64 {
		if w, ok := weights[target]; ok {
			return w
		}
		return 1
	}
}
