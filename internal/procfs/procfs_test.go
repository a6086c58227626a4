package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestPIDsAreNumericDirectoriesInOrder(t *testing.T) {
	got, err := New("testdata/proc").PIDs()
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{1, 42, 1000}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFixtureProcess(t *testing.T) {
	p := New("testdata/proc").Proc(42)
	st, err := p.Stat()
	if err != nil {
		t.Fatal(err)
	}
	want := Stat{PID: 42, PPID: 1, Comm: "a) b (c", State: 'S', Threads: 7, UTime: 111, STime: 222, StartTime: 98765, StartStack: 1 << 47}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Errorf("stat:\n%s", diff)
	}
	status, err := p.Status()
	if err != nil {
		t.Fatal(err)
	}
	wantStatus := Status{UID: [4]uint32{1000, 1001, 1002, 1003}, GID: [4]uint32{100, 101, 102, 103}, NSPid: []int{42, 7, 1}, CapEff: 1<<41 - 1}
	if diff := cmp.Diff(wantStatus, status); diff != "" {
		t.Errorf("status:\n%s", diff)
	}
	args, err := p.Cmdline()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"./server", "-flag", "a b", ""}, args); diff != "" {
		t.Errorf("cmdline:\n%s", diff)
	}
	if exe, err := p.Exe(); err != nil || exe != "/srv/my server (deleted)" {
		t.Errorf("exe: %q, %v", exe, err)
	}
}

func TestMapsOfFixture(t *testing.T) {
	var got []Map
	for m, err := range New("testdata/proc").Proc(42).Maps() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	want := []Map{
		{Start: 0x400000, End: 0x452000, Perm: PermRead | PermExec, Offset: 0x1000, Dev: Dev{8, 2}, Inode: 173521, Path: "/usr/bin/dbus-daemon"},
		{Start: 0x651000, End: 0x652000, Perm: PermRead | PermWrite | PermShared, Offset: 0x51000, Dev: Dev{0xfd, 0x1f}, Inode: 1<<64 - 1, Path: "/srv/my server", Deleted: true},
		{Start: 0x7f0000000000, End: 0x7f0000001000, Perm: PermRead, Dev: Dev{0, 1}, Inode: 1234, Path: "/tmp/new\nline"},
		{Start: 0x7f0000001000, End: 0x7f0000002000},
		{Start: 0x7f0000002000, End: 0x7f0000003000, Perm: PermRead | PermWrite | PermExec, Path: "[anon:JIT code]"},
		{Start: 0x7f0000003000, End: 0x7f0000005000, Perm: PermRead | PermExec, Dev: Dev{0, 1}, Inode: 77, Path: "/memfd:a b", Deleted: true},
		{Start: 0x7ffd19000000, End: 0x7ffd19002000, Perm: PermRead | PermExec, Path: "[vdso]"},
		{Start: 0xffffffffff600000, End: 0xffffffffff601000, Perm: PermExec, Path: "[vsyscall]"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i, file := range []bool{true, true, true, false, false, true, false, false} {
		if got[i].IsFile() != file {
			t.Errorf("%s: IsFile is %v", got[i].Path, !file)
		}
	}
}

func TestMalformedFilesAreErrors(t *testing.T) {
	for name, line := range map[string]string{
		"empty line":        "\n",
		"end before start":  "2000-1000 r-xp 00000000 00:00 0\n",
		"no device":         "1000-2000 r-xp 00000000 0000 0\n",
		"bad permission":    "1000-2000 r?xp 00000000 00:00 0\n",
		"number too large":  "1000-20000000000000000 r-xp 00000000 00:00 0\n",
		"line without end":  strings.Repeat("x", 1<<20),
		"truncated in half": "1000-2000 r-xp 000",
	} {
		var got error
		for _, err := range ParseMaps(strings.NewReader(line)) {
			got = err
		}
		if !errors.Is(got, ErrFormat) && !errors.Is(got, bufio.ErrBufferFull) {
			t.Errorf("maps, %s: error %v", name, got)
		}
	}
	for _, s := range []string{"", "1", "1 (", "1 )(", "1 (a) S 1", "x (a) S" + strings.Repeat(" 1", 40), "1 (a) S" + strings.Repeat(" x", 40)} {
		if _, err := ParseStat([]byte(s)); !errors.Is(err, ErrFormat) {
			t.Errorf("stat %q: error %v", s, err)
		}
	}
	for _, s := range []string{"", "Uid:\t1\t1\t1\t1\n", "Uid:\t1\nGid:\t1\n", "Uid:\t-1 1 1 1\nGid:\t1 1 1 1\n"} {
		if _, err := ParseStatus([]byte(s)); !errors.Is(err, ErrFormat) {
			t.Errorf("status %q: error %v", s, err)
		}
	}
}

// The oracle is the kernel's answer by other ways: getpid, getuid, os.Executable, ps.
func TestThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	fs := New("")
	p := fs.Proc(os.Getpid())
	st, err := p.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st.PID != os.Getpid() || st.PPID != os.Getppid() || st.StartTime == 0 || st.StartStack == 0 {
		t.Errorf("stat %+v of pid %d, parent %d", st, os.Getpid(), os.Getppid())
	}
	status, err := p.Status()
	if err != nil {
		t.Fatal(err)
	}
	if int(status.UID[1]) != os.Geteuid() || int(status.GID[0]) != os.Getgid() {
		t.Errorf("status %+v", status)
	}
	args, err := p.Cmdline()
	if err != nil || !slices.Equal(args, os.Args) {
		t.Errorf("cmdline %q, %v, want %q", args, err, os.Args)
	}
	exe, err := os.Executable()
	if got, _ := p.Exe(); err != nil || got != exe {
		t.Errorf("exe %q, want %q, %v", got, exe, err)
	}
	pids, err := fs.PIDs()
	if err != nil || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("%d is not in %v, %v", os.Getpid(), pids, err)
	}
}

