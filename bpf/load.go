package bpf

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// ErrNotSupported is wrapped by errors that say that the kernel lacks a feature.
var ErrNotSupported = ebpf.ErrNotSupported

// Event is what triggers a CPU sample.
type Event string

// Events. EventAuto is cycles where the hardware counts them, else cpu-clock.
const (
	EventAuto     Event = ""
	EventCPUClock Event = "cpu-clock"
	EventCycles   Event = "cycles"
)

// Options for Load. The zero value samples at 99 Hz with kernel stacks.
type Options struct {
	Frequency int   // samples per second and CPU; default 99
	Event     Event // default EventAuto
	NoKernel  bool  // leave kernel stacks out
	RingBytes int   // of the ring buffer: a power of two; default 1 MiB, from 64 KiB to 128 KiB a CPU where there are more than 16
	NoLoop    bool  // do without bpf_loop, as kernels before 5.17 must (for tests)
	// Discover makes each process that executes a program a target of which nothing is known, with a record that tells of it.
	// RemoveTarget or UpdateTarget is the answer. A child of a target is a target until it executes a program, without a record.
	Discover   bool
	MaxTargets int // at the same time; 4,096
}

// maxStrangers is how many files Ignore remembers: those used last.
const maxStrangers = 2048

// Probes are the loaded programs. Read belongs to one goroutine; SetTarget, Stats and Close may be called from others.
type Probes struct {
	feed
	objs   cpuObjects
	events []event
	kind   Event
}

// event is the perf event of a CPU.
type event struct{ fd, cpu int }

// Load loads the programs and attaches them to process events; sampling starts with Start.
// Errors name the capability or the kernel version that is missing.
func Load(o Options) (*Probes, error) {
	spec, err := loadCpu()
	if err != nil {
		return nil, fmt.Errorf("read embedded BPF programs: %w", err)
	}
	if o.Frequency <= 0 {
		o.Frequency = 99
	}
	if o.Event == EventAuto {
		o.Event = bestEvent(o.Frequency)
	}
	if err := configure(spec, o); err != nil {
		return nil, err
	}
	if err := configureCPU(spec, o); err != nil {
		return nil, err
	}
	if o.Discover {
		spec.Maps["strangers"].MaxEntries = maxStrangers
	}
	if o.MaxTargets > 0 {
		spec.Maps["targets"].MaxEntries = uint32(o.MaxTargets)
		spec.Maps["losses"].MaxEntries = uint32(o.MaxTargets)
		spec.Maps["throttled"].MaxEntries = uint32(o.MaxTargets)
	}
	spec.Maps["periods"].MaxEntries = spec.Maps["scratches"].MaxEntries
	p := &Probes{kind: o.Event}
	if err := loadSpec(spec, &p.objs); err != nil {
		return nil, err
	}
	p.feed.wire = func(t *Target) any { w := t.wire(); return &w }
	p.feed.maps = maps{targets: p.objs.Targets, losses: p.objs.Losses, throttled: p.objs.Throttled, counters: p.objs.Counters,
		control: p.objs.Control, samples: p.objs.Samples, strangers: p.objs.Strangers}
	if err := p.SetKernelStacks(!o.NoKernel); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.follow(p.objs.ProcessExec, p.objs.ProcessExit); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if o.Discover {
		if err := p.attach("sched_process_fork", p.objs.ProcessFork); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	if err := p.openEvents(o); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// loadSpec loads programs into objs.
func loadSpec(spec *ebpf.CollectionSpec, objs any) error {
	opts := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernelTypes(spec)}}
	if err := spec.LoadAndAssign(objs, &opts); err != nil {
		if lacks := lacking(Features()); lacks != nil {
			err = lacks // the verifier's own words for an unknown helper may be those for a missing right
		}
		return explain("load BPF programs", err)
	}
	return nil
}

// configure sets what the objects have in common.
func configure(spec *ebpf.CollectionSpec, o Options) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	spec.Maps["scratches"].MaxEntries = uint32(cpus)
	online, err := onlineCPUs()
	if err != nil {
		return err
	}
	if o.RingBytes == 0 {
		o.RingBytes = ringBytes(len(online))
	}
	spec.Maps["samples"].MaxEntries = uint32(o.RingBytes)
	vars := map[string]any{
		"have_loop":    uint32(1),
		"wakeup_bytes": uint32(wakeupBytes(o.RingBytes, len(online), o.Frequency)),
	}
	if o.NoLoop || errors.Is(features.HaveProgramHelper(ebpf.PerfEvent, asm.FnLoop), ebpf.ErrNotSupported) {
		vars["have_loop"] = uint32(0)
	}
	if dev, ino, ok := ownPIDNamespace(); ok {
		vars["pidns_dev"], vars["pidns_ino"] = dev, ino
	}
	return setVariables(spec, vars)
}

