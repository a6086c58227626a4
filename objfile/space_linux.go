package objfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pprofd/pprofd/internal/procfs"
	"golang.org/x/sys/unix"
)

// processMemory reads the memory that a process had when it was opened. An open /proc/PID/mem stays
// with that memory: after exec or exit it reads nothing, whoever has the PID then.
type processMemory struct {
	proc  procfs.Proc
	start uint64 // of the process
	stack uint64 // procfs.Stat.StartStack, 0: not known
	f     *os.File
	err   error // why f is nil
	// patience is how long a read is waited for.
	patience time.Duration
	// direct says that reads of the space are done by the calling thread, and waited for however long they take.
	direct bool
	// closed says that the process is known to be gone.
	closed bool
	// alone says that process_vm_readv is not permitted.
	alone bool
	// stalled is why it is not read any more: what is mapped there may have to come from a server of the process's choice.
	stalled error
	// fuse are the ranges that files on FUSE are mapped at. They are not read: while its server does not answer, the reader
	// cannot even be killed.
	fuse []addrRange
}

func openMemory(p procfs.Proc, start uint64) *processMemory {
	f, err := openPlain(p.Path("mem"))
	return &processMemory{proc: p, start: start, f: f, err: err, patience: maxStall}
}

// openPlain opens a file that cannot be waited for. os.Open would ask the kernel whether it can, for as long as all the rest takes.
func openPlain(path string) (*os.File, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case !errors.Is(err, unix.EINTR):
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// ReadAt implements io.ReaderAt by run-time address. It is never direct: who reads an image that lies in the process's memory cannot be left
// in the middle of that.
func (m *processMemory) ReadAt(p []byte, addr int64) (int, error) { return m.readAt(p, addr, false) }

func (m *processMemory) readAt(p []byte, addr int64, direct bool) (int, error) {
	if addr < 0 {
		return 0, io.EOF
	}
	if m.onFUSE(uint64(addr), uint64(len(p))) {
		return 0, fmt.Errorf("memory at %#x is a file on FUSE, whose server could stall the profiler", addr)
	}
	read := m.readVM
	switch {
	case m.closed:
		return 0, ErrProcessGone
	case m.stalled != nil:
		return 0, m.stalled
	case m.f != nil:
		read = m.f.ReadAt
	}
	n, err := unless(direct, m.patience, func() (int, error) { return read(p, addr) })
	if errors.Is(err, ErrTooCostly) {
		m.stalled = fmt.Errorf("memory at %#x: %w", addr, err)
		return 0, m.stalled
	}
	if m.f != nil && n == 0 && errors.Is(err, io.EOF) {
		return 0, ErrProcessGone
	}
	return n, err
}

// unless runs f, which reads, for as long as there is patience, unless that is somebody else's to have.
func unless[T any](direct bool, patience time.Duration, f func() (T, error)) (T, error) {
	if direct {
		return f()
	}
	return within(patience, f, nil)
}

func (m *processMemory) onFUSE(addr, n uint64) bool {
	return slices.ContainsFunc(m.fuse, func(r addrRange) bool { return addr < r.end && r.start < addr+n })
}

// readVM reads without /proc/PID/mem (where a sandbox hides it), and makes sure afterwards that the
// process is still the same.
func (m *processMemory) readVM(p []byte, addr int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &p[0], Len: uint64(len(p))}}
	n, err := unix.ProcessVMReadv(m.proc.PID, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(p)}}, 0)
	if err != nil {
		return 0, errors.Join(m.err, os.NewSyscallError("process_vm_readv", err))
	}
	if start, err := m.proc.StartTime(); err != nil || start != m.start {
		clear(p)
		return 0, ErrProcessGone
	}
	if n < len(p) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// gone says that the memory does not exist any more. addr is a mapped address.
func (m *processMemory) gone(addr uint64) bool {
	if m.f == nil {
		return m.closed
	}
	_, err := m.ReadAt(make([]byte, 1), int64(addr))
	return errors.Is(err, ErrProcessGone)
}

// ended is gone for who has just read the process's maps: it waits for the same lock, and for nothing else, since nothing is mapped
// where it reads. What is mapped could have to be fetched first.
func (m *processMemory) ended(addr uint64) bool {
	if m.f == nil {
		return m.gone(addr)
	}
	const nowhere = 1 << 62
	_, err := m.f.ReadAt(make([]byte, 1), nowhere)
	return errors.Is(err, io.EOF)
}

// Close may be called more than once.
func (m *processMemory) Close() error {
	m.closed = true
	if m.f == nil {
		return nil
	}
	f := m.f
	m.f = nil
	return f.Close()
}

// errNotMapped says that a path leads to another file than the mapped one.
var errNotMapped = errors.New("the file at this path is not the mapped one (deleted or replaced)")

// ownVDSO is a copy of this process's vDSO; nil where there is none.
var ownVDSO = sync.OnceValue(func() []byte {
	self := procfs.New("").Proc(os.Getpid())
	for m, err := range self.Maps() {
		if err != nil || m.Path != pathVDSO || m.End-m.Start > maxVDSO {
			continue
		}
		f, err := os.Open(self.Path("mem"))
		if err != nil {
			return nil
		}
		defer f.Close()
		b := make([]byte, m.End-m.Start)
		if _, err := f.ReadAt(b, int64(m.Start)); err != nil {
			return nil
		}
		return b
	}
	return nil
})

