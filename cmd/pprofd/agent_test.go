package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// agentLog is a buffer that is read while a process writes.
type agentLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *agentLog) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *agentLog) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// agentRun is an agent that runs.
type agentRun struct {
	cmd *exec.Cmd
	dir string // of the profiles
	log *agentLog
}

// startAgent starts one that profiles only programs in programs, a directory of this test alone; wrap stands before it. Its rates
// do not adapt, unless args say so: the machine of a test is busy.
func startAgent(t *testing.T, programs string, wrap []string, args ...string) *agentRun {
	t.Helper()
	cmd, _, _ := command(t, args...)
	a := &agentRun{cmd: cmd, dir: filepath.Join(cmd.Dir, "data"), log: new(agentLog)}
	list := append(append([]string{}, wrap...), cmd.Path, "agent", "--dir", a.dir, "--listen", "", "--select", "exe="+programs+"/*", "--window", "1s", "--max-overhead", "0%")
	a.cmd = exec.CommandContext(t.Context(), list[0], append(list[1:], args...)...)
	a.cmd.Dir, a.cmd.Env, a.cmd.Stderr = cmd.Dir, cmd.Env, a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if a.cmd.ProcessState == nil {
			_ = a.cmd.Process.Kill()
			_ = a.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("the agent said:\n%s", a.log)
		}
	})
	until(t, "the agent profiles", func() bool { return strings.Contains(a.log.String(), "msg=profiling") })
	return a
}

// end ends it as systemd does, and says how long that took.
func (a *agentRun) end(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, a.log)
	}
	return time.Since(began)
}