func configureCPU(spec *ebpf.CollectionSpec, o Options) error {
	vars := map[string]any{}
	if o.Event == EventCycles {
		vars["clocked"] = uint32(0)
	}
	if o.Discover {
		vars["discover"] = uint32(1)
	}
	return setVariables(spec, vars)
}

func setVariables(spec *ebpf.CollectionSpec, vars map[string]any) error {
	for name, v := range vars {
		if err := spec.Variables[name].Set(v); err != nil {
			return fmt.Errorf("set BPF constant %s: %w", name, err)
		}
	}
	return nil
}

// initialPIDNS is PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h.
const initialPIDNS = 0xEFFFFFFC

// ownPIDNamespace names our PID namespace, if it is not the initial one.
func ownPIDNamespace() (dev, ino uint64, ok bool) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil || st.Ino == initialPIDNS {
		return 0, 0, false
	}
	return st.Dev, st.Ino, true
}

// openEvents opens a perf event on every CPU that is online, disabled.
func (p *Probes) openEvents(o Options) error {
	cpus, err := onlineCPUs()
	if err != nil {
		return err
	}
	for _, cpu := range cpus {
		fd, err := openEvent(p.kind, o.Frequency, cpu)
		if errors.Is(err, unix.ENODEV) {
			continue // went offline
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("open perf event %s on CPU %d: %w: this machine does not count it (a virtual machine?); use %s",
				p.kind, cpu, err, EventCPUClock)
		}
		if err != nil {
			return explain(fmt.Sprintf("open perf event %s on CPU %d", p.kind, cpu), err)
		}
		p.events = append(p.events, event{fd, cpu})
		if err := p.setPeriod(cpu, time.Second/time.Duration(o.Frequency)); err != nil {
			return err
		}
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.objs.CpuSample.FD()); err != nil {
			return explain("attach BPF program to perf event", err)
		}
	}
	return nil
}

// bestEvent is cycles where the hardware counts them.
func bestEvent(hz int) Event {
	fd, err := openEvent(EventCycles, hz, 0)
	if err != nil {
		return EventCPUClock
	}
	if unix.Close(fd) != nil {
		return EventCPUClock
	}
	return EventCycles
}

func openEvent(e Event, hz, cpu int) (int, error) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: uint64(time.Second) / uint64(hz), Bits: unix.PerfBitDisabled} // idle CPUs as well: see weigh in cpu.bpf.c
	if e == EventCycles {
		attr.Type, attr.Config = unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES
		attr.Sample, attr.Bits = uint64(hz), unix.PerfBitDisabled|unix.PerfBitFreq
	}
	return unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
}

// Start enables the perf events.
func (p *Probes) Start() error { return p.eachEvent("enable", unix.PERF_EVENT_IOC_ENABLE) }

// Stop disables the perf events; what was sampled can still be read.
func (p *Probes) Stop() error { return p.eachEvent("disable", unix.PERF_EVENT_IOC_DISABLE) }

func (p *Probes) eachEvent(what string, req uint) error {
	for _, e := range p.events {
		if err := unix.IoctlSetInt(e.fd, req, 0); err != nil {
			return fmt.Errorf("%s perf event of CPU %d: %w", what, e.cpu, err)
		}
	}
	return nil
}

// Event says what triggers the samples.
func (p *Probes) Event() Event { return p.kind }

// Close detaches and frees everything. Read returns os.ErrClosed from then on.
func (p *Probes) Close() error {
	p.steering.Lock()
	defer p.steering.Unlock()
	var errs []error
	for _, e := range p.events {
		errs = append(errs, unix.Close(e.fd))
	}
	p.events = nil
	return errors.Join(append(errs, p.feed.close(), p.objs.Close())...)
}

// explain adds to an error of the kernel what the user can do about it.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES) && os.Geteuid() != 0:
		// cilium/ebpf adds advice on RLIMIT_MEMLOCK, which does not apply since Linux 5.11: only the cause is kept.
		return fmt.Errorf("%s: %w: pprofd needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE "+
			"(with kernel.perf_event_paranoid above 2 on Debian and Ubuntu: CAP_SYS_ADMIN); see pprofd doctor", what, os.ErrPermission)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%s: %w; Linux 5.15 or newer with BTF (CONFIG_DEBUG_INFO_BTF) is needed on %s; see pprofd doctor",
			what, err, runtime.GOARCH)
	}
	return fmt.Errorf("%s: %w", what, err)
}
