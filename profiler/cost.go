package profiler

import "time"

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
