package profiler

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// byPath wants the processes of the programs in one directory.
type byPath struct {
	dir string

	mu     sync.Mutex
	names  map[[2]uint64]string
	looked []int // processes
	forgot map[[2]uint64]int
	ban    bool // whatever was wanted is not any more
}

func newByPath(dir string) *byPath {
	return &byPath{dir: dir, names: map[[2]uint64]string{}, forgot: map[[2]uint64]int{}}
}

func (d *byPath) Look(pid int, start uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looked = append(d.looked, pid)
	proc := procfs.New("/proc").Proc(pid)
	exe, err := proc.Exe()
	if err != nil || filepath.Dir(exe) != d.dir {
		return false
	}
	if now, err := proc.StartTime(); err != nil || now != start {
		return false
	}
	d.names[[2]uint64{uint64(pid), start}] = filepath.Base(exe)
	return true
}

func (d *byPath) NotGo(int) (procfs.FileID, bool) { return procfs.FileID{}, false }

func (d *byPath) Labels(pid int, start uint64) (string, []export.Label, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, ok := d.names[[2]uint64{uint64(pid), start}]
	return name, []export.Label{{Name: "exe", Value: name}}, ok && !d.ban
}

func (d *byPath) Forget(pid int, start uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgot[[2]uint64{uint64(pid), start}]++
	delete(d.names, [2]uint64{uint64(pid), start})
}

