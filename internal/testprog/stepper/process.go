//go:build linux && (amd64 || arm64)

package stepper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quiet makes the Go runtime of the program do nothing by itself.
var quiet = [...]string{"GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=1", "GOGC=off"}

// process is a program under ptrace. All methods must be called from the thread that started it.
type process struct {
	pid int
	tid int // the thread that reached the marker
}

func start(path string, o *Options) (*process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	env := append(append(os.Environ(), quiet[:]...), o.Env...)
	pid, err := syscall.ForkExec(path, append([]string{path}, o.Args...), &syscall.ProcAttr{
		Env: env, Files: []uintptr{null.Fd(), null.Fd(), 2}, Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return nil, err
	}
	p := &process{pid: pid, tid: pid}
	if _, err := p.wait(); err != nil { // the trap after exec
		p.kill()
		return nil, err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// pin keeps the calling thread, and the program that it starts next, on one CPU: a step is then a switch between two
// threads instead of a wake-up of another CPU, three times as fast. The function undoes it.
func pin() func() {
	var before, one unix.CPUSet
	if unix.SchedGetaffinity(0, &before) != nil {
		return func() {}
	}
	var cpu uint32
	if _, _, errno := unix.Syscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return func() {}
	}
	one.Set(int(cpu))
	if unix.SchedSetaffinity(0, &one) != nil {
		return func() {}
	}
	return func() { _ = unix.SchedSetaffinity(0, &before) }
}

// wait waits until any thread of this process stops. It never waits for one alone, for a leader's end is reported only
// after those of the others. Children of other threads of ours, which other tests may have, are not touched.
func (p *process) wait() (tid int, err error) {
	for {
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case ws.Stopped():
			return tid, stopError(ws)
		case tid == p.pid || tid == p.tid:
			return 0, fmt.Errorf("thread %d ended: exit status %d, signal %v", tid, ws.ExitStatus(), ws.Signal())
		}
	}
}

// signalError is a thread that stopped with a signal of its own, instead of a trap.
type signalError struct{ sig unix.Signal }

func (e *signalError) Error() string { return fmt.Sprintf("stopped by signal %v", e.sig) }

func stopError(ws unix.WaitStatus) error {
	switch sig := ws.StopSignal(); sig {
	case unix.SIGTRAP, unix.SIGSTOP:
		return nil
	default:
		return &signalError{sig}
	}
}

// runTo lets all threads run until one of them is at addr; that one is traced from then on.
func (p *process) runTo(addr uint64) error {
	original := make([]byte, len(trap))
	if _, err := unix.PtracePeekText(p.pid, uintptr(addr), original); err != nil {
		return err
	}
	if _, err := unix.PtracePokeText(p.pid, uintptr(addr), trap); err != nil {
		return err
	}
	for tid, deliver := p.pid, 0; ; {
		if err := unix.PtraceCont(tid, deliver); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		var err error
		tid, err = p.wait()
		var sig *signalError
		deliver = 0
		if errors.As(err, &sig) {
			deliver = int(sig.sig)
			continue
		} else if err != nil {
			return err
		}
		var regs Regs
		if err := getRegs(tid, &regs); err != nil || regs.PC != addr+stopsAfter {
			continue
		}
		p.tid = tid
		if _, err := unix.PtracePokeText(tid, uintptr(addr), original); err != nil {
			return err
		}
		return setPC(tid, addr)
	}
}

// execute executes one instruction, or the whole of a sequence that cannot be stepped through.
func (p *process) execute(in instruction, r *Regs) error {
	if in.skip != 0 {
		return p.jump(in.skip, r)
	}
	return p.step(r)
}

// jump lets the traced thread run to addr, by itself.
func (p *process) jump(addr uint64, r *Regs) error {
	original := make([]byte, len(trap))
	if _, err := unix.PtracePeekText(p.tid, uintptr(addr), original); err != nil {
		return err
	}
	if _, err := unix.PtracePokeText(p.tid, uintptr(addr), trap); err != nil {
		return err
	}
	for {
		if err := unix.PtraceCont(p.tid, 0); err != nil {
			return err
		}
		tid, err := p.wait()
		var sig *signalError
		if err != nil && !errors.As(err, &sig) {
			return err
		}
		if err := p.regs(r); err == nil && tid == p.tid && r.PC == addr+stopsAfter {
			break
		}
	}
	if _, err := unix.PtracePokeText(p.tid, uintptr(addr), original); err != nil {
		return err
	}
	r.PC = addr
	return setPC(p.tid, addr)
}

// freeze stops all threads but the traced one. They are never continued.
func (p *process) freeze() error {
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.pid), "task"))
	if err != nil {
		return err
	}
	running := map[int]bool{}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err == nil && tid != p.tid && unix.Tgkill(p.pid, tid, unix.SIGSTOP) == nil {
			running[tid] = true
		}
	}
	for len(running) > 0 {
		tid, err := p.wait()
		var sig *signalError
		if err != nil && !errors.As(err, &sig) {
			return err
		}
		delete(running, tid)
	}
	return nil
}

// step executes one instruction. Signals to the program are swallowed: the runtime's own timers and the tracer's.
func (p *process) step(r *Regs) error {
	if err := unix.PtraceSingleStep(p.tid); err != nil {
		return err
	}
	tid, err := p.wait()
	for err == nil && tid != p.tid { // a new thread stays stopped
		tid, err = p.wait()
	}
	var sig *signalError
	if errors.As(err, &sig) && (sig.sig == unix.SIGURG || sig.sig == unix.SIGWINCH) {
		return p.step(r)
	}
	if err != nil {
		return err
	}
	return p.regs(r)
}

func (p *process) regs(r *Regs) error { return getRegs(p.tid, r) }

// ReadAt reads memory at an address, without stopping anything.
func (p *process) ReadAt(b []byte, addr int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(p.pid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	if err == nil && n < len(b) {
		err = fmt.Errorf("memory at %#x: %d of %d bytes", addr, n, len(b))
	}
	return max(n, 0), err
}

// word reads 8 bytes; 0 where nothing can be read, which no caller takes for an address.
func (p *process) word(addr uint64) uint64 {
	var b [8]byte
	if _, err := p.ReadAt(b[:], int64(addr)); err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

// kill ends the program and reaps it.
func (p *process) kill() {
	unix.Kill(p.pid, unix.SIGKILL)
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		if err != nil && !errors.Is(err, unix.EINTR) || pid == p.pid && (ws.Exited() || ws.Signaled()) {
			return
		}
	}
}