// mapped returns the image of what a process maps, with a reference more, if the table has it: that takes a system call or two, and none
// of a file system. isExe says whether it is the process's executable.
func (t *Images) mapped(p procfs.Proc, m procfs.Map) (im *Image, isExe bool) {
	for _, name := range []string{"exe", fmt.Sprintf("map_files/%x-%x", m.Start, m.End)} {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, p.Path(name), unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st)
		if err == nil && st.Ino == m.Inode && sameDev(&st, m.Dev) {
			return t.known(statKey(&st)), name == "exe"
		}
	}
	return nil, false
}

// openMapped opens the file that a process maps, without following what it may have put in its place
// meanwhile: first by the kernel's own links, which work for deleted files and in other mount
// namespaces, then by path below the process's root, if the inode is the mapped one.
func openMapped(p procfs.Proc, m procfs.Map, allowFUSE bool) (mf *mappedFile, isExe bool, err error) {
	isExe = isExecutable(p, m)
	ways := []func() (int, error){
		// needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE (fs/proc/base.c, proc_map_files_get_link)
		func() (int, error) {
			return openPath(p.Path(fmt.Sprintf("map_files/%x-%x", m.Start, m.End)))
		},
		func() (int, error) { return openPath(p.Path("exe")) },
		func() (int, error) { return openInRoot(p.Path("root"), m.Path) },
	}
	if !isExe {
		ways = append(ways[:1], ways[2])
	}
	var errs []error
	for _, way := range ways {
		mf, err := openVerified(way, p, m, allowFUSE)
		if err == nil {
			return mf, isExe, nil
		}
		errs = append(errs, err)
	}
	return nil, isExe, errors.Join(errs...)
}

// isExecutable says whether the mapped file is the process's executable.
func isExecutable(p procfs.Proc, m procfs.Map) bool {
	fd, err := openPath(p.Path("exe"))
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	st, err := statCached(fd)
	return err == nil && st.Ino == m.Inode && (sameDev(st, m.Dev) || sameExePath(p, m))
}

func sameExePath(p procfs.Proc, m procfs.Map) bool {
	exe, err := p.Exe()
	return err == nil && strings.TrimSuffix(exe, " (deleted)") == m.Path
}

// openPath opens a kernel link as O_PATH, which touches neither the file nor, were it a device or FIFO, what is behind it.
func openPath(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// openInRoot opens a path as the process would: its symbolic links cannot lead out of its root.
func openInRoot(root, path string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: root + path, Err: err}
	}
	return fd, nil
}

// openVerified opens a file for reading if it is the mapped one, regular, and not on FUSE.
func openVerified(way func() (int, error), p procfs.Proc, m procfs.Map, allowFUSE bool) (*mappedFile, error) {
	fd, err := way()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	st, err := statCached(fd)
	if err != nil {
		return nil, os.NewSyscallError("statx", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("not a regular file")
	case st.Ino != m.Inode:
		return nil, errNotMapped
	case !allowFUSE && onFUSE(p, st):
		return nil, ErrFUSE
	}
	mf, err := openRegular(fd, st)
	if err != nil {
		return nil, err
	}
	if !sameDev(st, m.Dev) {
		mf.note = fmt.Sprintf("device %d:%d, mapped from %d:%d: matched by inode", st.Dev_major, st.Dev_minor, m.Dev.Major, m.Dev.Minor)
	}
	return mf, nil
}

// openRegular opens a regular file that is open as a path only.
func openRegular(fd int, st *unix.Statx_t) (*mappedFile, error) {
	r, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open for reading: %w", err)
	}
	mf := &mappedFile{r: r, key: statKey(st)}
	if st.Dev_major == 0 { // no block device: a network or overlay file system, perhaps with FUSE below
		mf.r = remoteFile{r}
	}
	return mf, nil
}

// OpenExe opens the executable of a process by the kernel's link, through which deleted files and those of other mount
// namespaces are reached. Errors wrap ErrNotGo or ErrUnsupported where it is no ELF file that can be profiled, and
// ErrTooCostly where it does not open in maxStall. A file on FUSE is refused.
func OpenExe(p procfs.Proc) (*File, error) {
	mf, err := within(maxStall, func() (*mappedFile, error) { return openExe(p) }, func(mf *mappedFile) { _ = mf.r.Close() })
	if err != nil {
		return nil, fmt.Errorf("open executable of process %d: %w", p.PID, err)
	}
	return Open(mf.r, mf.key.size)
}

func openExe(p procfs.Proc) (*mappedFile, error) {
	fd, err := openPath(p.Path("exe"))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	st, err := statCached(fd)
	switch {
	case err != nil:
		return nil, os.NewSyscallError("statx", err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("not a regular file: %w", ErrNotGo)
	case onFUSE(p, st):
		return nil, ErrFUSE
	}
	return openRegular(fd, st)
}

// remoteFile is a file whose reads may wait for somebody else.
type remoteFile struct{ *os.File }

func (remoteFile) patience() time.Duration { return maxStall }

// statCached asks for what the kernel knows: a network or FUSE server is not asked.
func statCached(fd int) (*unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st)
	return &st, err
}

// sameDev compares a file's device with that of maps. They may differ in truth on btrfs and overlayfs.
func sameDev(st *unix.Statx_t, d procfs.Dev) bool {
	return st.Dev_major == d.Major && st.Dev_minor == d.Minor
}

func statKey(st *unix.Statx_t) imageKey {
	return imageKey{
		dev: uint64(st.Dev_major)<<32 | uint64(st.Dev_minor), inode: st.Ino, size: int64(st.Size),
		mtime: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec), ctime: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec), shared: true,
	}
}

// onFUSE looks the file's device up in the process's mounts; statfs would ask the server.
func onFUSE(p procfs.Proc, st *unix.Statx_t) bool {
	return isFUSE(p, procfs.Dev{Major: st.Dev_major, Minor: st.Dev_minor})
}
