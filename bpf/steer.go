package bpf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rates can be changed while samples are taken. Each sample has the weight that is right when it is taken, so that sums stay true.

// Bounds of SetRate, in samples a second and CPU.
const (
	MinRate = 0.01
	MaxRate = 10_000
)

// jitter is by which part a CPU's period may be longer or shorter than it should be: programs that do something in the rhythm of the
// samples would be seen there always or never.
const jitter = 0.05

// SetRate changes how many samples are taken a second and CPU. Each CPU gets a period of its own, up to 5 % longer or shorter, each
// time another one. With EventCycles it is rounded to whole numbers.
func (p *Probes) SetRate(hz float64) error {
	if !(hz >= MinRate && hz <= MaxRate) {
		return fmt.Errorf("%v samples a second are not in %v to %v", hz, MinRate, MaxRate)
	}
	p.steering.Lock()
	defer p.steering.Unlock()
	longest := p.longest
	p.longest = time.Duration((1 + jitter) / hz * float64(time.Second))
	p.settings.Changing = 1
	p.settings.Longest = uint64(longest + p.longest)
	if err := p.steer(); err != nil {
		return err
	}
	var failed error
	for _, e := range p.events {
		period := time.Duration((1 + jitter*(2*rand.Float64()-1)) / hz * float64(time.Second))
		if err := p.change(e, period); err != nil {
			failed = err
		}
	}
	p.settings.Changing = 0
	p.settings.Generation++
	if err := p.steer(); err != nil {
		return err
	}
	return failed
}

// change gives one CPU another period. The kernel begins with it anew at once (kernel/events/core.c: __perf_event_period).
func (p *Probes) change(e event, period time.Duration) error {
	value := uint64(period)
	if p.kind == EventCycles {
		value = min(uint64(max(1, (time.Second+period/2)/period)), maxSampleRate())
		period = time.Second / time.Duration(value)
	}
	if err := p.setPeriod(e.cpu, period); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(e.fd), unix.PERF_EVENT_IOC_PERIOD, uintptr(unsafe.Pointer(&value))); errno != 0 {
		return fmt.Errorf("change the rate of CPU %d: %w", e.cpu, errno)
	}
	return nil
}

// maxSampleRate is the most that the kernel allows of a frequency; it lowers that by itself where interrupts take long.
func maxSampleRate() uint64 {
	const unknown = MaxRate
	b, err := os.ReadFile("/proc/sys/kernel/perf_event_max_sample_rate")
	if err != nil {
		return unknown
	}
	hz, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil || hz == 0 {
		return unknown
	}
	return hz
}

// setPeriod says for how much time a tick of a CPU stands.
func (p *Probes) setPeriod(cpu int, period time.Duration) error {
	p.longest = max(p.longest, period)
	if err := p.objs.Periods.Put(uint32(cpu), uint64(period)); err != nil {
		return fmt.Errorf("tell BPF the rate of CPU %d: %w", cpu, err)
	}
	return nil
}

// slot is what SetLimit's budget is counted in.
const slot = 1 << 27 * time.Nanosecond

// SetLimit bounds the time that programs may take for samples, in each slot of 0.13 s, on all CPUs together; 0: no bound. Samples beyond
// are counted as throttled. A slot is exceeded by one sample of each CPU at most, but for those that begin it at the same moment.
func (p *feed) SetLimit(perSecond time.Duration) error {
	limit := uint64(0)
	if perSecond > 0 {
		limit = max(1, uint64(perSecond.Seconds()*float64(slot)))
	}
	p.steering.Lock()
	defer p.steering.Unlock()
	p.settings.Limit = limit
	return p.steer()
}

// SetKernelStacks says whether samples have kernel stacks.
func (p *Probes) SetKernelStacks(on bool) error {
	p.steering.Lock()
	defer p.steering.Unlock()
	p.settings.KernelStacks = 0
	if on {
		p.settings.KernelStacks = 1
	}
	return p.steer()
}

// SetInterval changes how many bytes lie between two samples, on average.
func (p *AllocProbes) SetInterval(bytes int64) error {
	if err := checkInterval(bytes); err != nil {
		return err
	}
	p.steering.Lock()
	defer p.steering.Unlock()
	p.settings.Interval = uint64(bytes)
	return p.steer()
}

func checkInterval(bytes int64) error {
	if bytes < 1 || bytes > MaxAllocInterval {
		return fmt.Errorf("%d bytes between two samples are not in 1 to %d", bytes, MaxAllocInterval)
	}
	return nil
}

// steer hands the settings to the programs.
func (p *feed) steer() error {
	if err := p.control.Put(uint32(0), &p.settings); err != nil {
		return fmt.Errorf("tell BPF its settings: %w", err)
	}
	return nil
}
