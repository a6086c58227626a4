package bpf

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDiscover: a process that nobody named is told of at its exec, sampled from then on, and told of at its exit; one that
// was judged to be none is left alone; a child of a target is one until it executes a program.
func TestDiscover(t *testing.T) {
	p := load(t, Options{Frequency: 999, Event: EventCPUClock, Discover: true, MaxTargets: 100})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	const spin = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
	spinner := exec.CommandContext(t.Context(), "sh", "-c", spin)
	if err := spinner.Run(); err != nil {
		t.Fatal(err)
	}
	refused := exec.CommandContext(t.Context(), "sh", "-c", "read wait; "+spin)
	forker := exec.CommandContext(t.Context(), "sh", "-c", "read wait; ("+spin+"; exec true) & wait")
	goRefused, goForker := startWaiting(t, refused), startWaiting(t, forker)
	time.Sleep(50 * time.Millisecond) // until they have executed sh
	if was, err := p.RemoveTarget(uint32(refused.Process.Pid)); err != nil || !was {
		t.Fatalf("RemoveTarget: %v, %v", was, err)
	}
	if err := p.UpdateTarget(uint32(forker.Process.Pid), &Target{}); err != nil { // it is one: not new any more
		t.Fatal(err)
	}
	goRefused()
	goForker()

	got := map[uint32]map[Type]int{}
	order := map[uint32][]Type{}
	drain(t, p, func(r *Record) {
		if got[r.PID] == nil {
			got[r.PID] = map[Type]int{}
		}
		got[r.PID][r.Type]++
		order[r.PID] = append(order[r.PID], r.Type)
	})
	pid := uint32(spinner.Process.Pid)
	if n := got[pid]; n[TypeExec] != 1 || n[TypeExit] != 1 || n[TypeSample] < 5 {
		t.Errorf("spinner: %v", n)
	} else if o := order[pid]; o[0] != TypeExec || o[len(o)-1] != TypeExit {
		t.Errorf("spinner: records in order %v", o)
	}
	if n := got[uint32(refused.Process.Pid)]; n[TypeExec] != 1 || n[TypeExit] != 0 || n[TypeSample] > 5 {
		t.Errorf("refused: %v", n)
	}
	delete(got, pid)
	delete(got, uint32(refused.Process.Pid))
	delete(got, uint32(forker.Process.Pid))
	if ns := pidnsOfUs(t); ns != initialPIDNS {
		t.Skip("children are followed in the initial PID namespace only; all else passed")
	}
	found := false
	for child, n := range got { // the subshell: no exec before its samples
		found = found || n[TypeSample] >= 5 && order[child][0] == TypeSample && n[TypeExec] == 1 && n[TypeExit] == 1
	}
	if !found {
		t.Errorf("no child of the forker among %v", got)
	}
	if u, err := p.Use(); err != nil || u.Targets > 20 {
		t.Errorf("%d targets are left: %v", u.Targets, err)
	}
}

// startWaiting starts a program that waits for a line; what it returns sends one, and waits for the end.
func startWaiting(t *testing.T, c *exec.Cmd) (finish func()) {
	t.Helper()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func pidnsOfUs(t *testing.T) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestIgnore: processes that execute a file that is ignored are not told of, until the file changes.
func TestIgnore(t *testing.T) {
	p := load(t, Options{Frequency: 99, Event: EventCPUClock, Discover: true, MaxTargets: 100})
	program := filepath.Join(t.TempDir(), "program")
	self, err := os.Executable() // where there is nothing else
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(program, b, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, program, 0, unix.STATX_BASIC_STATS, &st); err != nil {
		t.Fatal(err)
	}
	run := func() (pid uint32) {
		t.Helper()
		c := exec.CommandContext(t.Context(), program, "-test.run=^$")
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		return uint32(c.Process.Pid)
	}
	before := run()
	file := Executable{Major: st.Dev_major, Minor: st.Dev_minor, Inode: st.Ino, Size: st.Size, Changed: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec)}
	if err := p.Ignore(file); err != nil {
		t.Fatal(err)
	}
	ignored := run()
	if err := os.Chmod(program, 0o500); err != nil {
		t.Fatal(err)
	}
	changed := run()

	told := map[uint32]bool{}
	drain(t, p, func(r *Record) { told[r.PID] = true })
	if !told[before] || !told[changed] || told[ignored] {
		t.Errorf("told before %v, ignored %v, once it has changed %v", told[before], told[ignored], told[changed])
	}
}
