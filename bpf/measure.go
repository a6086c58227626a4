package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// What the kernel takes for a tick or a hit before and behind a program differs by machine: a timer interrupt costs 1 µs where the
// hardware takes it, 20 in a virtual machine. No counter tells, so it is tried.

const (
	rounds     = 24
	tickPeriod = 250 * time.Microsecond
	roundTime  = 2 * time.Millisecond
	trapCalls  = 200
)

// MeasureTick measures what an empty sample costs, on average, on this machine: the same work is done with and without a perf event on
// this thread, in turns, by the thread's own clock. It takes 0.1 s of CPU time.
func MeasureTick() (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	prog, err := emptyProgram(ebpf.PerfEvent)
	if err != nil {
		return 0, err
	}
	defer prog.Close()
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: uint64(tickPeriod), Bits: unix.PerfBitDisabled}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return 0, explain("open a perf event on this thread", err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); err != nil {
		return 0, explain("attach a BPF program to a perf event", err)
	}
	turn := func(req uint) error { return os.NewSyscallError("ioctl", unix.IoctlSetInt(fd, req, 0)) }
	n := spinsFor(roundTime)
	costs := make([]time.Duration, 0, rounds)
	for range rounds {
		without := threadTimeOf(func() { spin(n) })
		if err := turn(unix.PERF_EVENT_IOC_ENABLE); err != nil {
			return 0, err
		}
		with := threadTimeOf(func() { spin(n) })
		if err := turn(unix.PERF_EVENT_IOC_DISABLE); err != nil {
			return 0, err
		}
		costs = append(costs, time.Duration(float64(with-without)/float64(with)*float64(tickPeriod)))
	}
	return median(costs), nil
}

// MeasureTrap measures what a hit of a probe costs that does nothing, on this machine: it probes a function of this process.
func MeasureTrap() (_ time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	prog, err := emptyProgram(ebpf.Kprobe)
	if err != nil {
		return 0, err
	}
	defer prog.Close()
	offset, err := ownOffset(trapAddr())
	if err != nil {
		return 0, err
	}
	exe, err := link.OpenExecutable("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("probe this process: %w", err)
	}
	before := timeCalls()
	l, err := exe.Uprobe("", prog, &link.UprobeOptions{Address: offset, PID: os.Getpid()})
	if err != nil {
		return 0, explain("probe this process", err)
	}
	with := timeCalls()
	return max(0, with-before), l.Close()
}

// timeCalls is what a call of trap takes.
func timeCalls() time.Duration {
	all := make([]time.Duration, 0, rounds)
	for range rounds {
		all = append(all, threadTimeOf(func() {
			for range trapCalls {
				trap()
			}
		})/trapCalls)
	}
	return median(all)
}

// trap does nothing; its first instruction is one that kernels emulate at a probe, as those are at which allocations are seen.
func trap()

// trapAddr is where trap begins.
func trapAddr() uint64

// ownOffset is where code of this process lies in its executable.
func ownOffset(addr uint64) (uint64, error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, fmt.Errorf("find own code: %w", err)
	}
	defer f.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("find own code: %w", err)
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to, offset uint64
		n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %x", &from, &to, new(string), &offset)
		if n == 4 && addr >= from && addr < to && strings.HasSuffix(lines.Text(), exe) {
			return addr - from + offset, nil
		}
	}
	return 0, errors.New("find own code: it is not where the executable is mapped")
}

// emptyProgram does nothing.
func emptyProgram(t ebpf.ProgramType) (*ebpf.Program, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: t, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return nil, explain("load an empty BPF program", err)
	}
	return prog, nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return max(0, d[len(d)/2])
}

// threadTimeOf is the CPU time of this thread that f takes.
func threadTimeOf(f func()) time.Duration {
	began := threadTime()
	f()
	return threadTime() - began
}

func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// spinsFor is how often spin goes around in a time, at least once.
func spinsFor(d time.Duration) int {
	n := 1 << 10
	for {
		if took := threadTimeOf(func() { spin(n) }); took > d/4 {
			return max(1, int(float64(n)*float64(d)/float64(took)))
		}
		n *= 2
	}
}

var spun uint64 // keeps the compiler from removing the work

//go:noinline
func spin(n int) {
	x := spun
	for i := range n {
		x ^= x<<13 ^ uint64(i)
	}
	spun = x
}