// files are the profiles of one kind, of a process or of all (0).
func (a *agentRun) files(t *testing.T, kind string, pid int) []string {
	t.Helper()
	process := "*-*"
	if pid != 0 {
		process = fmt.Sprintf("%d-*", pid)
	}
	list, err := filepath.Glob(filepath.Join(a.dir, "*", process, kind+"-*.pb.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// cpu is the CPU time in the profiles of a process.
func (a *agentRun) cpu(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	for _, f := range a.files(t, "cpu", pid) {
		for _, s := range readProfile(t, f).Sample {
			sum += time.Duration(s.Value[1])
		}
	}
	return sum
}

// ownPrograms puts test programs into a directory of their own.
func ownPrograms(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		b, err := os.ReadFile(testprog.Build(t, name, testprog.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// spinFor is a process that will end once it has used so much CPU time.
func spinFor(t *testing.T, dir string, cpu time.Duration) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), dir+"/spin", "-threads=1", "-seconds=600", fmt.Sprint("-cpu=", cpu))
}

// rusage is what a process that has ended has used of CPU time.
func rusage(c *exec.Cmd) time.Duration {
	return c.ProcessState.UserTime() + c.ProcessState.SystemTime()
}

var agentFile = regexp.MustCompile(`/spin/[0-9]+-[0-9]+/cpu-[0-9]{8}T[0-9]{6}\.[0-9]{3}Z\.pb\.gz$`)

// TestAgent: processes that ran before and that come later are profiled from their first moment to their last, files appear
// window by window, the last one at SIGTERM within 5 s; one that opts out and one that is not selected have none.
func TestAgent(t *testing.T) {
	bin := ownPrograms(t, "spin", "heap")
	before := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=60")
	heap := testprog.Start(t, bin+"/heap", "-quiet", "-life", "1m")
	start := cpuTime(t, before.PID)
	other := spin(t)
	a := startAgent(t, bin, nil, "--cpu-hz", "1999", "--config", writeConfig(t, "heap: {interval: 2s}\n"))
	least := cpuTime(t, before.PID)
	later := spinFor(t, bin, 2*time.Second) // 4,000 samples, on a machine as busy as it may be
	out := spinFor(t, bin, 500*time.Millisecond)
	out.Env = append(os.Environ(), "PPROFD=off")
	for _, c := range []*exec.Cmd{later, out} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*exec.Cmd{later, out} {
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "a heap profile", func() bool { return len(a.files(t, "heap", heap.PID)) > 0 })
	least = cpuTime(t, before.PID) - least
	if took := a.end(t); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	most := cpuTime(t, before.PID) - start
	whole := rusage(later)
	if got := a.cpu(t, later.Process.Pid); math.Abs(float64(got-whole)) > 0.1*float64(whole) {
		t.Errorf("a later process: %v of %v", got, whole)
	}
	if got := a.cpu(t, before.PID); got < least*9/10 || got > most*11/10 {
		t.Errorf("an earlier process: %v of %v to %v", got, least, most)
	}
	if n := len(a.files(t, "cpu", later.Process.Pid)); n < 2 {
		t.Errorf("%d windows in 2 s and more", n)
	}
	for _, pid := range []int{other.PID, out.Process.Pid} {
		if f := a.files(t, "*", pid); len(f) > 0 {
			t.Errorf("profiles that nobody wants: %v", f)
		}
	}
	windows := a.files(t, "cpu", before.PID)
	for _, f := range windows {
		if !agentFile.MatchString(f) {
			t.Errorf("file %s", f)
		}
	}
	wantSpin(t, windows...) // the last one may be of a few milliseconds
}

// programsOf are the BPF programs that a process holds.
func programsOf(t *testing.T, pid int) (ids []ebpf.ProgramID) {
	t.Helper()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range infos {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		_, rest, ok := strings.Cut(string(b), "prog_id:")
		if !ok {
			continue
		}
		id, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 32)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		ids = append(ids, ebpf.ProgramID(id))
	}
	return ids
}

// loaded counts those that are in the kernel.
func loaded(t *testing.T, ids []ebpf.ProgramID) (n int) {
	t.Helper()
	for _, id := range ids {
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestAgentIsKilled: kill -9 leaves the windows before, and nothing in the kernel; the next one begins with what it finds.
func TestAgentIsKilled(t *testing.T) {
	needs.Root(t)
	bin := ownPrograms(t, "spin")
	p := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=60")
	a := startAgent(t, bin, nil)
	programs := programsOf(t, a.cmd.Process.Pid)
	if n := loaded(t, programs); n < 3 {
		t.Fatalf("it has loaded %d programs", n)
	}
	until(t, "two windows", func() bool { return len(a.files(t, "cpu", p.PID)) >= 2 })
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = a.cmd.Wait()
	for _, f := range a.files(t, "cpu", p.PID) {
		readProfile(t, f)
	}
	until(t, "the kernel has forgotten it", func() bool { return loaded(t, programs) == 0 })
	had := len(a.files(t, "cpu", p.PID))
	b := startAgent(t, bin, nil, "--dir", a.dir)
	until(t, "it goes on", func() bool { return len(a.files(t, "cpu", p.PID)) > had })
	b.end(t)
}

func writeConfig(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "pprofd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAgentReloads: SIGHUP brings a new configuration and loses nothing; one that is wrong is told of, with all that is wrong, and
// changes nothing.
func TestAgentReloads(t *testing.T) {
	bin := ownPrograms(t, "spin")
	conf := writeConfig(t, "cpu: {hz: 499}\n")
	a := startAgent(t, bin, nil, "--config", conf)
	c := spinFor(t, bin, 3*time.Second)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct{ text, says string }{
		{"cpu: {hz: 997}\nlabels: {stage: second}\n", "the configuration was read anew"},
		{"cpu: {hz: none}\nfoo: 1\n", "stays as it was"},
		{"cpu: {hz: 397}\nlabels: {stage: third}\n", "the configuration was read anew"},
	} {
		used, _ := usedCPU(c.Process.Pid)
		until(t, "it has used some time", func() bool { now, _ := usedCPU(c.Process.Pid); return now > used+500*time.Millisecond })
		if err := os.WriteFile(conf, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		n := strings.Count(a.log.String(), step.says)
		if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		until(t, fmt.Sprintf("step %d", i), func() bool { return strings.Count(a.log.String(), step.says) > n })
	}
	if s := a.log.String(); !strings.Contains(s, ":1: cpu.hz") || !strings.Contains(s, ":2: ") {
		t.Errorf("not all that is wrong: %s", s)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	a.end(t)
	whole := rusage(c)
	if got := a.cpu(t, c.Process.Pid); math.Abs(float64(got-whole)) > 0.15*float64(whole) {
		t.Errorf("%v of %v", got, whole)
	}
	seen := map[string]bool{}
	for _, f := range a.files(t, "cpu", c.Process.Pid) {
		for _, line := range readProfile(t, f).Comments {
			if _, rate, ok := strings.Cut(line, " at "); ok {
				seen[rate] = true
			}
			for _, stage := range []string{"second", "third"} {
				seen[stage] = seen[stage] || strings.Contains(line, `stage="`+stage+`"`)
			}
		}
	}
	for _, want := range []string{"499 Hz", "997 Hz", "397 Hz", "second", "third"} {
		if !seen[want] {
			t.Errorf("no profile says %q; %v", want, seen)
		}
	}
}

// TestAgentWithoutBPF: what needs BPF is off, and says what is missing; heaps are read.
func TestAgentWithoutBPF(t *testing.T) {
	setpriv := needs.Tool(t, "setpriv")
	bin := ownPrograms(t, "heap")
	p := testprog.Start(t, bin+"/heap", "-quiet", "-life", "1m")
	a := startAgent(t, bin, []string{setpriv, "--bounding-set=-all,+sys_ptrace,+dac_read_search,+dac_override"},
		"--config", writeConfig(t, "heap: {interval: 2s}\n"))
	until(t, "a heap profile", func() bool { return len(a.files(t, "heap", p.PID)) > 0 })
	if s := a.log.String(); !strings.Contains(s, "kind=cpu") || !strings.Contains(s, "CAP_BPF") {
		t.Errorf("it does not say what is missing: %s", s)
	}
	a.end(t)
}

// TestAgentSurvives what happens to disks and descriptors in the years.
func TestAgentSurvives(t *testing.T) {
	needs.Root(t)
	bin := ownPrograms(t, "spin", "churn")
	p := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=120")
	t.Run("full disk", func(t *testing.T) {
		small := t.TempDir()
		if out, err := exec.Command(needs.Tool(t, "mount"), "-t", "tmpfs", "-o", "size=64k,mode=700", "none", small).CombinedOutput(); err != nil {
			t.Skipf("cannot mount a small file system: %v %s", err, out)
		}
		defer func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) }()
		a := startAgent(t, bin, nil, "--dir", small+"/data")
		a.dir = small + "/data"
		if err := os.WriteFile(small+"/fill", make([]byte, 1<<20), 0o600); err != nil && !strings.Contains(err.Error(), "no space left") {
			t.Fatal(err)
		}
		until(t, "it tells of the full disk", func() bool { return strings.Contains(a.log.String(), "no space left") })
		if err := os.Remove(small + "/fill"); err != nil {
			t.Fatal(err)
		}
		had := len(a.files(t, "cpu", p.PID))
		until(t, "it goes on", func() bool { return len(a.files(t, "cpu", p.PID)) > had })
		a.end(t)
	})
	t.Run("few descriptors", func(t *testing.T) {
		prlimit := needs.Tool(t, "prlimit")
		a := startAgent(t, bin, []string{prlimit, "--nofile=64:64"})
		many := exec.CommandContext(t.Context(), "sh", "-c", "for i in $(seq 40); do "+bin+"/spin -threads=1 -seconds=3 & done; wait")
		if err := many.Run(); err != nil {
			t.Fatal(err)
		}
		had := len(a.files(t, "cpu", p.PID))
		until(t, "it goes on", func() bool { return len(a.files(t, "cpu", p.PID)) > had })
		a.end(t)
	})
	t.Run("stopped for a while", func(t *testing.T) { agentStops(t, bin) })
	t.Run("stopped target", func(t *testing.T) {
		stopped := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=60")
		if err := syscall.Kill(stopped.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		a := startAgent(t, bin, nil)
		until(t, "a window of another", func() bool { return len(a.files(t, "cpu", p.PID)) > 0 })
		if err := syscall.Kill(stopped.PID, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		until(t, "a window of the one that goes on", func() bool { return len(a.files(t, "cpu", stopped.PID)) > 0 })
		a.end(t)
	})
}

// agentStops stops the agent for 3 s, or for PPROFD_STOP (make test-suspend), while processes start, end and go on. Nothing is forgotten
// of their CPU time: what found no room is told as lost. (A machine that is suspended stops its processes, too, and less is to be
// caught up with.)
func agentStops(t *testing.T, bin string) {
	stop := 3 * time.Second
	if v := os.Getenv("PPROFD_STOP"); v != "" {
		var err error
		if stop, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	burn := []string{"-ms=20", "-resident=80"}
	p := testprog.Start(t, bin+"/churn", burn...)
	a := startAgent(t, bin, nil)
	until(t, "a window", func() bool { return len(a.files(t, "cpu", p.PID)) > 0 })
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	seen, used := a.cpu(t, p.PID), cpuOf(t, p.PID)
	brief := exec.CommandContext(t.Context(), bin+"/spin", "-threads=1", "-seconds=1")
	if err := brief.Run(); err != nil {
		t.Fatal(err)
	}
	late := testprog.Start(t, bin+"/churn", burn...)
	time.Sleep(stop)
	had := len(a.files(t, "cpu", p.PID))
	if err := a.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, "it goes on", func() bool { return len(a.files(t, "cpu", p.PID)) > had+1 && len(a.files(t, "cpu", late.PID)) > 1 })
	used = cpuOf(t, p.PID) - used
	a.end(t)
	seen = a.cpu(t, p.PID) - seen
	t.Logf("stopped for %v: %v of the CPU time of a process, %v, are in its profiles", stop, seen, used)
	if math.Abs(float64(seen-used)) > 0.1*float64(used)+float64(time.Second) {
		t.Errorf("%v of %v of CPU time are in profiles", seen, used)
	}
}

// cpuOf is the CPU time that a process has used.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := procfs.New("").Proc(pid).Stat()
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(stat.UTime+stat.STime) * 10 * time.Millisecond
}

// TestAgentConfiguration: all that is wrong is told at once, with lines; what is printed can be loaded.
func TestAgentConfiguration(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("window: 1 fortnight\ncpu:\n  hz: 0\nspeling: 1\nselect: ['exe']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errOut := call(t, "agent", "--config", bad, "--check-config")
	if code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{":1: window", ":3: cpu.hz", ":4: ", ":5: select"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%q is not told: %s", want, errOut)
		}
	}
	code, printed, errOut := call(t, "agent", "--window", "7s", "--print-config")
	if code != 0 || !strings.Contains(printed, "window: 7s") {
		t.Fatalf("exit code %d: %s%s", code, printed, errOut)
	}
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte(printed), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := call(t, "agent", "--config", good, "--check-config"); code != 0 {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	if code, again, _ := call(t, "agent", "--config", good, "--print-config"); code != 0 || again != printed {
		t.Errorf("exit code %d: another configuration:\n%s", code, again)
	}
}

// fetch returns the status and the body.
func fetch(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// metric is the value of one line of /metrics; name has the labels.
func metric(t *testing.T, addr, name string) float64 {
	t.Helper()
	_, body := fetch(t, "http://"+addr+"/metrics")
	for line := range strings.Lines(body) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return math.NaN()
}

// TestAgentOverHTTP: what the agent says of itself is true, also after a reload, and its own profiles need the token.
func TestAgentOverHTTP(t *testing.T) {
	bin := ownPrograms(t, "spin", "heap")
	p := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=60")
	testprog.Start(t, bin+"/heap", "-quiet", "-life", "1m")
	addr := freeAddress(t)
	a := startAgent(t, bin, nil, "--listen", addr, "--config", writeConfig(t, "heap: {interval: 1s}\n"))
	until(t, "two windows", func() bool { return len(a.files(t, "cpu", p.PID)) >= 2 })
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/debug/pprof/heap": 401, "/nothing": 401} {
		if status, body := fetch(t, "http://"+addr+path); status != want {
			t.Errorf("%s: status %d: %s", path, status, body)
		}
	}
	for name, is := range map[string]func(float64) bool{
		`pprofd_kind_up{kind="cpu"}`:                                 func(v float64) bool { return v == 1 },
		`pprofd_kind_up{kind="memory"}`:                              func(v float64) bool { return v == 1 },
		`pprofd_targets{kind="cpu"}`:                                 func(v float64) bool { return v == 2 },
		`pprofd_discovery_processes{verdict="wanted"}`:               func(v float64) bool { return v == 2 },
		`pprofd_samples_lost_total{kind="cpu"}`:                      func(v float64) bool { return v == 0 },
		`pprofd_sampling_hertz{kind="cpu"}`:                          func(v float64) bool { return v == 19 },
		`pprofd_exports_total{destination="dir",result="failed"}`:    func(v float64) bool { return v == 0 },
		`pprofd_exports_total{destination="dir",result="delivered"}`: func(v float64) bool { return v >= 2 },
		`pprofd_memory_readings_total{result="ok"}`:                  func(v float64) bool { return v >= 1 },
		`pprofd_memory_profiles{state="linked_out"}`:                 func(v float64) bool { return v == 1 },
		`process_resident_memory_bytes`:                              func(v float64) bool { return v > 1<<20 },
	} {
		until(t, name, func() bool { return is(metric(t, addr, name)) })
	}
	before := metric(t, addr, `pprofd_samples_recorded_total{kind="cpu"}`)
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "a reload", func() bool { return strings.Contains(a.log.String(), "read anew") })
	if after := metric(t, addr, `pprofd_samples_recorded_total{kind="cpu"}`); after < before || before == 0 {
		t.Errorf("%v samples after a reload, %v before", after, before)
	}
	code, url, errOut := call(t, "url", "--dir", a.dir, "--listen", addr, "heap")
	if code != 0 {
		t.Fatalf("url: exit code %d: %s", code, errOut)
	}
	out, err := exec.Command("go", "tool", "pprof", "-top", strings.TrimSpace(url)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "inuse_space") {
		t.Errorf("go tool pprof: %v: %s", err, out)
	}
	a.end(t)
}
