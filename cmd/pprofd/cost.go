package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/governor"
	"github.com/pprofd/pprofd/internal/spend"
	"github.com/pprofd/pprofd/profiler"
)

const (
	governInterval   = time.Second // of record --max-overhead
	adaptedFrequency = 999         // which the rate may rise to where -F says nothing
	leastFrequency   = 1
	leastAllocs      = 0.02 // of --alloc-budget
	anyLoad          = 1000 // who asks for a recording wants it of a machine that is busy, too
)

// percentFlag is a flag such as 2%.
type percentFlag float64

func (p *percentFlag) String() string {
	if *p == 0 {
		return ""
	}
	return spend.FormatPercent(float64(*p))
}

func (*percentFlag) Type() string { return "percent" }

// Set reads a percentage.
func (p *percentFlag) Set(s string) error {
	v, err := spend.ParsePercent(s)
	*p = percentFlag(v)
	return err
}

// newKeeper makes what holds the recording to --max-overhead; nil: that was not given.
func (r *recording) newKeeper() (*spend.Keeper, error) {
	if r.o.maxOverhead == 0 {
		return nil, nil
	}
	return spend.New(spend.Config{
		Share: float64(r.o.maxOverhead) / 100, Load: anyLoad, Interval: governInterval,
		Calibrate: func() (spend.Costs, error) { return spend.Calibrate(r.allocs != nil) }, ProcRoot: procRoot,
		Failed: func(err error) { r.log.Warn("budget", "error", err) },
		Kinds: []spend.Kind{
			r.governed(profiler.KindCPU, func() *profiler.Profiler { return r.profiler }),
			r.governed(profiler.KindAllocs, func() *profiler.Profiler { return r.allocs }),
		},
	})
}

// governed says what may be set of a kind, whose Profiler may come late.
func (r *recording) governed(kind string, find func() *profiler.Profiler) spend.Kind {
	k := spend.Kind{Kind: governor.Kind{Name: kind, Share: 1, Floor: leastAllocs, Start: 1, Ceiling: 1, Unit: "of --alloc-budget", Event: true}}
	if kind == profiler.KindCPU {
		start := float64(r.o.frequency)
		k.Floor, k.Start, k.Ceiling, k.Unit, k.Event, k.EachCPU = leastFrequency, start, start, "Hz", false, true
		if !r.o.frequencyExplicit {
			k.Ceiling = adaptedFrequency
		}
	}
	if kind == profiler.KindAllocs && r.o.allocBudget > 0 {
		k.Most = func() float64 {
			if p := find(); p != nil {
				return float64(len(p.PIDs())) * r.o.allocBudget / 100
			}
			return 0
		}
	}
	k.Count = func() (c spend.Counters, running bool) {
		p := find()
		if p == nil {
			return c, false
		}
		c, err := spend.Of(p)
		return c, err == nil
	}
	u := spend.Usual{Kind: kind, NoKernel: r.o.noKernel, AllocInterval: r.o.allocInterval, AllocBudget: cmp.Or(r.o.allocBudget/100, -1)}
	k.Set = func(s governor.Setting, d *governor.Decision) error {
		if p := find(); p != nil {
			return p.SetRates(u.Rates(s, d))
		}
		return nil
	}
	return k
}

// keepBudget holds the recording to its budget until ctx ends.
func (r *recording) keepBudget(ctx context.Context) {
	if r.keeper != nil {
		r.keeper.Run(ctx)
	}
}

// comments are lines for all profiles.
func (r *recording) comments() []string {
	if r.keeper == nil {
		return nil
	}
	return r.keeper.Comments()
}

// cost says what the recording has cost, as measured: this process, and its BPF programs by their own clocks. What interrupts
// and traps cost others is known where a budget asked for it.
func (r *recording) cost() string {
	own, err := spend.OwnCPU()
	if err != nil || r.began.IsZero() {
		return ""
	}
	if len(r.profilers()) == 0 { // reading takes but a moment
		return fmt.Sprintf("cost: pprofd %.3f s of CPU time\n", own.Seconds())
	}
	var c profiler.Cost
	for _, p := range r.profilers() {
		one, err := p.Cost()
		if err != nil {
			return ""
		}
		c.BPF, c.Ticks, c.Hits, c.Recorded = c.BPF+one.BPF, c.Ticks+one.Ticks, c.Hits+one.Hits, c.Recorded+one.Recorded
	}
	sum, parts := own+c.BPF, []string{fmt.Sprintf("pprofd %.3f s", own.Seconds()), fmt.Sprintf("BPF %.3f s", c.BPF.Seconds())}
	if c.Recorded > 0 {
		parts[1] += fmt.Sprintf(" (%.1f µs a sample)", c.BPF.Seconds()*1e6/float64(c.Recorded))
	}
	for _, event := range []struct {
		number uint64
		name   string
		each   time.Duration
	}{{c.Ticks, "interrupts", r.costs().Tick}, {c.Hits, "probe hits", r.costs().Hit}} {
		if event.number == 0 {
			continue
		}
		text := fmt.Sprintf("%d %s", event.number, event.name)
		if event.each > 0 {
			took := event.each * time.Duration(event.number)
			text += fmt.Sprintf(" %.3f s (%.1f µs each)", took.Seconds(), event.each.Seconds()*1e6)
			sum += took
		}
		parts = append(parts, text)
	}
	return fmt.Sprintf("cost: %s: %s%s\n", shareOf(sum, time.Since(r.began)), strings.Join(parts, ", "), r.kept())
}

// shareOf says how much of the machine spent is. In less than a second what it takes to begin is most of it: that is no share of anything.
func shareOf(spent, elapsed time.Duration) string {
	if elapsed < time.Second {
		return fmt.Sprintf("%.3f s of CPU time in %.1f s", spent.Seconds(), elapsed.Seconds())
	}
	cpus := runtime.NumCPU()
	return fmt.Sprintf("%.2f %% of %d CPUs for %.1f s", 100*spent.Seconds()/elapsed.Seconds()/float64(cpus), cpus, elapsed.Seconds())
}

func (r *recording) costs() spend.Costs {
	if r.keeper == nil {
		return spend.Costs{}
	}
	return r.keeper.Costs()
}

// kept says how the budget was kept.
func (r *recording) kept() string {
	if r.keeper == nil {
		return ""
	}
	s := r.keeper.State()
	return fmt.Sprintf("; above %s in %d of %d s", spend.FormatPercent(float64(r.o.maxOverhead)), s.Over, s.Windows)
}
