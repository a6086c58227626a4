package profiler

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pprofd/pprofd/bpf"
)

// Rates say how much is to be sampled from now on, and what that may cost. The zero value of Hz, AllocInterval, AllocBudget and Window
// leaves them as they are.
type Rates struct {
	Off           bool          // nothing is sampled until it is on again
	Hz            float64       // of KindCPU: samples a second and CPU
	AllocInterval int64         // of KindAllocs: see Config
	AllocBudget   float64       // of KindAllocs: see Config
	Limit         time.Duration // that BPF programs may take for samples, a second, on all CPUs together; 0: no limit
	NoKernel      bool          // leave kernel stacks out
	Window        time.Duration // see Config; not where it was 0
}

// steered is a Source whose rates can be changed.
type steered interface {
	SetLimit(perSecond time.Duration) error
}

var _, _ steered = (*bpf.Probes)(nil), (*bpf.AllocProbes)(nil)

// rate is what is in force, and was in this window.
type rate struct {
	off      bool
	hz       span
	interval span // bytes between two samples of allocations
	since    time.Time
	idle     time.Duration // for which it was off, up to since
	limit    time.Duration
	noKernel bool
	comments []string // of the profiles that are being made
}

// span is between which values something was.
type span struct{ now, low, high float64 }

func (s *span) set(v float64) { s.now, s.low, s.high = v, min(s.low, v), max(s.high, v) }
func (s *span) restart()      { s.low, s.high = s.now, s.now }

// String writes "19" or "3.1 to 19".
func (s *span) String() string {
	low, high := brief(s.low), brief(s.high)
	if low == high {
		return high
	}
	return low + " to " + high
}

// brief writes three digits, or all before the point.
func brief(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// whole is String for numbers without fractions.
func (s *span) whole() string {
	if s.low == s.high {
		return strconv.FormatInt(int64(s.high), 10)
	}
	return fmt.Sprintf("%d to %d", int64(s.low), int64(s.high))
}

func newRate(c *Config) rate {
	hz, interval := float64(c.Frequency), float64(c.AllocInterval)
	return rate{hz: span{hz, hz, hz}, interval: span{interval, interval, interval}, noKernel: c.NoKernel}
}

// period is what a sample of CPU time stands for where most are taken.
func (r *rate) period() int64 { return int64(float64(time.Second) / r.hz.high) }

// restart begins a window.
func (r *rate) restart(now time.Time) {
	r.hz.restart()
	r.interval.restart()
	r.idle, r.since = 0, now
}

// turn notes that sampling goes off or on.
func (r *rate) turn(off bool, now time.Time) {
	if r.off {
		r.idle += now.Sub(r.since)
	}
	r.off, r.since = off, now
}

// pause is for how long it was off in this window.
func (r *rate) pause(now time.Time) time.Duration {
	if r.off {
		return r.idle + now.Sub(r.since)
	}
	return r.idle
}

// SetRates changes what is sampled while Run runs. Each sample has the weight that is right when it is taken, and what a limit has
// kept from being taken is added to what was, so that sums stay true. Errors leave as it was what could not be changed.
func (p *Profiler) SetRates(r Rates) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if r.Window > 0 && p.cfg.Window > 0 {
		p.cfg.Window = r.Window
	}
	errs := []error{p.setLimit(r.Limit)}
	switch probes := p.probes.(type) {
	case interface {
		SetRate(hz float64) error
		SetKernelStacks(on bool) error
	}:
		errs = append(errs, p.setHz(probes.SetRate, r.Hz), p.setKernel(probes.SetKernelStacks, r.NoKernel))
	default:
		if p.allocs != nil {
			errs = append(errs, p.setAllocs(r))
		}
	}
	return errors.Join(append(errs, p.setOff(r.Off))...)
}

func (p *Profiler) setLimit(limit time.Duration) error {
	probes, ok := p.probes.(steered)
	if !ok || limit == p.rate.limit {
		return nil
	}
	if err := probes.SetLimit(limit); err != nil {
		return err
	}
	p.rate.limit = limit
	return nil
}

// setHz tells the kernel also where the rate stays: the CPUs get other periods then, and no rhythm.
func (p *Profiler) setHz(set func(float64) error, hz float64) error {
	if hz == 0 {
		return nil
	}
	if err := set(hz); err != nil {
		return err
	}
	p.rate.hz.set(hz)
	return nil
}

func (p *Profiler) setKernel(set func(bool) error, no bool) error {
	if no == p.rate.noKernel {
		return nil
	}
	if err := set(!no); err != nil {
		return err
	}
	p.rate.noKernel = no
	return nil
}

func (p *Profiler) setAllocs(r Rates) error {
	if r.AllocBudget != 0 {
		p.cfg.AllocBudget = r.AllocBudget
	}
	if r.AllocInterval == 0 || r.AllocInterval == p.cfg.AllocInterval {
		return nil
	}
	if err := p.allocs.probes.SetInterval(r.AllocInterval); err != nil {
		return err
	}
	p.cfg.AllocInterval = r.AllocInterval
	p.rate.interval.set(float64(r.AllocInterval))
	return nil
}

// setOff lets sampling rest, or go on. Targets stay.
func (p *Profiler) setOff(off bool) error {
	if off == p.rate.off {
		return nil
	}
	now := time.Now()
	p.rate.turn(off, now)
	if p.started.IsZero() || p.stopped.Load() {
		return nil
	}
	if p.allocs == nil {
		if off {
			return p.probes.Stop()
		}
		return p.probes.Start()
	}
	var errs []error
	for _, t := range p.targets {
		errs = append(errs, p.restAllocs(t, off, now))
	}
	return errors.Join(errs...)
}

// restAllocs takes t's probes away, or has them back. What is allocated meanwhile only the runtime's own count tells.
func (p *Profiler) restAllocs(t *target, off bool, now time.Time) error {
	a := t.alloc
	if a == nil || t.gone {
		return nil
	}
	if off {
		p.keepTotals(t, a.duty.weight)
		a.duty.finish()
		p.beginDetach(t)
		return nil
	}
	p.keepTotals(t, a.duty.weight)
	a.duty.resume(now, a.hits())
	if !a.duty.on() {
		return nil
	}
	if err := p.attachAllocs(t); err != nil && p.alive(&t.process) {
		return fmt.Errorf("process %d (%s): %w", t.pid, t.comm, err)
	}
	return nil
}

// source says where the samples of a target come from; 0: of all.
func (p *Profiler) source(id uint32) []string {
	var lines []string
	if p.allocs == nil {
		lines = append(lines, fmt.Sprintf("event %s at %s Hz", p.probes.Event(), &p.rate.hz))
	}
	for _, t := range p.of(id) {
		if t.alloc == nil {
			continue
		}
		if line := t.alloc.source(&p.rate.interval); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if n := p.throttledSamples(id); n > 0 {
		lines = append(lines, fmt.Sprintf("%d samples were not taken, since that would have cost too much; the others stand for them", n))
	}
	now := time.Now()
	if pause := p.rate.pause(now); pause > 0 {
		lines = append(lines, fmt.Sprintf("sampling was off for %.1f of %.1f s", pause.Seconds(), now.Sub(p.started).Seconds()))
	}
	return lines
}

// throttledSamples of a target; 0: of all.
func (p *Profiler) throttledSamples(id uint32) (n uint64) {
	for _, t := range p.of(id) {
		n += t.throttled.Count
	}
	return n
}

// of is a target as a list; 0: all.
func (p *Profiler) of(id uint32) []*target {
	switch {
	case id == 0:
		return p.all
	case int(id) > len(p.all):
		return nil
	}
	return p.all[id-1 : id]
}
