//go:build linux

package objfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

const stallEnv = "PPROFD_TEST_STALL"

// Requests of FUSE, linux/fuse.h.
const (
	fuseLookup  = 1
	fuseGetattr = 3
	fuseOpen    = 14
	fuseRead    = 15
	fuseInit    = 26
	fuseHeader  = 40
	fuseFile    = 2 // the node of the only file
)

// TestStallingProcess is the process of TestStallingMemory. It serves a file system, in which it maps a file whose content
// takes long, and is an error then. (While a server does not answer at all, nobody can kill who asked.)
func TestStallingProcess(t *testing.T) {
	dir := os.Getenv(stallEnv)
	if dir == "" {
		t.Skip("it is run by TestStallingMemory")
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		fmt.Println("ready, without FUSE:", err)
		return
	}
	o := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev)
	if err := unix.Mount("test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, o); err != nil {
		fmt.Println("ready, without FUSE:", err)
		return
	}
	go serve(dev)
	f, err := os.Open(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	area, err := unix.MmapPtr(int(f.Fd()), 0, nil, 1<<16, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("ready %d\n", uintptr(area))
	_, _ = io.Copy(io.Discard, os.Stdin)
	time.Sleep(2 * slow) // reads must have their answers: who waits for one holds our memory, and we the server
}

// slow is how long a read takes.
const slow = 2 * time.Second

// serve answers requests.
func serve(dev int) {
	b := make([]byte, 1<<17)
	for {
		n, err := unix.Read(dev, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n < fuseHeader {
			return
		}
		op, unique, node := le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:])
		reply, errno := answer(op, node)
		if op == fuseRead {
			time.Sleep(slow)
			errno = int32(unix.EIO)
		}
		head := le.AppendUint32(nil, uint32(16+len(reply)))
		head = le.AppendUint32(head, uint32(-errno))
		head = le.AppendUint64(head, unique)
		_, _ = unix.Write(dev, append(head, reply...))
	}
}

func answer(op uint32, node uint64) ([]byte, int32) {
	attr := func(node uint64) []byte {
		mode := uint32(unix.S_IFDIR | 0o755)
		if node == fuseFile {
			mode = unix.S_IFREG | 0o755
		}
		a := make([]byte, 88) // struct fuse_attr
		le.PutUint64(a, node)
		le.PutUint64(a[8:], 1<<16)
		le.PutUint32(a[60:], mode)
		le.PutUint32(a[64:], 1)
		return a
	}
	switch op {
	case fuseInit:
		b := make([]byte, 64)
		le.PutUint32(b, 7)
		le.PutUint32(b[4:], 31)
		le.PutUint32(b[20:], 1<<16) // max_write
		return b, 0
	case fuseLookup: // struct fuse_entry_out
		b := [40]byte{}
		le.PutUint64(b[:], fuseFile)
		le.PutUint64(b[16:], 1000)
		le.PutUint64(b[24:], 1000)
		return slices.Concat(b[:], attr(fuseFile)), 0
	case fuseGetattr: // struct fuse_attr_out
		b := [16]byte{}
		le.PutUint64(b[:], 1000)
		return slices.Concat(b[:], attr(node)), 0
	case fuseOpen:
		return make([]byte, 16), 0
	}
	return nil, int32(unix.ENOSYS)
}

// A process may make whoever reads its memory wait. The profiler does not read what is on FUSE, and else waits once, and not
// for long.
func TestStallingMemory(t *testing.T) {
	needs.Root(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestStallingProcess$") // not killed at the end: see there
	cmd.Env = append(os.Environ(), stallEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	p := run(t, cmd)
	var area uint64
	if _, err := fmt.Sscanf(p.ready, "ready %d", &area); err != nil {
		needs.Missing(t, "FUSE", p.ready)
	}
	s, _ := openSpace(t, p.pid)
	s.mem.patience = 100 * time.Millisecond
	var b [8]byte
	if err := s.ReadMem(b[:], s.Mappings()[0].Start); err != nil {
		t.Fatalf("before: %v", err)
	}
	read := func() error {
		start := time.Now()
		err := s.ReadMem(make([]byte, 8), area)
		if d := time.Since(start); d > slow*3/4 {
			t.Errorf("a read took %v", d)
		}
		return err
	}
	if err := read(); err == nil || errors.Is(err, ErrTooCostly) {
		t.Errorf("memory on FUSE: %v", err)
	}
	s.mem.fuse = nil // as if it had been mapped later
	for range 3 {
		if err := read(); !errors.Is(err, ErrTooCostly) {
			t.Errorf("memory that stalls: %v", err)
		}
	}
	stallsDirectly(t, s, area)
	if a, ok := s.Resolve(s.Mappings()[0].Start); !ok || a.Image == 0 {
		t.Errorf("%+v, %v: the space does not resolve any more", a, ok)
	}
	// Its files are refused without a read.
	m := procfs.Map{Start: area, End: area + 1<<16, Perm: procfs.PermRead, Inode: fuseFile, Path: "/file"}
	if _, _, err := openMapped(s.proc, m, false); err == nil {
		t.Error("a file on FUSE was opened")
	}
	if _, err := OpenExe(asExe(t, p.pid, area)); !errors.Is(err, ErrFUSE) {
		t.Errorf("an executable on FUSE: %v", err)
	}
}

// stallsDirectly: who reads directly waits; who reads an image that is in memory, or asks whether the process is still there, does not.
func stallsDirectly(t *testing.T, s *Space, area uint64) {
	t.Helper()
	s.mem.stalled = nil
	s.ReadDirectly()
	start := time.Now()
	if err := s.ReadMem(make([]byte, 8), area); err == nil || errors.Is(err, ErrTooCostly) || time.Since(start) < slow*3/4 {
		t.Errorf("memory that is read directly: %v after %v", err, time.Since(start))
	}
	start = time.Now()
	_, err := s.mem.ReadAt(make([]byte, 8), int64(area))
	if !errors.Is(err, ErrTooCostly) || time.Since(start) > slow*3/4 {
		t.Errorf("an image in memory that is read directly: %v after %v", err, time.Since(start))
	}
	s.mem.stalled = nil
	if start = time.Now(); s.mem.gone(area) || time.Since(start) > slow*3/4 {
		t.Errorf("whether it is gone is known after %v", time.Since(start))
	}
}

// asExe is a process whose executable is what another maps at addr, and whose mounts are the other's.
func asExe(t *testing.T, pid int, addr uint64) procfs.Proc {
	t.Helper()
	proc := procfs.New(t.TempDir()).Proc(7)
	of := procfs.New("").Proc(pid)
	err := errors.Join(os.Mkdir(proc.Path(""), 0o755),
		os.Symlink(of.Path(fmt.Sprintf("map_files/%x-%x", addr, addr+1<<16)), proc.Path("exe")),
		os.Symlink(of.Path("mountinfo"), proc.Path("mountinfo")))
	if err != nil {
		t.Fatal(err)
	}
	return proc
}
