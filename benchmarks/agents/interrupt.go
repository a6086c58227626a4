package agents

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

const (
	interruptHz     = 9999
	interruptWindow = 200 * time.Millisecond
	interruptCPU    = 0
)

// InterruptTimes measures what a perf event's interrupt takes from its CPU, with a BPF program that does nothing, so many
// times: a thread that is bound to the CPU counts the turns of a loop while the event is on and off in turn. The values are
// nanoseconds; in noise they may be negative.
func InterruptTimes(pairs int) ([]float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	restore, err := pin(interruptCPU)
	if err != nil {
		return nil, err
	}
	defer restore()
	event, err := emptyEvent()
	if err != nil {
		return nil, err
	}
	list, err := interruptPairs(event.fd, pairs)
	return list, errors.Join(err, event.close())
}

func interruptPairs(fd, pairs int) (list []float64, err error) {
	turns() // warm
	before := turns()
	for range pairs {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			return nil, os.NewSyscallError("PERF_EVENT_IOC_ENABLE", err)
		}
		on := turns()
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
			return nil, os.NewSyscallError("PERF_EVENT_IOC_DISABLE", err)
		}
		after := turns()
		lost := 1 - 2*on/(before+after)
		list = append(list, lost*1e9/interruptHz)
		before = after
	}
	return list, nil
}

var sink uint64

// turns is how many turns of a loop a window has, a second of wall-clock time.
func turns() float64 {
	began := time.Now()
	n := 0
	x := sink
	for time.Since(began) < interruptWindow {
		for range 1000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		n++
	}
	sink = x
	return float64(n) / time.Since(began).Seconds()
}

// pin binds the calling thread to a CPU.
func pin(cpu int) (restore func(), err error) {
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, os.NewSyscallError("sched_setaffinity", err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &old) }, nil // the thread's own earlier set cannot be wrong
}

// event is a perf event with the program that it runs.
type event struct {
	fd   int
	prog *ebpf.Program
}

// emptyEvent opens cpu-clock on one CPU, disabled, with a program that returns at once.
func emptyEvent() (*event, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "nothing", Type: ebpf.PerfEvent, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load an empty BPF program: %w", err)
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: uint64(time.Second) / interruptHz, Bits: unix.PerfBitDisabled | unix.PerfBitExcludeIdle}
	fd, err := unix.PerfEventOpen(&attr, -1, interruptCPU, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("perf_event_open", err), prog.Close())
	}
	e := &event{fd, prog}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); err != nil {
		return nil, errors.Join(os.NewSyscallError("PERF_EVENT_IOC_SET_BPF", err), e.close())
	}
	return e, nil
}

func (e *event) close() error { return errors.Join(unix.Close(e.fd), e.prog.Close()) }
