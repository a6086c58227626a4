// Package procfs reads what /proc says, under a given root, so that tests run on fixtures.
//
// Everything read here is written by the kernel, but names in it (comm, paths, arguments) are
// chosen by whoever runs the process: no length is trusted and all reads are bounded.
// Formats: Linux Documentation/filesystems/proc.rst, fs/proc/array.c, fs/proc/task_mmu.c.
package procfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Limits on what is read of one file.
const (
	maxStat    = 8 << 10
	maxStatus  = 64 << 10
	maxCmdline = 256 << 10
	dirBatch   = 512
)

// Patience is how long is waited for what the kernel reads of a process's memory: it may be a file on FUSE whose server never answers.
const Patience = 2 * time.Second

// ErrFormat is wrapped by errors that say that a file does not look as the kernel writes it.
var ErrFormat = errors.New("unexpected format")

// FS is a proc file system mounted at (or a fixture below) a directory.
type FS struct{ root string }

// New returns the proc file system at root; "" means "/proc".
func New(root string) FS {
	if root == "" {
		root = "/proc"
	}
	return FS{root: filepath.Clean(root)}
}

// PIDs lists the processes (thread group leaders), in ascending order.
func (fs FS) PIDs() ([]int, error) {
	d, err := os.Open(fs.root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close()
	var pids []int
	for {
		names, err := d.Readdirnames(dirBatch)
		for _, name := range names {
			if pid, ok := parsePID(name); ok {
				pids = append(pids, pid)
			}
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(pids)
			return pids, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
	}
}

func parsePID(name string) (int, bool) {
	if name == "" || name[0] < '1' || name[0] > '9' {
		return 0, false
	}
	pid, err := strconv.ParseInt(name, 10, 32)
	return int(pid), err == nil
}

// Proc is the directory of process pid. Nothing is opened or checked.
func (fs FS) Proc(pid int) Proc {
	return Proc{PID: pid, dir: fs.root + "/" + strconv.Itoa(pid)}
}

// Proc is one process's directory. A Proc names whatever process has the PID at the time of each
// call: compare Stat().StartTime before and after where that matters.
type Proc struct {
	PID int
	dir string
}

// Path is the path of a file of the process's directory.
func (p Proc) Path(name string) string {
	if name == "" {
		return p.dir
	}
	return p.dir + "/" + name
}

// Exe is the target of the exe link: the executable's path in the process's mount namespace,
// with " (deleted)" behind it where it is gone. Kernel threads have none (ENOENT).
func (p Proc) Exe() (string, error) {
	s, err := os.Readlink(p.Path("exe"))
	if err != nil {
		return "", fmt.Errorf("read executable's path: %w", err)
	}
	return s, nil
}

// Beginning is what the process's program began with: a variable of its environment as Getenv has it, "" where there is none, and its
// arguments as Cmdline has them. Unlike these two it may never return: who calls it waits for no longer than Patience.
func (p Proc) Beginning(variable string) (value string, args []string, err error) {
	v, err := p.variable(variable)
	var b []byte
	if err == nil {
		b, err = p.read("cmdline", maxCmdline)
	}
	if err != nil {
		return "", nil, fmt.Errorf("read environment and command line of process %d: %w", p.PID, err)
	}
	if v != nil {
		value = *v
	}
	return value, parseCmdline(b), nil
}

// Cmdline is the command line, split at NUL bytes and cut at 256 KiB. It is empty for kernel threads and zombies.
// The kernel reads it from the process's memory: see patiently.
func (p Proc) Cmdline() ([]string, error) {
	b, err := patiently(func() ([]byte, error) { return p.read("cmdline", maxCmdline) })
	if err != nil {
		return nil, fmt.Errorf("read command line of process %d: %w", p.PID, err)
	}
	return parseCmdline(b), nil
}

// patiently runs f, which reads what the kernel takes from a process's memory: after Patience it is given up, with
// os.ErrDeadlineExceeded; f goes on alone.
func patiently[T any](f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-timer.C:
		var none T
		return none, fmt.Errorf("no answer in %v: %w", Patience, os.ErrDeadlineExceeded)
	}
}

func parseCmdline(b []byte) []string {
	var args []string
	start := 0
	for i, c := range b {
		if c == 0 {
			args = append(args, string(b[start:i]))
			start = i + 1
		}
	}
	if start < len(b) {
		args = append(args, string(b[start:]))
	}
	return args
}

// read returns at most limit bytes of a file of the process's directory.
func (p Proc) read(name string, limit int) ([]byte, error) {
	f, err := p.open(name)
	if err != nil {
		return nil, fmt.Errorf("read process %d: %w", p.PID, err)
	}
	defer f.Close()
	b := make([]byte, 0, min(limit, usualSize))
	for len(b) < limit {
		if len(b) == cap(b) {
			b = slices.Grow(b, 1)
		}
		room := b[len(b):min(cap(b), limit)]
		n, err := f.Read(room)
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) || err == nil && n < len(room) && atOnce(name) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read process %d: %w", p.PID, err)
		}
	}
	return b, nil
}

// atOnce: the kernel makes the whole file before it hands anything out (single_open in fs/proc/base.c), so that a read with room to
// spare is the last one.
func atOnce(name string) bool { return name == "stat" || name == "status" || name == "cgroup" }

// usualSize is more than what most files have, in bytes.
const usualSize = 2 << 10

// file is an open file of a process's directory. They are opened by the thousand and read once: package os would ask of each whether it
// can be waited for, which takes as long as the rest.
type file struct {
	fd   int
	path string
}

func (p Proc) open(name string) (*file, error) {
	path := p.Path(name)
	fd, err := retry(func() (int, error) { return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &file{fd, path}, nil
}

// Read implements io.Reader.
func (f *file) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := retry(func() (int, error) { return syscall.Read(f.fd, b) })
	switch {
	case err != nil:
		return 0, &os.PathError{Op: "read", Path: f.path, Err: err}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Close is called once.
func (f *file) Close() { _ = syscall.Close(f.fd) } // read only: nothing to lose

// retry makes a system call until no signal interrupts it.
func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
