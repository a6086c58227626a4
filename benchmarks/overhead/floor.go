package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// floors are BPF programs that do a part of what a sample needs, by the kernel's own means, and nothing else: less than that no
// profiler can take on the same machine. At 99 Hz a service has pushed all of it out of the CPU's caches between two samples.
var floors = []struct {
	name, text string
	stacks     []int32 // flags of bpf_get_stack
}{
	{"nothing", "looks whose process it is, and counts", nil},
	{"user", "and bpf_get_stack, user stack by frame pointers", []int32{userStack}},
	{"kernel", "and bpf_get_stack, kernel stack", []int32{0}},
	{"both", "and both", []int32{userStack, 0}},
}

const (
	userStack  = 1 << 8 // BPF_F_USER_STACK, include/uapi/linux/bpf.h
	floorHz    = 99
	stackBytes = 127 * 8 // as many frames as perf and bpftrace take
	noKernel   = "pprofd-no-kernel"
)

// floor measures what the programs of floors take for a sample of the service, and pprofd's without kernel stacks.
func (b *bench) floor(ctx context.Context) error {
	f, err := b.startFleet(load{processes: 1, binaries: 1})
	if err != nil {
		return err
	}
	defer f.stop()
	for _, l := range floors {
		if err := b.floorOf(ctx, l.name, l.stacks, f[0].PID()); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	a := agents.All()[0]
	command := a.Command
	a.Command = func(ctx context.Context, h *agents.Harness, o agents.Sampling) *exec.Cmd {
		cmd := command(ctx, h, o)
		cmd.Args = append(cmd.Args, "--no-kernel")
		return cmd
	}
	u, err := b.useOf(ctx, a, f.sampling(floorHz, b.use))
	if err == nil && u.samples > 0 {
		b.addFloor(noKernel, u.samples, u.bpf)
	}
	return err
}

func floorName(program string) string { return "Floor/program=" + program }

func (b *bench) addFloor(name string, samples int, took time.Duration) {
	b.report.Add(floorName(name), samples, board.Value{V: float64(took.Nanoseconds()) / float64(samples), Unit: "BPF-ns/sample"})
}

func (b *bench) floorOf(ctx context.Context, name string, stacks []int32, pid int) (err error) {
	p, err := newPartial(pid, stacks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.attach(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.use):
	}
	samples, took, err := p.read()
	if err != nil || samples == 0 {
		return errors.Join(err, fmt.Errorf("%d samples", samples))
	}
	b.addFloor(name, samples, took)
	return nil
}

// partial is a program that does a part of what a sample needs.
type partial struct {
	hits, buffer *ebpf.Map
	prog         *ebpf.Program
	events       []int
}

func newPartial(pid int, stacks []int32) (p *partial, err error) {
	p = &partial{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.hits, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return p, err
	}
	if p.buffer, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: stackBytes, MaxEntries: 1}); err != nil {
		return p, err
	}
	p.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "partial", Type: ebpf.PerfEvent, License: "GPL", Instructions: p.instructions(pid, stacks)})
	return p, err
}

// instructions return at once in other processes.
func (p *partial) instructions(pid int, stacks []int32) asm.Instructions {
	const out = "out"
	list := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.JNE.Imm(asm.R0, int32(pid), out),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
	}
	element := func(m *ebpf.Map) asm.Instructions {
		return asm.Instructions{
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, out),
		}
	}
	list = append(list, element(p.hits)...)
	list = append(list, asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord))
	for _, flags := range stacks {
		list = append(list, element(p.buffer)...)
		list = append(list, asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Reg(asm.R2, asm.R0), asm.Mov.Imm(asm.R3, stackBytes),
			asm.Mov.Imm(asm.R4, flags), asm.FnGetStack.Call())
	}
	return append(list, asm.Mov.Imm(asm.R0, 0).WithSymbol(out), asm.Return())
}

// attach samples all CPUs, as pprofd does.
func (p *partial) attach() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: uint64(time.Second) / floorHz, Bits: unix.PerfBitExcludeIdle}
	for cpu := range runtime.NumCPU() {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("perf_event_open", err)
		}
		p.events = append(p.events, fd)
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.prog.FD()); err != nil {
			return os.NewSyscallError("PERF_EVENT_IOC_SET_BPF", err)
		}
	}
	return nil
}

// read is how often it hit the process, and what all of its runs took.
func (p *partial) read() (samples int, took time.Duration, err error) {
	var hits []uint64
	err = p.hits.Lookup(uint32(0), &hits)
	stats, errStats := p.prog.Stats()
	if err := errors.Join(err, errStats); err != nil {
		return 0, 0, err
	}
	for _, n := range hits {
		samples += int(n)
	}
	return samples, stats.Runtime, nil
}

func (p *partial) close() error {
	var errs []error
	for _, fd := range p.events {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(append(errs, p.prog.Close(), p.hits.Close(), p.buffer.Close())...)
}

// floorTable says what no profiler can go below.
func (b *bench) floorTable() {
	if _, ok := b.report.Median(floorName(floors[0].name), "BPF-ns/sample"); !ok {
		return
	}
	b.report.Printf("\n# BPF time of a sample of the service at %d Hz, µs, for parts of it alone\n", floorHz)
	line := func(name, text string) {
		if v, ok := b.report.Median(floorName(name), "BPF-ns/sample"); ok {
			b.report.Printf("# %6.2f  %s\n", v/1e3, text)
		}
	}
	for _, l := range floors {
		line(l.name, l.text)
	}
	line(noKernel, "all of pprofd's but the kernel stack")
}
