package profiler

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// codeAt reads a process's code.
func codeAt(t *testing.T, pid int, addr uint64, n int) []byte {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, int64(addr)); err != nil {
		t.Fatal(err)
	}
	return b
}

// checkCode looks at a target's code where it is, or was, probed.
func checkCode(t *testing.T, pid int, tg *target, probed bool) {
	t.Helper()
	for _, s := range tg.alloc.chosen() {
		got := codeAt(t, pid, s.Addr+tg.bias, len(s.Code))
		if probed && bytes.Equal(got, s.Code) || runtime.GOARCH == "amd64" && probed && got[0] != 0xcc {
			t.Errorf("while probed the code is % x", got)
		}
		if !probed && !bytes.Equal(got, s.Code) {
			t.Errorf("the code is % x, in the file % x", got, s.Code)
		}
	}
}

// allocRun is a Run in the background.
type allocRun struct {
	p     *Profiler
	k     *keep
	stop  context.CancelFunc
	ended chan error
}

func runAllocs(t *testing.T, c Config, pid int) *allocRun {
	t.Helper()
	c.Kind = KindAllocs
	c.AllocBudget = cmp.Or(c.AllocBudget, -1)
	p, k := start(t, c)
	if err := p.Add(pid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &allocRun{p, k, cancel, make(chan error, 1)}
	go func() { r.ended <- p.Run(ctx) }()
	waitAttached(t, p)
	return r
}

func (r *allocRun) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

// TestProbesAreGone: a target's code is the file's before and after, and a breakpoint only in between; also after Remove.
func TestProbesAreGone(t *testing.T) {
	rate := "50"
	if testprog.Emulated() { // there that many hits take all the time of its CPUs
		rate = "5"
	}
	for name, noMulti := range map[string]bool{"uprobe_multi": false, "perf events": true} {
		t.Run(name, func(t *testing.T) {
			proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-now", "-rate", rate, "-life", "15m")
			other := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-now", "-rate", rate, "-life", "15m")
			r := runAllocs(t, Config{noMulti: noMulti}, proc.PID)
			tg := r.p.targets[uint32(proc.PID)]
			checkCode(t, proc.PID, tg, true)
			checkCode(t, other.PID, tg, false) // the same program, in another process
			r.end(t)
			checkCode(t, proc.PID, tg, false)

			r = runAllocs(t, Config{noMulti: noMulti, Window: time.Hour}, proc.PID)
			tg = r.p.targets[uint32(proc.PID)]
			if err := r.p.Remove(proc.PID); err != nil {
				t.Error(err)
			}
			checkCode(t, proc.PID, tg, false)
			r.end(t)
		})
	}
}

// TestProbedTargetEnds: a target that is killed while it is probed is no error, and what it allocated is in the profile.
func TestProbedTargetEnds(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-mb", "200")
	r := runAllocs(t, Config{}, proc.PID)
	truth := allocate(t, proc)
	proc.Stop()
	if err := <-r.ended; err != nil { // by itself
		t.Error(err)
	}
	checkAllocs(t, only(t, r.k), truth)
}

// TestProbedTargetCallsExec: the probes follow into another Go program, and its allocations are named by it; into one that
// is not Go nothing follows.
func TestProbedTargetCallsExec(t *testing.T) {
	after := testprog.Build(t, "alloc", testprog.Options{Go: "1.27.4"})
	proc := testprog.Start(t, testprog.Build(t, "execer", testprog.Options{}), "-ms", "1000", after, "-mb", "200")
	r := runAllocs(t, Config{}, proc.PID)
	waitNext(t, proc, 2)
	waitAttached(t, r.p)
	for range 500 { // the event of the exec is on its way
		r.p.turn.Lock()
		tg := r.p.targets[uint32(proc.PID)]
		followed := tg.space.Main().Image.Path == after && tg.alloc.attached != nil
		r.p.turn.Unlock()
		if followed {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	waitAttached(t, r.p)
	truth := allocate(t, proc)
	checkCode(t, proc.PID, r.p.targets[uint32(proc.PID)], true)
	r.end(t)
	checkAllocs(t, only(t, r.k), truth)

	proc = testprog.Start(t, testprog.Build(t, "execer", testprog.Options{}), "-ms", "3000", "/bin/sleep", "2")
	r = runAllocs(t, Config{}, proc.PID)
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

// waitNext waits for the n-th line "ready".
func waitNext(t *testing.T, proc *testprog.Proc, n int) {
	t.Helper()
	for range 1000 {
		ready := 0
		for _, line := range proc.Lines() {
			if strings.HasPrefix(line, "ready") {
				ready++
			}
		}
		if ready >= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no %d lines \"ready\" in %q", n, proc.Lines())
}

// TestProgramRebuiltInPlace: a process is probed in the file that it runs, not in the one that its path leads to by now; and
// a process of the new file has no probe that was made for the old one.
func TestProgramRebuiltInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alloc")
	install := func(o testprog.Options) {
		t.Helper()
		b, err := os.ReadFile(testprog.Build(t, "alloc", o))
		if err == nil {
			err = errors.Join(os.WriteFile(path+".new", b, 0o755), os.Rename(path+".new", path))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install(testprog.Options{})
	old := testprog.Start(t, path, "-mb", "200")
	r := runAllocs(t, Config{}, old.PID)
	oldTarget := r.p.targets[uint32(old.PID)]
	install(testprog.Options{Go: "1.18.10"})
	fresh := testprog.Start(t, path, "-mb", "200")
	for _, s := range oldTarget.alloc.chosen() {
		file := make([]byte, len(s.Code))
		readFileAt(t, path, file, int64(s.Addr-0x400000)) // programs without PIE begin there
		if got := codeAt(t, fresh.PID, s.Addr, len(s.Code)); !bytes.Equal(got, file) {
			t.Errorf("the new program has % x where the old one is probed, in its file % x", got, file)
		}
	}
	truth := allocate(t, old)
	r.end(t)
	checkAllocs(t, only(t, r.k), truth)
	install(testprog.Options{Go: "1.27.4"})
	p, truth, _ := allocRound(t, Config{}, fresh) // whose file has gone
	checkAllocs(t, p, truth)
}

func readFileAt(t *testing.T, path string, b []byte, off int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

// TestChangedCodeIsNotProbed: where the file or the process does not have the code that was found, nothing is attached.
func TestChangedCodeIsNotProbed(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}))
	p, _ := start(t, Config{Kind: KindAllocs, Window: time.Hour})
	if err := p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	tg := p.targets[uint32(proc.PID)]
	true0 := tg.alloc.sites.Heap
	forged := slices.Clone(true0)
	forged[0].Code = slices.Clone(forged[0].Code)
	forged[0].Code[0] ^= 0x10
	tg.alloc.sites.Heap = forged
	p.started = time.Now()
	if err := p.attachAllocs(tg); !errors.Is(err, goruntime.ErrNoAllocSites) || !strings.Contains(err.Error(), "was changed") {
		t.Errorf("file: %v", err)
	}
	if err := goruntime.VerifySites(memory{tg.space}, tg.bias, forged); !errors.Is(err, goruntime.ErrNoAllocSites) {
		t.Errorf("process: %v", err)
	}
	tg.alloc.sites.Heap = true0
	checkCode(t, proc.PID, tg, false)
}

// TestProbedAllocsWithFewRights: what the kernel asks of those who probe is enough; opening a mapped file by its mapping,
// which takes CAP_CHECKPOINT_RESTORE, is not needed where it is the program's own.
func TestProbedAllocsWithFewRights(t *testing.T) {
	needs.BPF(t)
	path := testprog.Build(t, "alloc", testprog.Options{})
	const child = "PPROFD_TEST_FEW_RIGHTS"
	if os.Getenv(child) == "" {
		out, err := withCapabilities(t, []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE}, child+"=1")
		if err != nil || !strings.Contains(out, "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	proc := testprog.Start(t, path, "-mb", "300")
	for vma, err := range procfs.New("").Proc(proc.PID).Maps() {
		if err != nil {
			t.Fatal(err)
		}
		link := fmt.Sprintf("/proc/%d/map_files/%x-%x", proc.PID, vma.Start, vma.End)
		if _, err := os.Open(link); !errors.Is(err, os.ErrPermission) {
			t.Fatalf("the test has too many rights: %s can be opened (%v)", link, err)
		}
		break
	}
	p, want, _ := allocRound(t, Config{}, proc)
	checkAllocs(t, p, want)
}

// withCapabilities runs the test once more, in a process that has no other capabilities, and returns its output.
func withCapabilities(t *testing.T, keep []int, env string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), env)
	var out []byte
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and its bounding set with it
		for c := range unix.CAP_LAST_CAP + 1 {
			if !slices.Contains(keep, c) {
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
					done <- err
					return
				}
			}
		}
		var err error
		out, err = cmd.CombinedOutput()
		done <- err
	}()
	err = <-done
	return string(out), err
}

// TestNoSpansYet: a process that uses no spans at the moment is not refused, however old it is: here it stands at its first
// instruction; a garbage collection may have taken them back as well.
func TestNoSpansYet(t *testing.T) {
	needs.BPF(t)
	runtime.LockOSThread() // who begins to trace goes on with it
	defer runtime.UnlockOSThread()
	cmd := exec.Command(testprog.Build(t, "alloc", testprog.Options{}))
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	time.Sleep(1200 * time.Millisecond)
	p, _ := start(t, Config{Kind: KindAllocs, AllocBudget: -1})
	if err := p.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if tg := p.targets[uint32(cmd.Process.Pid)]; !tg.alloc.unverified {
		t.Error("it is taken for verified")
	}
	if err := unix.PtraceDetach(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		p.verifyAllocsLater(p.targets[uint32(cmd.Process.Pid)])
		if !p.targets[uint32(cmd.Process.Pid)].alloc.unverified {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it is not verified 10 s after its start")
}