// programs puts test programs into a directory of their own.
func programs(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Link(testprog.Build(t, name, testprog.Options{}), filepath.Join(dir, name)); err != nil {
			b, err := os.ReadFile(testprog.Build(t, name, testprog.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// TestDiscoveryOfShortProcesses: 200 processes of which nobody told, two at a time, that take 50 ms of CPU and more each, sum
// up to their rusage within 10 %.
func TestDiscoveryOfShortProcesses(t *testing.T) {
	dir := programs(t, "churn")
	d := newByPath(dir)
	r := runWindows(t, Config{Frequency: 99, Window: time.Second, Discovery: d})
	const n = 200
	var truth time.Duration
	var mu sync.Mutex
	var g sync.WaitGroup
	for range 2 {
		g.Go(func() {
			for range n / 2 {
				cmd := exec.Command(filepath.Join(dir, "churn"), "-ms", "60")
				if err := cmd.Run(); err != nil {
					t.Error(err)
				}
				mu.Lock()
				truth += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				mu.Unlock()
			}
		})
	}
	g.Wait()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	var ns int64
	processes := map[[2]uint64]bool{}
	for _, p := range r.keep.profiles {
		processes[[2]uint64{uint64(p.PID), p.StartTicks}] = true
		if p.Service != "churn" || p.Comm != "churn" {
			t.Fatalf("profile of %q, comm %q", p.Service, p.Comm)
		}
		for _, s := range p.Data.Sample {
			ns += s.Value[1]
		}
	}
	share := float64(ns) / float64(truth)
	t.Logf("%d processes in %d profiles: %v of %v: %.3f; %+v", len(processes), len(r.keep.profiles), time.Duration(ns), truth, share, r.p.Stats())
	if math.Abs(share-1) > 0.1 {
		t.Errorf("profiles have %.3f of the CPU time", share)
	}
	if len(processes) < n*95/100 {
		t.Errorf("%d of %d processes have a profile", len(processes), n)
	}
	s := r.p.Stats()
	var exported uint64
	for _, p := range r.keep.profiles {
		for _, s := range p.Data.Sample {
			exported += uint64(s.Value[0])
		}
	}
	if s.Recorded != exported+s.Unwanted {
		t.Errorf("recorded %d, exported %d, unwanted %d", s.Recorded, exported, s.Unwanted)
	}
}

// TestDiscoveryFollowsExec: what a process did before it executed another program is that program's profile, and a program that
// is not wanted ends it.
func TestDiscoveryFollowsExec(t *testing.T) {
	dir := programs(t, "spin", "execer")
	d := newByPath(dir)
	r := runWindows(t, Config{Frequency: 1999, Window: 500 * time.Millisecond, Discovery: d})
	script := strings.ReplaceAll(`true; exec DIR/execer -ms 300 DIR/spin -threads 1 -seconds 600 -cpu 600ms`, "DIR", dir)
	cmd := exec.Command("sh", "-c", script)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	r.holds(t, "the process forgotten", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.forgot) == 1 && len(d.names) == 0
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	sums := map[string]int64{}
	for _, p := range r.keep.profiles {
		for _, s := range p.Data.Sample {
			sums[p.Service] += s.Value[1]
		}
		if p.PID != cmd.Process.Pid {
			t.Errorf("%s is process %d, not %d", p.Service, p.PID, cmd.Process.Pid)
		}
	}
	truth := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if got := time.Duration(sums["execer"] + sums["spin"]); math.Abs(float64(got-truth)) > 0.15*float64(truth) {
		t.Errorf("%v of %v: %v", got, truth, sums)
	}
	if len(sums) != 2 {
		t.Errorf("profiles of %v", sums)
	}
}

// TestDiscoveryLetsGo: a process that is not wanted any more leaves with the window, with the samples of that window.
func TestDiscoveryLetsGo(t *testing.T) {
	dir := programs(t, "spin")
	d := newByPath(dir)
	r := runWindows(t, Config{Frequency: 199, Window: 300 * time.Millisecond, Discovery: d})
	testprog.Start(t, filepath.Join(dir, "spin"), "-threads", "1", "-seconds", "600")
	r.holds(t, "a profile", func() bool { return r.p.past.windows.Profiles > 0 })
	d.mu.Lock()
	d.ban = true
	d.mu.Unlock()
	r.nothing(t, 0)
	before := r.p.Stats().Windows
	time.Sleep(700 * time.Millisecond)
	if now := r.p.Stats().Windows; now.Profiles != before.Profiles || now.Ended == before.Ended {
		t.Errorf("profiles after it was let go: %+v, before %+v", now, before)
	}
	if s := r.p.Stats(); s.Windows.Dropped == 0 || s.Unwanted == 0 {
		t.Errorf("%+v", s)
	}
}

// TestDiscoveryOfOnePIDTwice: two processes of one PID, one right after the other, are two.
func TestDiscoveryOfOnePIDTwice(t *testing.T) {
	needs.Root(t)
	dir := programs(t, "spin", "churn")
	d := newByPath(dir)
	r := runWindows(t, Config{Frequency: 1999, Window: 10 * time.Second, Discovery: d})
	truth := map[string]time.Duration{}
	var pid int
	for i := range 6 {
		name, args := "churn", []string{"-ms", "100"}
		if i%2 == 1 {
			name, args = "spin", []string{"-threads", "1", "-seconds", "600", "-cpu", "200ms"}
		}
		c := startAs(t, pid, filepath.Join(dir, name), args...)
		if c == nil {
			t.Skip("this kernel lets nobody choose the next PID (ns_last_pid)")
		}
		pid = c.Process.Pid
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
		truth[name] += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	sums, starts := map[string]int64{}, map[uint64]string{}
	for _, p := range r.keep.profiles {
		if p.PID != pid {
			t.Errorf("profile of process %d", p.PID)
		}
		if other, twice := starts[p.StartTicks]; twice {
			t.Errorf("two profiles, of %s and %s, of the process of start %d", other, p.Service, p.StartTicks)
		}
		starts[p.StartTicks] = p.Service
		wrong := map[string]string{"churn": "main.thread", "spin": "main.use"}[p.Service]
		for _, s := range p.Data.Sample {
			sums[p.Service] += s.Value[1]
			for _, l := range s.Location {
				for _, line := range l.Line {
					if line.Function.Name == wrong {
						t.Errorf("%s in a profile of %s", wrong, p.Service)
					}
				}
			}
		}
	}
	for name, want := range truth {
		if got := time.Duration(sums[name]); math.Abs(float64(got-want)) > 0.2*float64(want) {
			t.Errorf("%s: %v of %v", name, got, want)
		}
	}
	if len(starts) != 6 {
		t.Errorf("%d processes: %v", len(starts), starts)
	}
}

// startAs starts a program as process pid, 0: any; nil: that cannot be had.
func startAs(t *testing.T, pid int, path string, args ...string) *exec.Cmd {
	t.Helper()
	for range 1000 {
		if pid != 0 && os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid-1), 0) != nil {
			return nil
		}
		c := exec.Command(path, args...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if pid == 0 || c.Process.Pid == pid {
			return c
		}
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	t.Skip("other processes are started too often here for a PID to be had twice")
	return nil
}
