package profiler

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
)

// opener opens processes, and says in one place, for all that is made of them, why one cannot be profiled.
type opener struct {
	root   string // "/proc"
	procs  procfs.FS
	images *objfile.Images
}

func newOpener(root string) opener {
	return opener{root: root, procs: procfs.New(root), images: objfile.NewImages()}
}

// process is one process of its opener. Its start time tells it from another with the same PID.
type process struct {
	pid    uint32
	start  uint64 // clock ticks since boot; 0: not known before its first exec
	comm   string
	space  *objfile.Space // nil before its first exec
	waited time.Duration  // for exec, see execPatience
	stat   *procfs.Stat   // as it was found, until its space is opened

	mem goruntime.Memory // how its memory is read; nil: as its space does
}

// find returns the process with this PID, without its space.
func (o *opener) find(pid int) (process, error) {
	stat, err := o.procs.Proc(pid).Stat()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return process{}, fmt.Errorf("process %d: %w (is it in another PID namespace?)", pid, os.ErrNotExist)
	case err != nil:
		return process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return process{pid: uint32(pid), start: stat.StartTime, comm: stat.Comm, stat: &stat}, nil
}

// open finds a Go program and reads its address space, which the caller closes. Errors name the process and wrap
// os.ErrNotExist, os.ErrPermission or objfile.ErrNotGo; or say what of its files could not be read, and wrap what is the
// reason (objfile.ErrTooCostly, objfile.ErrTooManyFiles).
func (o *opener) open(pid int) (process, error) {
	p, err := o.find(pid)
	if err != nil {
		return process{}, err
	}
	if err := o.openSpace(&p); err != nil {
		return process{}, err
	}
	if p.space.Main() == nil {
		err := o.notGo(&p)
		if !p.current() || !o.hasMemory(&p) { // what was read of it is what was left at its end
			err = fmt.Errorf("process %d (%s) has exited, or runs another program by now: %w", pid, p.comm, os.ErrNotExist)
		}
		return process{}, errors.Join(err, p.space.Close())
	}
	return p, nil
}

// notGo says why p's space has no Go program in it.
func (o *opener) notGo(p *process) error {
	err := p.space.WhyNotGo()
	if !errors.Is(err, objfile.ErrNotGo) {
		return fmt.Errorf("process %d (%s): whether it is a Go program could not be found out: %w", p.pid, p.comm, err)
	}
	why := strings.TrimSuffix(err.Error(), ": "+objfile.ErrNotGo.Error())
	return fmt.Errorf("process %d (%s) is %w: %s: %s", p.pid, p.comm, objfile.ErrNotGo, o.describe(int(p.pid)), why)
}

// describe says what a process is that is not Go.
func (o *opener) describe(pid int) string {
	proc := o.procs.Proc(pid)
	exe, err := proc.Exe()
	switch cmd, _ := proc.Cmdline(); {
	case err != nil && len(cmd) == 0:
		return "a kernel thread"
	case err != nil:
		return strings.Join(cmd, " ")
	default:
		return exe
	}
}

// openSpace reads p's address space.
func (o *opener) openSpace(p *process) error {
	space, err := o.openSettled(p)
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("process %d (%s): %w: pprofd needs root or CAP_SYS_PTRACE to read it", p.pid, p.comm, err)
	case errors.Is(err, objfile.ErrProcessGone) && o.kernelThread(p):
		return fmt.Errorf("process %d (%s) is %w: %s", p.pid, p.comm, objfile.ErrNotGo, o.describe(int(p.pid)))
	case errors.Is(err, objfile.ErrProcessGone):
		return fmt.Errorf("process %d (%s) has exited: %w: %w", p.pid, p.comm, os.ErrNotExist, err)
	case err != nil:
		return fmt.Errorf("process %d (%s): %w", p.pid, p.comm, err)
	}
	p.space = space
	return nil
}

// execPatience bounds how long, in all, Run waits for one process in the middle of an exec: others' samples wait, too.
const (
	execPatience = 200 * time.Millisecond
	execWait     = 500 * time.Microsecond
)

// openSettled reads the address space that p has. One in the middle of an exec has no memory where we look,
// as if it were gone: then what it has soon after is read. One without an executable is a kernel thread, or about to exit.
func (o *opener) openSettled(p *process) (*objfile.Space, error) {
	for wait := execWait; ; wait *= 2 {
		space, err := o.space(p)
		if !errors.Is(err, objfile.ErrProcessGone) && !errors.Is(err, os.ErrNotExist) {
			return space, err
		}
		if _, errExe := o.procs.Proc(int(p.pid)).Exe(); errExe != nil || !o.alive(p) || p.waited+wait > execPatience {
			return nil, err
		}
		p.waited += wait
		time.Sleep(wait)
	}
}

// space reads the address space of p as it is now.
func (o *opener) space(p *process) (*objfile.Space, error) {
	if stat := p.stat; stat != nil { // it was found just now
		p.stat = nil
		return objfile.OpenSpaceOf(o.images, o.root, *stat)
	}
	return objfile.OpenSpace(o.images, o.root, int(p.pid))
}

// kthreadd is the parent of all kernel threads; its PID is 2 (kernel, init/main.c).
const kthreadd = 2

// kernelThread tells one from a process that has given its memory back and is about to exit.
func (o *opener) kernelThread(p *process) bool {
	stat, err := o.procs.Proc(int(p.pid)).Stat()
	return err == nil && stat.StartTime == p.start && (stat.PID == kthreadd || stat.PPID == kthreadd)
}

// alive reports whether p still runs; one that does and maps nothing is a kernel thread.
func (o *opener) alive(p *process) bool {
	stat, err := o.procs.Proc(int(p.pid)).Stat()
	return err == nil && stat.StartTime == p.start && stat.State != 'Z' && stat.State != 'X'
}

// hasMemory tells a process from one at its end: its first thread may have no address space any more while others have, which
// can be read through what was opened before (kernel, kernel/exit.c, exit_mm).
func (o *opener) hasMemory(p *process) bool {
	_, err := o.procs.Proc(int(p.pid)).Exe()
	return !errors.Is(err, os.ErrNotExist)
}

// current reports whether p's space is of the program that runs now.
func (p *process) current() bool { return p.space != nil && p.space.Current() }

// memory is p's.
func (p *process) memory() goruntime.Memory {
	if p.mem != nil {
		return p.mem
	}
	return memory{p.space}
}

// memory is a process's memory as an io.ReaderAt.
type memory struct{ space *objfile.Space }

func (m memory) ReadAt(b []byte, off int64) (int, error) {
	if err := m.space.ReadMem(b, uint64(off)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadPieces implements goruntime.Memory.
func (m memory) ReadPieces(pieces []objfile.Piece) error { return m.space.ReadPieces(pieces) }

var _ goruntime.Memory = memory{}