func TestMapsCoverThisFunction(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	pc, _, _, _ := runtime.Caller(0)
	exe, _ := os.Executable()
	for m, err := range New("").Proc(os.Getpid()).Maps() {
		if err != nil {
			t.Fatal(err)
		}
		if m.Start <= uint64(pc) && uint64(pc) < m.End {
			if m.Path != exe || m.Perm&PermExec == 0 {
				t.Errorf("%+v, want %s", m, exe)
			}
			return
		}
	}
	t.Error("no mapping covers the test's own code")
}

func TestNoSuchProcess(t *testing.T) {
	p := New("testdata/proc").Proc(77)
	_, err := p.Stat()
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	for _, err := range p.Maps() {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("maps: %v", err)
		}
	}
}

// TestLongFileIsReadWhole: a process of many groups has a status of 40 KB.
func TestLongFileIsReadWhole(t *testing.T) {
	needs.Root(t)
	cmd := exec.Command(needs.Tool(t, "sleep"), "60")
	groups := make([]uint32, 6000)
	for i := range groups {
		groups[i] = uint32(i + 100_000)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: groups}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	p := New("").Proc(cmd.Process.Pid)
	b, err := p.read("status", maxStatus)
	if _, list, _ := strings.Cut(string(b), "\nGroups:"); err != nil || !strings.Contains(list, " 105999 ") || !strings.Contains(list, "\nThreads:") {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if b, err := p.read("status", 1000); err != nil || len(b) != 1000 {
		t.Errorf("%d bytes of 1000, %v", len(b), err)
	}
	if _, err := p.Status(); err != nil {
		t.Error(err)
	}
}

func TestMapsMemoryDoesNotGrowWithLines(t *testing.T) {
	line := []byte("7f0000000000-7f0000001000 r--p 00000000 00:01 1234                       /tmp/x\n")
	big := bytes.Repeat(line, 100_000)
	var n int
	res := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			n = 0
			for _, err := range ParseMaps(bytes.NewReader(big)) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
		}
	})
	if n != 100_000 {
		t.Errorf("%d lines", n)
	}
	if res.AllocsPerOp() > 12*100_000 {
		t.Errorf("%d allocations", res.AllocsPerOp())
	}
}

// ps is another reader of the same facts.
func TestStatAgreesWithPS(t *testing.T) {
	ps := needs.Tool(t, "ps")
	out, err := exec.CommandContext(t.Context(), ps, "-o", "ppid=,nlwp=,comm=", "-p", "1").Output()
	if err != nil {
		t.Fatalf("ps: %v", err)
	}
	st, err := New("").Proc(1).Stat()
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(out))
	got := []string{strconv.Itoa(st.PPID), strconv.Itoa(st.Threads), strings.Fields(st.Comm)[0]}
	if !slices.Equal(got, f[:3]) {
		t.Error(fmt.Sprint(got, f))
	}
}

func FuzzMaps(f *testing.F) {
	b, err := os.ReadFile("testdata/proc/42/maps")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("1000-2000 r-xp 0 0:0 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, failed := 0, false
		for m, err := range ParseMaps(bytes.NewReader(b)) {
			if failed {
				t.Fatal("goes on after an error")
			}
			failed = err != nil
			if !failed && m.End <= m.Start {
				t.Fatalf("empty mapping %+v", m)
			}
			n++
		}
		if n > bytes.Count(b, []byte("\n"))+1 {
			t.Fatalf("%d mappings", n)
		}
	})
}

func FuzzStat(f *testing.F) {
	b, err := os.ReadFile("testdata/proc/42/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if st, err := ParseStat(b); err == nil && !bytes.Contains(b, []byte("("+st.Comm+")")) {
			t.Fatalf("%q is not in %q", st.Comm, b)
		}
		_, _ = ParseStatus(b)
		_ = parseCmdline(b)
	})
}

// FuzzMounts looks for a device in crafted mounts: names in it are chosen by whoever mounts.
func FuzzMounts(f *testing.F) {
	line := "36 35 98:0 / /mnt\\040x rw,noatime shared:1 master:2 - fuse.sshfs host:/dir rw\n"
	f.Add([]byte(line+"37 35 8:1 / / rw - ext4 /dev/sda1 rw\n"), uint32(98), uint32(0))
	f.Add(append(bytes.Repeat([]byte("x"), 2*maxMapsLine), line...), uint32(98), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, major, minor uint32) {
		typ, err := findFSType(bytes.NewReader(b), Dev{major, minor})
		if err == nil && !bytes.Contains(b, []byte(" - "+typ)) {
			t.Errorf("%q is in no mount", typ)
		}
	})
}

// A command line that does not come is not waited for: a FIFO stands for memory on FUSE whose server is silent.
func TestCmdlineThatStalls(t *testing.T) {
	root := t.TempDir()
	fifo := filepath.Join(root, "7", "cmdline")
	if err := os.Mkdir(filepath.Dir(fifo), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err := New(root).Proc(7).Cmdline()
	if d := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || d > 2*Patience {
		t.Errorf("%v after %v", err, d)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // let it go
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
}
