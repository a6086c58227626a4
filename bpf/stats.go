package bpf

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Stats counts since Load.
type Stats struct {
	Recorded   uint64 // samples put into the ring buffer
	LostRing   uint64 // samples that found it full
	StalePID   uint64 // hits on a process that took over the PID of a target
	LostEvents uint64 // exec and exit events that found it full
	NoRoom     uint64 // processes that found the map of targets full; with Options.Discover
	CutDepth   uint64 // stacks that were cut
	BadSpans   uint64 // hits at which the runtime's memory was not as expected

	Ticks     uint64 // perf interrupts on all CPUs, whoever ran and where nobody did
	Hits      uint64 // of probes in the targets' code
	Throttled uint64 // samples that SetLimit has kept from being recorded

	// RunTime is what the programs took as they measure it: those that take samples, from the first instruction in a target to the
	// last, and those that follow processes. What a tick in no target takes is part of what MeasureTick measures.
	RunTime RunTime
}

// RunTime is by what the programs are for.
type RunTime struct{ Samples, Exec, Exit, Fork time.Duration }

// All is the sum.
func (r RunTime) All() time.Duration { return r.Samples + r.Exec + r.Exit + r.Fork }

// Stats reads the programs' counters.
func (p *feed) Stats() (Stats, error) {
	var perCPU []cpuCpuCounts
	if err := p.counters.Lookup(uint32(0), &perCPU); err != nil {
		return Stats{}, fmt.Errorf("read BPF counters: %w", err)
	}
	var n [cpuCounterCOUNT_MAX]uint64
	for i := range perCPU {
		for c, v := range perCPU[i].N {
			n[c] += v
		}
	}
	return Stats{
		Recorded: n[cpuCounterCOUNT_RECORDED], LostRing: n[cpuCounterCOUNT_LOST_RING], StalePID: n[cpuCounterCOUNT_STALE_PID],
		LostEvents: n[cpuCounterCOUNT_EVENT_LOST], NoRoom: n[cpuCounterCOUNT_NO_ROOM], CutDepth: n[cpuCounterCOUNT_CUT_DEPTH],
		BadSpans: n[cpuCounterCOUNT_BAD_SPAN], Ticks: n[cpuCounterCOUNT_TICKS], Hits: n[cpuCounterCOUNT_HITS],
		Throttled: n[cpuCounterCOUNT_THROTTLED],
		RunTime: RunTime{
			Samples: time.Duration(n[cpuCounterTIME_SAMPLES]), Exec: time.Duration(n[cpuCounterTIME_EXEC]),
			Exit: time.Duration(n[cpuCounterTIME_EXIT]), Fork: time.Duration(n[cpuCounterTIME_FORK]),
		},
	}, nil
}

// Program is one of the loaded programs and what the kernel knows of it.
type Program struct {
	Name                 string
	ID                   uint32 // as bpftool prog show has it
	VerifiedInstructions uint32 // that the verifier walked to accept it; 0 before Linux 5.16

	// Runs and Runtime count while statistics are on, for runs that take no sample, too; else they stand still.
	Runs    uint64
	Runtime time.Duration
}

// EnableStats makes the kernel count the runs and the time of all BPF programs of the host until Close. That costs each
// run some 20 ns. It needs CAP_SYS_ADMIN, and Linux 5.8.
func EnableStats() (io.Closer, error) {
	c, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return nil, explain("enable BPF statistics", err)
	}
	return c, nil
}

// Programs tells about the loaded programs: the one that takes samples first.
func (p *Probes) Programs() ([]Program, error) {
	var all []Program
	var errs []error
	for _, prog := range []*ebpf.Program{p.objs.CpuSample, p.objs.ProcessExec, p.objs.ProcessExit} {
		d, err := describe(prog)
		all, errs = append(all, d), append(errs, err)
	}
	return all, errors.Join(errs...)
}

func describe(prog *ebpf.Program) (d Program, err error) {
	info, err := prog.Info()
	if err != nil {
		return d, fmt.Errorf("describe BPF program: %w", err)
	}
	s, err := prog.Stats()
	if err != nil {
		return d, fmt.Errorf("read statistics of BPF program %s: %w", info.Name, err)
	}
	id, _ := info.ID()
	d = Program{Name: info.Name, ID: uint32(id), Runs: s.RunCount, Runtime: s.Runtime}
	d.VerifiedInstructions, _ = info.VerifiedInstructions()
	return d, nil
}

// Use is what the programs' maps hold.
type Use struct {
	Targets, Losses int    // entries
	Bytes           uint64 // memory of all maps, as /proc/PID/fdinfo has it ("memlock")
}

// Use counts the entries one by one: a system call each.
func (p *Probes) Use() (u Use, err error) {
	if u.Targets, err = entries(p.objs.Targets, new(cpuTarget)); err != nil {
		return u, err
	}
	if u.Losses, err = entries(p.objs.Losses, new(cpuLoss)); err != nil {
		return u, err
	}
	for _, m := range []*ebpf.Map{p.objs.Targets, p.objs.Samples, p.objs.Counters, p.objs.Losses, p.objs.Scratches} {
		info, err := m.Info()
		if err != nil {
			return u, fmt.Errorf("describe BPF map: %w", err)
		}
		n, _ := info.Memlock()
		u.Bytes += n
	}
	return u, nil
}

func entries(m *ebpf.Map, value any) (n int, err error) {
	var key uint32
	it := m.Iterate()
	for it.Next(&key, value) {
		n++
	}
	if err := it.Err(); err != nil {
		return 0, fmt.Errorf("count the entries of %s: %w", m, err)
	}
	return n, nil
}
