package discover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// machine is a proc file system that a test writes.
type machine struct {
	t    testing.TB
	root string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{t, t.TempDir()}
	m.write("1/root/etc/passwd", "root:x:0:0:root:/:/bin/sh\nwww-data:x:33:33::/:/x\nother:x:33:1::/:/x\nbad line\n:x:44:1::/:\n")
	return m
}

// fake is a process of a machine.
type fake struct {
	pid, uid  int
	start     uint64
	stack     uint64
	comm, exe string
	cgroup    string // of version 2
	environ   []string
	args      []string
}

// spawn writes, or overwrites, a process.
func (m *machine) spawn(f fake) Proc {
	m.t.Helper()
	dir := strconv.Itoa(f.pid)
	m.write(dir+"/stat", fmt.Sprintf("%d (%s) S 1 1 1 0 -1 4194560 1 0 0 0 11 22 0 0 20 0 7 0 %d 1 1 18446744073709551615 1 1 %d 0 0 0 0 0", f.pid, f.comm, f.start, f.stack))
	m.write(dir+"/status", fmt.Sprintf("Name:\tx\nUid:\t0\t%d\t0\t0\nGid:\t0\t0\t0\t0\n", f.uid))
	m.write(dir+"/cgroup", "0::"+orElse(f.cgroup, "/")+"\n")
	m.write(dir+"/environ", strings.Join(f.environ, "\x00"))
	m.write(dir+"/cmdline", strings.Join(f.args, "\x00"))
	exe := filepath.Join(m.root, dir, "exe")
	if err := os.Remove(exe); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	if err := os.Symlink(f.exe, exe); err != nil {
		m.t.Fatal(err)
	}
	return Proc{f.pid, f.start}
}

func (m *machine) kill(pid int) {
	if err := os.RemoveAll(filepath.Join(m.root, strconv.Itoa(pid))); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) write(name, content string) {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		m.t.Fatal(err)
	}
}

// discovery is one of the machine; expressions in c are there already.
func (m *machine) discovery(c Config) *Discovery {
	m.t.Helper()
	c.ProcRoot = m.root
	d, err := New(c)
	if err != nil {
		m.t.Fatal(err)
	}
	return d
}

func selectors(t testing.TB, exprs ...string) (s []Selector) {
	t.Helper()
	for _, e := range exprs {
		one, err := ParseSelector(e)
		if err != nil {
			t.Fatal(err)
		}
		s = append(s, one)
	}
	return s
}

// spin is a Go program that all fakes may run.
func spin(t testing.TB) string {
	t.Helper()
	return testprog.Build(t, "spin", testprog.Options{})
}

// notGo is an ELF program that is not Go's.
func notGo(t testing.TB) string {
	t.Helper()
	path, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	return path
}
