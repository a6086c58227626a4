//go:build linux

package objfile

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// process is a running program that ends when the test does.
type process struct {
	pid   int
	stdin io.Closer
	cmd   *exec.Cmd
	ready string // what it has printed
}

// run starts a program that prints "ready PID" and waits for its standard input to end.
func run(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{pid: cmd.Process.Pid, stdin: stdin, cmd: cmd}
	t.Cleanup(p.end)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready") {
		p.end()
		t.Fatalf("%v: printed %q: %v\n%s", cmd.Args, line, err, stderr.String())
	}
	p.ready = line
	return p
}

func (p *process) end() {
	p.stdin.Close()
	_ = p.cmd.Wait()
}

// TestWhyNotGo: a limit that was reached is the reason, not the program.
func TestWhyNotGo(t *testing.T) {
	v := variant{prog: "hello"}
	p := run(t, exec.Command(v.build(t, goVersions()[0])))
	s, _ := openSpace(t, p.pid)
	s.spent = maxSearchTime + 1
	if err := s.WhyNotGo(); s.Main() != nil || !errors.Is(err, ErrTooCostly) || errors.Is(err, ErrNotGo) {
		t.Errorf("search time spent: %v", err)
	}
	s.spent = 0
	if s.Main() == nil {
		t.Fatal("no Go program")
	}
	shell := run(t, exec.Command(needs.Tool(t, "sh"), "-c", "echo ready; read x"))
	s, _ = openSpace(t, shell.pid)
	if err := s.WhyNotGo(); s.Main() != nil || !errors.Is(err, ErrNotGo) {
		t.Errorf("a shell: %v", err)
	}
}

func openSpace(t testing.TB, pid int) (*Space, *Images) {
	t.Helper()
	images := NewImages()
	s, err := OpenSpace(images, "", pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := images.Len(); n != 1 || images.files != 0 {
			t.Errorf("%d images and %d files are left", n, images.files)
		}
	})
	return s, images
}

// checkMain compares what the space finds with the symbols of the program's file, in the process's
// memory: runtime.firstmoduledata there must hold the run-time address of the text's start.
func checkMain(t *testing.T, s *Space, want truth) {
	t.Helper()
	m := s.Main()
	if m == nil {
		for _, m := range s.Mappings() {
			t.Logf("%x-%x %s %v", m.Start, m.End, m.Image.Path, m.Image.Err)
		}
		t.Fatal("no Go text")
	}
	mod, err := m.Image.File.GoModule()
	if err != nil {
		t.Fatal(err)
	}
	if mod.ModuleData != want.moduleData || mod.Text != want.text {
		t.Fatalf("module data at %#x, text at %#x, want %+v", mod.ModuleData, mod.Text, want)
	}
	table, err := m.Image.File.Pclntab()
	if err != nil {
		t.Fatal(err)
	}
	if fn, ok := table.Find(want.mainMain); !ok || fn.Name() != "main.main" || fn.Entry != want.mainMain {
		t.Errorf("%#x is %q, want main.main", want.mainMain, fn.Name())
	}
	var word [8]byte
	if err := s.ReadMem(word[:], want.moduleData+m.Bias+8*mdText); err != nil {
		t.Fatal(err)
	}
	text := le.Uint64(word[:])
	addr, ok := s.Resolve(text)
	if want := (Addr{m.Image.ID, want.text}); !ok || addr != want {
		t.Errorf("%#x resolves to %+v %v, want %+v", text, addr, ok, want)
	}
}

func TestSpaceOfEveryKindOfProgram(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			path := v.build(t, "")
			want := readTruth(t, v.twin().build(t, ""))
			p := run(t, exec.Command(path))
			s, _ := openSpace(t, p.pid)
			checkMain(t, s, want)
			if s.Exe() == nil || s.Exe() != s.Main().Image || s.Exe().Path != path {
				t.Errorf("executable %+v", s.Exe())
			}
		})
	}
}

