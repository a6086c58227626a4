//go:build linux && amd64

package goruntime

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

// TestFind checks each build mode against DWARF and the live program.
func TestFind(t *testing.T) {
	for _, tc := range toolchains() {
		t.Run(tc, func(t *testing.T) {
			t.Parallel()
			want := dwarfTruth(t, buildTruth(t, tc, mode{}))
			for _, m := range modes(tc) {
				t.Run(m.name, func(t *testing.T) { checkMode(t, tc, m, want) })
			}
		})
	}
}

func checkMode(t *testing.T, tc string, m mode, want Offsets) {
	path := buildTruth(t, tc, m)
	f, version := openFile(t, path)
	l, err := Find(f, version)
	if err != nil {
		t.Fatal(err)
	}
	checkLayout(t, l, want)
	if !strings.Contains(m.name, "stripped") {
		checkDeltas(t, l, openSymbols(t, path), m.cgo)
	}
	checkLive(t, &l, f, path)
}

// truth is what a running gtruth says about itself.
type truth struct {
	pid, tid int
	mainGoid uint64
	labels   map[uint64]string // goid -> label "who", "" without labels
	mem      *os.File
	bias     uint64
}

// startTruth runs command, which is gtruth or a host of it, until the test ends; f is the opened path.
func startTruth(t *testing.T, f *objfile.File, path string, command ...string) truth {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	tr := truth{pid: cmd.Process.Pid, labels: make(map[uint64]string)}
	tr.read(t, stdout)
	if tr.mem, err = os.Open(fmt.Sprintf("/proc/%d/mem", tr.pid)); err != nil {
		needs.Missing(t, "ptrace", "CAP_SYS_PTRACE, to read another process's memory: "+err.Error())
	}
	t.Cleanup(func() { tr.mem.Close() })
	tr.bias = loadBias(t, f, tr.pid, path)
	time.Sleep(20 * time.Millisecond) // until the main goroutine sits in read
	return tr
}

func (tr *truth) read(t *testing.T, r io.Reader) {
	t.Helper()
	for sc := bufio.NewScanner(r); sc.Scan(); {
		w := strings.Fields(sc.Text())
		switch w[0] {
		case "ready":
			return
		case "goid":
			goid, _ := strconv.ParseUint(w[1], 10, 64)
			tr.labels[goid] = strings.TrimPrefix(w[3], "-")
		case "curg":
			tr.mainGoid, _ = strconv.ParseUint(w[1], 10, 64)
			tr.tid, _ = strconv.Atoi(w[3])
		}
	}
	t.Fatal("gtruth ended early")
}

