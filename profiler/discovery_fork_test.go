package profiler

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// knowing is byPath that knows one file to be no Go program.
type knowing struct {
	*byPath
	path string
	file procfs.FileID
}

func (d *knowing) NotGo(pid int) (procfs.FileID, bool) {
	exe, err := procfs.New("/proc").Proc(pid).Exe()
	return d.file, err == nil && exe == d.path
}

// fileID names a file as package procfs does.
func fileID(t *testing.T, path string) procfs.FileID {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS, &st); err != nil {
		t.Fatal(err)
	}
	return procfs.FileID{Dev: procfs.Dev{Major: st.Dev_major, Minor: st.Dev_minor}, Inode: st.Ino, Size: st.Size,
		Changed: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec)}
}

// tally keeps of which processes records tell that they have executed a program.
type tally struct {
	*bpf.Probes

	mu    sync.Mutex
	execs []int
}

func (s *tally) Read(r *bpf.Record, deadline time.Time) error {
	err := s.Probes.Read(r, deadline)
	if err == nil && r.Type == bpf.TypeExec {
		s.mu.Lock()
		s.execs = append(s.execs, int(r.PID))
		s.mu.Unlock()
	}
	return err
}

// among counts those of list that are among pids.
func among(pids map[int]bool, list []int) (n int) {
	for _, pid := range list {
		if pids[pid] {
			n++
		}
	}
	return n
}

// spawned are the processes that the program spawner has started.
func spawned(t *testing.T, p *testprog.Proc) map[int]bool {
	t.Helper()
	pids := map[int]bool{}
	for word := range strings.FieldsSeq(strings.TrimPrefix(p.WaitLine(t, "spawned ", time.Minute), "spawned ")) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids[pid] = true
	}
	return pids
}

// late registers child only once it executes another program.
type late struct {
	*bpf.Probes
	parent string

	child atomic.Int64 // that was registered late
}

func (s *late) SetTarget(pid uint32, target *bpf.Target) error {
	proc := procfs.New("/proc").Proc(int(pid))
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stat, err := proc.Stat()
		exe, errExe := proc.Exe()
		if err != nil || errExe != nil || stat.PPID == os.Getpid() {
			break
		}
		if exe != s.parent {
			s.child.Store(int64(pid))
			break
		}
	}
	return s.Probes.SetTarget(pid, target)
}

// TestAdoptedTooLate: a child that is sampled, and executes a stranger before it is registered, is no target.
func TestAdoptedTooLate(t *testing.T) {
	needs.BPF(t)
	stranger, err := exec.LookPath("sleep")
	if err == nil {
		stranger, err = filepath.EvalSymlinks(stranger)
	}
	if err != nil {
		t.Fatal(err)
	}
	parent := testprog.Build(t, "vforker", testprog.Options{Cgo: true})
	d := &knowing{byPath: newByPath(filepath.Dir(parent)), path: stranger, file: fileID(t, stranger)}
	probes, err := bpf.Load(bpf.Options{Frequency: 99, Event: bpf.EventCPUClock, Discover: true, MaxTargets: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if err := probes.Ignore(flat(d.file)); err != nil {
		t.Fatal(err)
	}
	source := &late{Probes: probes, parent: parent}
	r := runWindows(t, Config{Frequency: 99, Window: 500 * time.Millisecond, Discovery: d, Source: source})
	proc := testprog.Start(t, parent, "-burn", stranger, "60")
	r.holds(t, "the child registered late", func() bool { return source.child.Load() != 0 })
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		pids := r.p.PIDs()
		u, err := probes.Use()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(pids, uint32(source.child.Load())) && u.Targets <= 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("process %d, which runs %s, is a target: %v, %+v", source.child.Load(), stranger, pids, u)
		}
	}
	proc.Stop()
}

func flat(f procfs.FileID) bpf.Executable {
	return bpf.Executable{Major: f.Dev.Major, Minor: f.Dev.Minor, Inode: f.Inode, Size: f.Size, Changed: f.Changed}
}

// TestDiscoveryOfSpawners: of children that execute what is known to be no Go program nothing is told, and nothing is left; a Go
// program that is executed is found, and what both used is in their profiles.
func TestDiscoveryOfSpawners(t *testing.T) {
	stranger, err := exec.LookPath("true")
	if err == nil {
		stranger, err = filepath.EvalSymlinks(stranger)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := programs(t, "spawner", "churn")
	d := &knowing{byPath: newByPath(dir), path: stranger, file: fileID(t, stranger)}
	probes, err := bpf.Load(bpf.Options{Frequency: 499, Discover: true, MaxTargets: 4096})
	if err != nil {
		t.Fatal(err)
	}
	counted := &tally{Probes: probes}
	r := runWindows(t, Config{Frequency: 499, Window: 500 * time.Millisecond, Discovery: d, Source: counted})
	const n = 3000
	proc := testprog.Start(t, filepath.Join(dir, "spawner"), "-n", fmt.Sprint(n), "-last", filepath.Join(dir, "churn")+" -ms 1000", stranger)
	children := spawned(t, proc)
	line := proc.WaitLine(t, "used", time.Minute)
	proc.Stop()
	var used, lastPID, lastUsed int64
	for _, l := range append(proc.Lines(), line) {
		_, _ = fmt.Sscanf(l, "used %d", &used)
		_, _ = fmt.Sscanf(l, "last %d %d", &lastPID, &lastUsed)
	}
	r.holds(t, "no targets", func() bool { u, err := probes.Use(); return err == nil && u.Targets == 0 && len(r.p.targets) == 0 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	looks, execs := among(children, d.looked), among(children, counted.execs)
	t.Logf("%d looks, %d records; used %v, %v", looks, execs, time.Duration(used), time.Duration(lastUsed))
	// Children that are sampled between fork and exec become targets.
	if execs > n/10 || looks > n/4 {
		t.Errorf("%d records of %d children, %d looks", execs, n, looks)
	}
	sums := map[string]int64{}
	for _, p := range r.keep.profiles {
		for _, s := range p.Data.Sample {
			sums[p.Service] += s.Value[1]
		}
		if p.Service == "churn" && int64(p.PID) != lastPID {
			t.Errorf("churn is process %d, not %d", p.PID, lastPID)
		}
	}
	if got := sums["churn"]; math.Abs(float64(got-lastUsed)) > 0.2*float64(lastUsed) {
		t.Errorf("churn: %v of %v", time.Duration(got), time.Duration(lastUsed))
	}
	// It runs for 0.1 ms at a time, of which the kernel's clock has more than ticks: three quarters were seen.
	if got := sums["spawner"]; float64(got) < 0.5*float64(used) || float64(got) > 1.5*float64(used) {
		t.Errorf("spawner: %v of %v", time.Duration(got), time.Duration(used))
	}
	if s := r.p.Stats(); s.NoRoom+s.LostEvents > 0 {
		t.Errorf("%+v", s)
	}
}