// copyOf copies a program to where it may be deleted.
func copyOf(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(out, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDeletedAndReplacedExecutable(t *testing.T) {
	hello := testprog.Build(t, "hello", testprog.Options{})
	want := readTruth(t, hello)
	for name, change := range map[string]func(string) error{
		"deleted": os.Remove,
		"replaced": func(path string) error {
			other := copyOf(t, testprog.Build(t, "hello", testprog.Options{PIE: true}))
			return os.Rename(other, path)
		},
		"replaced by a FIFO": func(path string) error {
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := copyOf(t, hello)
			p := run(t, exec.Command(path))
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			s, _ := openSpace(t, p.pid)
			checkMain(t, s, want)
		})
	}
}

// A path that leads to another file than the mapped one must not be believed, nor opened for reading.
func TestPathIsVerifiedByInode(t *testing.T) {
	dir := t.TempDir()
	proc := procfs.New(dir).Proc(1)
	root := proc.Path("root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret")
	lib := filepath.Join(root, "lib.so")
	for _, path := range []string{secret, lib} {
		if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(root, "link.so")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(root, "fifo.so"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		inodeOf    string
		ok         bool
	}{
		{"the mapped file", "/lib.so", lib, true},
		{"another inode", "/lib.so", secret, false},
		{"a link out of the root, though the inode fits", "/link.so", secret, false},
		{"a FIFO, though the inode fits", "/fifo.so", filepath.Join(root, "fifo.so"), false},
		{"a directory", "/", root, false},
	} {
		var st unix.Stat_t
		if err := unix.Stat(c.inodeOf, &st); err != nil {
			t.Fatal(err)
		}
		m := procfs.Map{Start: 0x1000, End: 0x2000, Inode: st.Ino, Path: c.path, Dev: procfs.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}}
		mf, _, err := openMapped(proc, m, false)
		if (err == nil) != c.ok {
			t.Errorf("%s: error %v", c.name, err)
		}
		if err == nil {
			mf.r.Close()
		}
	}
}

func TestOtherMountNamespace(t *testing.T) {
	needs.Root(t)
	unshare := needs.Tool(t, "unshare")
	hello := testprog.Build(t, "hello", testprog.Options{})
	dir := t.TempDir()
	script := `mount -t tmpfs none "$1" && cp "$2" "$1/hello" && mkdir "$1/old" && cd "$1" && pivot_root . old && exec /hello`
	p := run(t, exec.Command(unshare, "-m", "sh", "-ec", script, "sh", dir, hello))
	if _, err := os.Stat(filepath.Join(dir, "hello")); !os.IsNotExist(err) {
		t.Fatalf("the program is visible here: %v", err)
	}
	s, _ := openSpace(t, p.pid)
	checkMain(t, s, readTruth(t, hello))
	// And by path below the process's root, without the kernel's links.
	for m, err := range procfs.New("").Proc(p.pid).Maps() {
		if err != nil {
			t.Fatal(err)
		}
		if m.Path == "/hello" {
			way := func() (int, error) { return openInRoot(s.proc.Path("root"), m.Path) }
			mf, err := openVerified(way, s.proc, m, false)
			if err != nil {
				t.Fatal(err)
			}
			mf.r.Close()
			return
		}
	}
	t.Error("/hello is not mapped")
}

func TestVDSOIsAnImageWithSymbols(t *testing.T) {
	p := run(t, exec.Command(testprog.Build(t, "hello", testprog.Options{})))
	q := run(t, exec.Command(testprog.Build(t, "hello", testprog.Options{PIE: true})))
	s, images := openSpace(t, p.pid)
	s2, err := OpenSpace(images, "", q.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	m, m2 := vdsoOf(t, s), vdsoOf(t, s2)
	if m.Image != m2.Image {
		t.Error("two processes' vDSO is not one image")
	}
	// The oracle: debug/elf on a copy made here.
	b := make([]byte, m.End-m.Start)
	if err := s.ReadMem(b, m.Start); err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, sym := range symbols {
		if elf.ST_TYPE(sym.Info) != elf.STT_FUNC || sym.Size == 0 {
			continue
		}
		addr, ok := s.Resolve(m.Start + sym.Value + sym.Size - 1)
		name, start, found := m.Image.File.Symbol(addr.Off)
		if !ok || !found || start != sym.Value || trimUnderscores(strings.TrimPrefix(sym.Name, "__vdso_")) != strings.TrimPrefix(trimUnderscores(name), "vdso_") {
			t.Errorf("%s at %#x: got %s at %#x", sym.Name, sym.Value, name, start)
		}
	}
}

// TestVDSOIsOpenedOnce: it comes and goes with processes, and is looked at once.
func TestVDSOIsOpenedOnce(t *testing.T) {
	images := NewImages()
	var files []*File
	for range 2 {
		s, err := OpenSpace(images, "/proc", os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, vdsoOf(t, s).Image.File)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if files[0] == nil || files[0] != files[1] {
		t.Errorf("%p, then %p", files[0], files[1])
	}
	if n := images.Len(); n != 1 {
		t.Errorf("%d images are left", n)
	}
}

func vdsoOf(t *testing.T, s *Space) Mapping {
	t.Helper()
	for _, m := range s.Mappings() {
		if m.Image.Path == pathVDSO {
			if m.Image.Err != nil {
				t.Fatal(m.Image.Err)
			}
			return m
		}
	}
	t.Fatal("no vDSO")
	return Mapping{}
}

func TestSpaceIsOfOneExec(t *testing.T) {
	hello := testprog.Build(t, "hello", testprog.Options{})
	p := run(t, exec.Command("sh", "-c", `echo ready; read x; exec "$0"`, hello))
	s, _ := openSpace(t, p.pid)
	if s.Main() != nil {
		t.Error("sh is Go")
	}
	if _, err := io.WriteString(p.stdin.(io.Writer), "go on\n"); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	addr := s.Mappings()[0].Start
	for s.ReadMem(b[:], addr) == nil { // until sh has executed the program
		time.Sleep(time.Millisecond)
	}
	if err := s.ReadMem(b[:], addr); !errors.Is(err, ErrProcessGone) {
		t.Errorf("memory: %v", err)
	}
	if err := s.Reload(); !errors.Is(err, ErrProcessGone) {
		t.Errorf("reload: %v", err)
	}
	if m := s.Mapping(addr); m == nil {
		t.Error("what was mapped is forgotten")
	}
}

// TestSpaceOfVforkChild: its memory is that of its parent, until it executes a program; the parent's goes on.
func TestSpaceOfVforkChild(t *testing.T) {
	spin := testprog.Build(t, "spin", testprog.Options{})
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	parent := testprog.StartWith(t, testprog.StartOptions{Stdin: in}, testprog.Build(t, "vforker", testprog.Options{Cgo: true}), "-input", spin, "-seconds", "60")
	var child int
	if _, err := fmt.Sscanf(parent.Lines()[0], "ready %d", &child); err != nil {
		t.Fatal(err)
	}
	of := func() string {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
		return exe
	}
	s, _ := openSpace(t, child)
	if m := s.Main(); of() == spin || m == nil || m.Image.Path == spin || !s.Current() {
		t.Fatalf("before the exec the space is of %+v", m)
	}
	if err := out.Close(); err != nil { // it waits for that
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); s.Current(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the process executes %s, and the space from before is still its own", of())
		}
	}
	if of() != spin {
		t.Errorf("the process executes %s, and the space is not its own", of())
	}
	if err := s.Reload(); !errors.Is(err, ErrProcessGone) {
		t.Errorf("reload after the exec: %v", err)
	}
	if after, _ := openSpace(t, child); after.Main() == nil || after.Main().Image.Path != spin || !after.Current() {
		t.Errorf("the space after the exec is of %+v", after.Main())
	}
}

func TestExitedProcessStillResolves(t *testing.T) {
	path := copyOf(t, testprog.Build(t, "hello", testprog.Options{}))
	p := run(t, exec.Command(path))
	s, _ := openSpace(t, p.pid)
	p.end()
	if s.Current() {
		t.Error("a process that has exited runs")
	}
	addr := s.Mappings()[0].Start
	if err := errors.Join(os.Remove(path), s.Exited(), s.Exited()); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadMem(make([]byte, 1), addr); !errors.Is(err, ErrProcessGone) {
		t.Errorf("memory: %v", err)
	}
	m := s.Main()
	if m == nil {
		t.Fatal("no Go text")
	}
	if _, err := m.Image.File.BuildInfo(); err != nil {
		t.Error(err)
	}
	if _, err := OpenSpace(NewImages(), "", p.pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open after exit: %v", err)
	}
}

func TestKernelThreadHasNoSpace(t *testing.T) {
	st, err := procfs.New("").Proc(2).Stat()
	if err != nil || st.Comm != "kthreadd" {
		t.Skip("needs the host's PID namespace: PID 2 is no kernel thread here")
	}
	if _, err := OpenSpace(NewImages(), "", 2); !errors.Is(err, ErrProcessGone) {
		t.Errorf("error %v", err)
	}
}

func TestReloadSeesNewCode(t *testing.T) {
	s, _ := openSpace(t, os.Getpid())
	mem, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	addr := uint64(addressOf(mem)) + 4096
	if _, ok := s.Resolve(addr); ok {
		t.Fatal("known before it is read")
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	a, ok := s.Resolve(addr)
	if im := s.images.Get(a.Image); !ok || a.Off != addr || im.Path != pathAnon || im.File != nil {
		t.Errorf("%+v %v %+v", a, ok, im)
	}
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if again, ok := s.Resolve(addr); !ok || again != a {
		t.Errorf("after unmapping: %+v %v", again, ok)
	}
}

// TestTrim: what a process has mapped for a while only is known until Trim, and its file is open as long.
func TestTrim(t *testing.T) {
	s, _ := openSpace(t, os.Getpid())
	exe, images, files := s.Exe(), s.images.Len(), len(openFiles(t))
	for range 3 {
		path := copyOf(t, testprog.Build(t, "hello", testprog.Options{}))
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		if err := errors.Join(err, f.Close(), s.Reload()); err != nil {
			t.Fatal(err)
		}
		addr := uint64(addressOf(mem))
		if m := s.Mapping(addr); m == nil || m.Image.Path != path || m.Image.File == nil {
			t.Fatalf("mapped: %+v", m)
		}
		if err := s.Trim(); err != nil || s.Mapping(addr) == nil {
			t.Errorf("what is mapped is forgotten: %v", err)
		}
		if err := errors.Join(unix.Munmap(mem), s.Reload()); err != nil {
			t.Fatal(err)
		}
		if m := s.Mapping(addr); m == nil || m.Image.Path != path {
			t.Errorf("unmapped: %+v", m)
		}
		if err := s.Trim(); err != nil {
			t.Error(err)
		}
		if m := s.Mapping(addr); m != nil {
			t.Errorf("trimmed: %+v", m)
		}
	}
	if n := len(openFiles(t)); s.images.Len() != images || n != files || s.Exe() != exe || s.images.Get(exe.ID) != exe {
		t.Errorf("%d images, %d files; %d and %d before", s.images.Len(), n, images, files)
	}
}

func openFiles(t *testing.T) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestTooManyFilesAreAnErrorOfTheImage(t *testing.T) {
	p := run(t, exec.Command(variants()[5].build(t, "")))
	images := NewImages()
	images.MaxFiles = 1
	s, err := OpenSpace(images, "", p.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	failed := 0
	for _, m := range s.Mappings() {
		if errors.Is(m.Image.Err, ErrTooManyFiles) {
			failed++
		}
	}
	if failed == 0 || images.files != 1 {
		t.Errorf("%d failed, %d files open", failed, images.files)
	}
}

// A process of very many mappings is not looked at all the time, however often an address of it is not found.
func TestReloadIsNotForEver(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "1")
	var maps strings.Builder
	for i := range 2 * fewMappings {
		fmt.Fprintf(&maps, "%x-%x r-xp 0 0:0 0 [anon:x]\n", 0x1000000+0x2000*i, 0x1001000+0x2000*i)
	}
	err := os.Mkdir(dir, 0o755)
	for name, data := range map[string]string{"maps": maps.String(), "stat": "1 (app) S" + strings.Repeat(" 1", 49) + "\n"} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSpace(NewImages(), root, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	start := time.Now()
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	if err := s.Reload(); !errors.Is(err, ErrTooCostly) {
		t.Errorf("read again at once: %v", err)
	}
	time.Sleep(reloadShare * took)
	if err := s.Reload(); err != nil {
		t.Errorf("%v later: %v", reloadShare*took, err)
	}
}