func (tr *truth) word(t *testing.T, addr uint64) uint64 {
	t.Helper()
	var b [8]byte
	if _, err := tr.mem.ReadAt(b[:], int64(addr)); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (tr *truth) text(t *testing.T, header uint64) string {
	t.Helper()
	b := make([]byte, min(tr.word(t, header+8), 100))
	if _, err := tr.mem.ReadAt(b, int64(tr.word(t, header))); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// checkLive checks a layout against what the running program says.
func checkLive(t *testing.T, l *Layout, f *objfile.File, path string) {
	t.Helper()
	tr := startTruth(t, f, path, path)
	if err := l.ResolveTLS(tr.mem, tr.bias); err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(tr.mem, tr.bias); err != nil {
		t.Fatal(err)
	}
	checkGoroutines(t, l, tr)
	checkTLS(t, l, tr)
	checkMutants(t, l, tr)
}

// checkGoroutines finds every goroutine that gtruth has printed, with its label.
func checkGoroutines(t *testing.T, l *Layout, tr truth) {
	t.Helper()
	n := tr.word(t, l.Globals.AllGLen+tr.bias)
	array := tr.word(t, l.Globals.AllGPtr+tr.bias)
	found := make(map[uint64]string)
	for i := range n {
		g := tr.word(t, array+8*i)
		goid := tr.word(t, g+uint64(l.GGoid))
		if _, ok := tr.labels[goid]; ok {
			found[goid] = tr.who(t, l.Labels, tr.word(t, g+uint64(l.GLabels)))
		}
	}
	for goid, want := range tr.labels {
		if got, ok := found[goid]; !ok || got != want {
			t.Errorf("goroutine %d: label %q, found %v; want %q", goid, got, ok, want)
		}
	}
}

// who reads the label "who", by a reading of the source that owes nothing to the package.
func (tr *truth) who(t *testing.T, kind LabelKind, p uint64) string {
	t.Helper()
	if p == 0 {
		return ""
	}
	if kind == LabelsSlice {
		for i := range min(tr.word(t, p+8), 10) {
			if e := tr.word(t, p) + 32*i; tr.text(t, e) == "who" {
				return tr.text(t, e+16)
			}
		}
		return "none of the slice"
	}
	bucket := tr.word(t, tr.word(t, p)+16)
	tophash := tr.word(t, bucket)
	for i := range uint64(8) {
		if tophash>>(8*i)&0xFF >= 5 && tr.text(t, bucket+8+16*i) == "who" {
			return tr.text(t, bucket+136+16*i)
		}
	}
	return "none of the map"
}

// checkTLS: the main goroutine sits in a system call on its thread, so that g in TLS is its g,
// g.m is that thread's m, and g.m.curg is g.
func checkTLS(t *testing.T, l *Layout, tr truth) {
	t.Helper()
	if !l.HasTLS {
		t.Fatal("no TLS offset")
	}
	g := tr.word(t, fsBase(t, tr.tid)+uint64(l.TLS))
	if goid := tr.word(t, g+uint64(l.GGoid)); goid != tr.mainGoid {
		t.Errorf("g in TLS has id %d, want %d", goid, tr.mainGoid)
	}
	m := tr.word(t, g+uint64(l.GM))
	if curg, tid := tr.word(t, m+uint64(l.MCurg)), tr.word(t, m+uint64(l.MProcid)); curg != g || tid != uint64(tr.tid) {
		t.Errorf("m.curg %#x, m.procid %d; want %#x, %d", curg, tid, g, tr.tid)
	}
}

// fsBase stops a thread for a moment to read its FS base.
func fsBase(t *testing.T, tid int) uint64 {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.PtraceAttach(tid); err != nil {
		needs.Missing(t, "ptrace", "CAP_SYS_PTRACE, to stop a thread: "+err.Error())
	}
	defer syscall.PtraceDetach(tid)
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(tid, &ws, syscall.WALL, nil); err != nil {
		t.Fatal(err)
	}
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		t.Fatal(err)
	}
	return regs.Fs_base
}

// checkMutants: Verify must refuse a layout in which one field that it uses is wrong.
func checkMutants(t *testing.T, l *Layout, tr truth) {
	t.Helper()
	for _, name := range []string{"g.m", "g.sched.sp", "g.atomicstatus", "g.goid", "m.procid", "m.curg"} {
		for _, shift := range []int{-8, 8} {
			bad := *l
			for _, f := range fields() {
				if f.name == name {
					*f.ptr(&bad.Offsets) += uint32(shift)
				}
			}
			if err := bad.Verify(tr.mem, tr.bias); !errors.Is(err, ErrUnverified) {
				t.Errorf("%s moved by %d: Verify says %v", name, shift, err)
			}
		}
	}
}

// TestVerifyBusy: goroutines that switch all the time (they stand among the first of runtime.allgs) do not make Verify fail.
func TestVerifyBusy(t *testing.T) {
	path := buildTruth(t, newest, mode{})
	f, version := openFile(t, path)
	l, err := Find(f, version)
	if err != nil {
		t.Fatal(err)
	}
	tr := startTruth(t, f, path, path, "busy")
	deadline := time.Now().Add(time.Second)
	for n := 0; time.Now().Before(deadline); n++ {
		if err := l.Verify(tr.mem, tr.bias); err != nil {
			t.Fatalf("after %d times: %v", n, err)
		}
	}
}

// hostC loads a shared object and waits until its standard input ends.
const hostC = `#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
	char c;
	if (!dlopen(argv[1], RTLD_NOW)) { fprintf(stderr, "%s\n", dlerror()); return 1; }
	usleep(100000);
	puts("ready"); fflush(stdout);
	return read(0, &c, 1) != 0;
}
`

// TestSharedObject: in c-shared libraries the TLS offset stands in the GOT of the live process.
func TestSharedObject(t *testing.T) {
	gcc := needs.Tool(t, "gcc")
	for _, tc := range toolchains() {
		t.Run(tc, func(t *testing.T) {
			t.Parallel()
			lib := buildTruth(t, tc, mode{args: []string{"-buildmode=c-shared"}, cgo: true})
			f, version := openFile(t, lib)
			l, err := Find(f, version)
			if err != nil {
				t.Fatal(err)
			}
			if l.HasTLS || l.TLSSlot == 0 {
				t.Fatalf("TLS %d, slot %#x: want a slot", l.TLS, l.TLSSlot)
			}
			tr := startTruth(t, f, lib, buildHost(t, gcc), lib)
			if err := errors.Join(l.ResolveTLS(tr.mem, tr.bias), l.Verify(tr.mem, tr.bias)); err != nil {
				t.Fatal(err)
			}
			checkThreads(t, &l, tr)
		})
	}
}

func buildHost(t *testing.T, gcc string) string {
	t.Helper()
	dir := t.TempDir()
	src, host := filepath.Join(dir, "host.c"), filepath.Join(dir, "host")
	if err := os.WriteFile(src, []byte(hostC), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.CommandContext(t.Context(), gcc, "-o", host, src, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	return host
}

// checkThreads: on every thread that Go has made, g in TLS belongs to the m with that thread's id.
func checkThreads(t *testing.T, l *Layout, tr truth) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", tr.pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if tid == tr.pid {
			continue // the host's own thread has no g
		}
		g := tr.word(t, fsBase(t, tid)+uint64(l.TLS))
		if procid := tr.word(t, tr.word(t, g+uint64(l.GM))+uint64(l.MProcid)); procid != uint64(tid) {
			t.Errorf("thread %d: g %#x in TLS has m.procid %d", tid, g, procid)
		}
	}
}
