package main

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/pprofd/pprofd/internal/governor"
)

// machine is what sampling costs somewhere.
type machine struct {
	name   string
	tick   float64 // s, of an interrupt for a sample, on each CPU, idle or not
	sample float64 // s, of a sample's stack, in BPF; user space takes half as much again
}

// machines: the virtual one is as this project's are (benchmarks/results); without a hypervisor interrupts are far cheaper. Deep
// are stacks of a thousand frames.
func machines() []machine {
	return []machine{{"physical", 2e-6, 6e-6}, {"virtual", 19e-6, 6e-6}, {"deep", 2e-6, 60e-6}}
}

// Costs of all modelled machines, as measured in benchmarks/results.
const (
	userPerBPF   = 1.5    // s, of counting and completing a sample
	throttleBPF  = 0.3e-6 // s, of one that the token bucket drops
	windowUser   = 4e-3   // s, of naming addresses and writing profiles, a window
	readingUser  = 1.2e-3 // s, of reading a heap profile
	hitCost      = 2.3e-6 // s, of a trap
	allocBPF     = 3e-6   // s
	allocUser    = 6e-6   // s
	allocBudget  = 0.007  // of a CPU, that probes in one process may cost it; busy ones need all of it
	baseUser     = 6e-4   // s a second: timers, metrics
	scanUser     = 4e-3   // s: a look at all processes
	scanInterval = 30.0   // s
	late         = 0.1    // of a window's user time that the next one has to do

	slot = float64(1<<27) / 1e9 // s, of the token bucket
)

// usual are the kinds that the agent has by default, with a ceiling that leaves the governor something to do.
func usual() []governor.Kind {
	return []governor.Kind{
		{Name: "cpu", Share: 3, Floor: 1, Ceiling: maxHz, Start: 19, Unit: "Hz"},
		{Name: "memory", Share: 1, Floor: 1. / 1800, Ceiling: 1. / 60, Start: 1. / 60, Unit: "/s"},
	}
}

// all has the allocations, too.
func all() []governor.Kind {
	return append(usual(), governor.Kind{Name: "allocs", Share: 1, Floor: 0.02, Ceiling: 1, Start: 0.02, Unit: "of allocs.budget", Event: true})
}

const maxHz = 999

// host is a machine that does what a trace says, and is profiled.
type host struct {
	*trace
	machine
	rng     *rand.Rand
	targets float64 // share of the load that is profiled
	procs   float64 // processes that are profiled
	scanned float64 // when
	owed    map[string]float64
}

// newHost makes one; the same seed makes the same host.
func newHost(tr *trace, m machine, seed uint64) *host {
	return &host{trace: tr, machine: m, rng: rand.New(rand.NewPCG(seed, 1)), targets: 0.9, procs: 2 * tr.cpus, scanned: -seedPhase(seed), owed: map[string]float64{}}
}

func seedPhase(seed uint64) float64 { return float64(seed % uint64(scanInterval)) }

// window plays the trace for a window from t on with the settings of d, and says what it cost.
func (h *host) window(t, length float64, d *governor.Decision) governor.Observation {
	o := governor.Observation{Window: seconds(length), CPUs: h.cpus, Base: seconds(h.base(t, length))}
	waited := 0.0
	for s := t; s < t+length; s++ {
		waited += h.at(s).load
	}
	o.Load = waited / length
	for i := range d.Kinds {
		s := &d.Kinds[i]
		if s.Off {
			continue
		}
		switch s.Name {
		case "cpu":
			o.Kinds = append(o.Kinds, h.cpu(t, length, s, d.NoKernel))
		case "memory":
			o.Kinds = append(o.Kinds, h.memory(length, s))
		case "allocs":
			o.Kinds = append(o.Kinds, h.allocs(t, length, s))
		}
	}
	return o
}

