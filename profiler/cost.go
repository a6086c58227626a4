package profiler

import (
	"errors"
	"time"

	"github.com/pprofd/pprofd/bpf"
)

// Cost is what sampling has cost since New, and what was seen for it.
type Cost struct {
	Ticks, Hits                         uint64 // see bpf.Stats
	Recorded, Lost, Throttled, BadSpans uint64
	BPF                                 time.Duration // run time of all programs
	User                                time.Duration // CPU time of Run
}

// Cost asks the kernel, where Stats may be some seconds old. It may be called while Run runs.
func (p *Profiler) Cost() (Cost, error) {
	k, err := p.probes.Stats()
	if err != nil {
		return Cost{}, err
	}
	return Cost{
		Ticks: k.Ticks, Hits: k.Hits, Recorded: k.Recorded + k.LostRing, Lost: k.LostRing, Throttled: k.Throttled, BadSpans: k.BadSpans,
		BPF: k.RunTime.All(), User: time.Duration(p.userTime.Load()),
	}, nil
}

// Calibrate measures what an interrupt for a sample costs on this machine, and if asked for what a hit of a probe does: some
// 0.1 s of CPU time each. What could not be measured is 0.
func Calibrate(hits bool) (tick, hit time.Duration, err error) {
	tick, err = bpf.MeasureTick()
	if hits {
		var errHit error
		hit, errHit = bpf.MeasureTrap()
		err = errors.Join(err, errHit)
	}
	return tick, hit, err
}
