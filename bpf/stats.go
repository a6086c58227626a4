package bpf

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

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
