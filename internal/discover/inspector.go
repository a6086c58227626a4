package discover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
)

// What a process is that is no target. Other errors of [Inspector.Inspect] wrap objfile.ErrNotGo, os.ErrNotExist (it is gone)
// or os.ErrPermission.
var (
	ErrKernelThread = errors.New("not a Go program: a kernel thread")
	ErrZombie       = errors.New("has exited already (zombie)")
)

// Process is a running Go program.
type Process struct {
	PID     int
	Start   uint64 // clock ticks since boot: (PID, Start) names the process
	UID     uint32
	Comm    string
	Exe     string // as the process sees it, without " (deleted)"
	Deleted bool   // or replaced: there is another file at Exe now, or none
	Args    []string
	*Program
}

type fileID = procfs.FileID

// Bounds on the executables that are remembered.
const (
	maxPrograms = 2048             // in each of two generations
	retryAfter  = 10 * time.Minute // for a file that could not be read in the time that it may take
)

// Inspector looks at processes and remembers executables, since most machines run the same few many times. It may be used by
// several goroutines.
type Inspector struct {
	root   string
	fs     procfs.FS
	kernel bool // it is the kernel's, not of a test

	mu       sync.Mutex
	programs map[fileID]remembered
	older    map[fileID]remembered // the generation before: what is not asked for any more is forgotten
}

// remembered is a program, until when it has to be looked at again; zero: never.
type remembered struct {
	*Program
	until time.Time
}

// NewInspector looks at the processes of a proc file system; "" means "/proc".
func NewInspector(root string) *Inspector {
	if root == "" {
		root = "/proc"
	}
	var fs unix.Statfs_t
	kernel := unix.Statfs(root, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
	return &Inspector{root: root, fs: procfs.New(root), kernel: kernel, programs: map[fileID]remembered{}}
}

// Proc is the directory of a process.
func (in *Inspector) Proc(pid int) procfs.Proc { return in.fs.Proc(pid) }

// PIDs lists all processes.
func (in *Inspector) PIDs() ([]int, error) { return in.fs.PIDs() }

// Census is the Go processes of the machine.
type Census struct {
	Found  []*Process
	Unread map[string]int // how many could not be looked at, by reason
}

// All looks at every process. Those that end meanwhile are left out.
func (in *Inspector) All(ctx context.Context) (c Census, err error) {
	pids, err := in.fs.PIDs()
	if err != nil {
		return Census{}, err
	}
	c.Unread = map[string]int{}
	for _, pid := range pids {
		if ctx.Err() != nil {
			return Census{}, ctx.Err()
		}
		p, err := in.Inspect(pid)
		switch {
		case err == nil:
			c.Found = append(c.Found, p)
		case errors.Is(err, objfile.ErrNotGo), errors.Is(err, ErrKernelThread):
		case Gone(err):
		default:
			c.Unread[Reason(err)]++
		}
	}
	return c, nil
}

// Gone says whether err is that of a process that has ended meanwhile.
func Gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, ErrZombie)
}

// Reason is the cause of err without the path that it happened to.
func Reason(err error) string {
	var p *os.PathError
	switch {
	case errors.Is(err, objfile.ErrFUSE):
		return objfile.ErrFUSE.Error()
	case errors.As(err, &p):
		return p.Err.Error()
	}
	return firstLine(err)
}

// Inspect looks at one process. The error says what the process is where it is not Go (it wraps objfile.ErrNotGo or is
// ErrKernelThread), that it is gone (os.ErrNotExist), or that we may not look (os.ErrPermission).
func (in *Inspector) Inspect(pid int) (*Process, error) {
	proc := in.fs.Proc(pid)
	p, err := in.look(proc)
	if err != nil {
		return nil, err
	}
	if p.err != nil && !errors.Is(p.err, objfile.ErrNotGo) {
		return nil, fmt.Errorf("whether %s is a Go program could not be found out: %w", Printable(p.Exe), p.err)
	}
	if p.err != nil {
		return nil, &notGoError{fmt.Sprintf("not a Go program: %s, %s", Printable(p.Exe), p.what), p.err}
	}
	if p.Args, err = proc.Cmdline(); err != nil {
		return nil, err
	}
	status, err := proc.Status()
	p.UID = status.UID[1]
	return p, err
}