// base is what the agent needs whatever it profiles.
func (h *host) base(t, length float64) float64 {
	sum := baseUser * length * h.noise(0.3)
	for ; h.scanned+scanInterval <= t+length; h.scanned += scanInterval {
		sum += scanUser * math.Sqrt(h.cpus/16) * h.noise(0.3)
	}
	return sum
}

// cpu samples CPU time.
func (h *host) cpu(t, length float64, s *governor.Setting, noKernel bool) governor.Spent {
	bpf, user := h.sample*h.noise(0.1), h.sample*userPerBPF*h.noise(0.1)
	if noKernel {
		bpf *= 0.7
	}
	spent := h.sampled(t, length, s, sampling{rate: s.Rate * h.targets, bpf: bpf})
	ticks := seconds(h.tick * s.Rate * h.cpus * length)
	spent.Ticks, spent.TicksAll = ticks, ticks
	recorded := float64(spent.Events - spent.Throttled)
	spent.User = h.user("cpu", windowUser*h.noise(0.2)+recorded*user)
	return spent
}

// allocs samples allocations: probes are there for a part of the time, as much as the rate's part of a budget allows.
func (h *host) allocs(t, length float64, s *governor.Setting) governor.Spent {
	bpf := allocBPF * h.noise(0.1)
	perCPU := h.procs / h.cpus * h.targets * allocBudget * s.Rate / (hitCost + bpf*s.Keep) // hits a second
	spent := h.sampled(t, length, s, sampling{rate: perCPU, bpf: bpf, keep: s.Keep})
	spent.Hits = seconds(hitCost * float64(spent.Events))
	spent.HitsAll = seconds(h.procs * allocBudget * s.Rate * length)
	kept := float64(spent.Events-spent.Throttled) * s.Keep
	spent.User = h.user("allocs", kept*allocUser)
	return spent
}

// sampling is a kind of event whose samples the token bucket may drop.
type sampling struct {
	rate float64 // events a second and busy CPU
	bpf  float64 // s a sample
	keep float64 // 0: 1
}

// sampled plays events and token bucket, slot by slot.
func (h *host) sampled(t, length float64, s *governor.Setting, of sampling) governor.Spent {
	spent := governor.Spent{Name: s.Name, Rate: s.Rate}
	allowed, run := s.Limit.Seconds()*slot, 0.0
	if of.keep == 0 {
		of.keep = 1
	}
	for begin := t; begin < t+length; begin += slot {
		n := h.poisson(of.rate * h.at(begin).busy * min(slot, t+length-begin))
		recorded := min(n, math.Ceil(allowed/(of.bpf*of.keep))) // the one that exceeds it is done before that is seen
		run += recorded*of.bpf*of.keep + (n-recorded)*throttleBPF
		spent.Events += uint64(n)
		spent.Throttled += uint64(n - recorded)
	}
	spent.BPF = seconds(run)
	return spent
}

// memory reads heap profiles.
func (h *host) memory(length float64, s *governor.Setting) governor.Spent {
	n := h.poisson(s.Rate * h.procs * length)
	return governor.Spent{Name: s.Name, Rate: s.Rate, Events: uint64(n), User: seconds(n * readingUser * h.noise(0.2))}
}

// user is what a kind does of its work now; the rest it does in the next window.
func (h *host) user(kind string, work float64) time.Duration {
	now := work*(1-late) + h.owed[kind]
	h.owed[kind] = work * late
	return seconds(now)
}

// noise is a factor around 1.
func (h *host) noise(by float64) float64 { return 1 + by*(2*h.rng.Float64()-1) }

// poisson is how many of independent events there are where mean is usual.
func (h *host) poisson(mean float64) float64 {
	if mean > 50 {
		return max(0, math.Round(mean+math.Sqrt(mean)*h.rng.NormFloat64()))
	}
	n := 0.0
	for p := h.rng.Float64(); p > math.Exp(-mean); p *= h.rng.Float64() {
		n++
	}
	return n
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