// look says what program a process runs, Go or not.
func (in *Inspector) look(proc procfs.Proc) (*Process, error) {
	stat, err := proc.Stat()
	if err != nil {
		return nil, err
	}
	id, err := identify(proc)
	if err != nil {
		return nil, withoutExe(proc, stat, err)
	}
	return in.lookAt(proc, stat, id)
}

// lookAt says what program a process runs of which stat and id are known.
func (in *Inspector) lookAt(proc procfs.Proc, stat procfs.Stat, id fileID) (*Process, error) {
	p := &Process{PID: proc.PID, Start: stat.StartTime, Comm: stat.Comm}
	var err error
	if p.Exe, err = proc.Exe(); err != nil {
		return nil, withoutExe(proc, stat, err)
	}
	p.Exe, p.Deleted = strings.CutSuffix(p.Exe, " (deleted)")
	if p.Program, err = in.programOf(proc, id); err != nil {
		return nil, err
	}
	if p.bare {
		p.Program = unpacked(in.root, proc.PID, p.Program)
	}
	return p, nil
}

// notGoError tells what a process is without telling twice that it is not Go.
type notGoError struct {
	text string
	err  error
}

func (e *notGoError) Error() string { return e.text }
func (e *notGoError) Unwrap() error { return e.err }

// withoutExe says what a process is that has no executable: the kernel answers ENOENT for its own threads, which have no
// command line either, and for zombies.
func withoutExe(proc procfs.Proc, stat procfs.Stat, err error) error {
	switch {
	case !errors.Is(err, os.ErrNotExist):
		return err
	case stat.State == 'Z' || stat.State == 'X':
		return ErrZombie
	case stat.PPID == 2 || proc.PID == 2:
		return ErrKernelThread
	}
	return err
}

// programOf describes the executable of a process, whose id was read just now.
func (in *Inspector) programOf(proc procfs.Proc, id fileID) (*Program, error) {
	if p := in.known(id); p != nil {
		return p, nil
	}
	p, err := readProgram(proc)
	if err != nil {
		return nil, err
	}
	if now, err := identify(proc); err != nil || now != id {
		return nil, fmt.Errorf("process %d executes another program meanwhile: %w", proc.PID, errors.Join(os.ErrNotExist, err))
	}
	in.remember(id, p)
	return p, nil
}

// identify asks the kernel which file a process executes: one system call, which asks no server.
func identify(proc procfs.Proc) (fileID, error) {
	var st unix.Statx_t
	path := proc.Path("exe")
	const fields = unix.STATX_TYPE | unix.STATX_INO | unix.STATX_SIZE | unix.STATX_CTIME
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, fields, &st); err != nil {
		return fileID{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileID{}, fmt.Errorf("%s is no regular file: %w", path, objfile.ErrNotGo)
	}
	return fileID{
		Dev: procfs.Dev{Major: st.Dev_major, Minor: st.Dev_minor}, Inode: st.Ino, Size: st.Size,
		Changed: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec),
	}, nil
}

// user is the effective user of a process. The directories of the kernel's /proc belong to that (fs/proc/base.c, task_dump_owner), which
// takes a tenth of the time that reading its status does.
func (in *Inspector) user(pid int) (uint32, error) {
	proc := in.fs.Proc(pid)
	if !in.kernel {
		status, err := proc.Status()
		return status.UID[1], err
	}
	var st unix.Stat_t
	if err := unix.Stat(proc.Path(""), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: proc.Path(""), Err: err}
	}
	return st.Uid, nil
}

// known is what is remembered of a file; nil: nothing.
func (in *Inspector) known(id fileID) *Program {
	in.mu.Lock()
	defer in.mu.Unlock()
	p, ok := in.programs[id]
	if !ok {
		if p, ok = in.older[id]; !ok {
			return nil
		}
		in.add(id, p)
	}
	if !p.until.IsZero() && time.Now().After(p.until) {
		return nil
	}
	return p.Program
}

func (in *Inspector) remember(id fileID, p *Program) {
	in.mu.Lock()
	defer in.mu.Unlock()
	r := remembered{Program: p}
	if errors.Is(p.err, objfile.ErrTooCostly) {
		r.until = time.Now().Add(retryAfter)
	}
	in.add(id, r)
}

func (in *Inspector) add(id fileID, r remembered) {
	if len(in.programs) >= maxPrograms {
		in.older, in.programs = in.programs, make(map[fileID]remembered)
	}
	in.programs[id] = r
}

// size is how many executables are remembered.
func (in *Inspector) size() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.programs) + len(in.older)
}
