package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/internal/procfs"
)

// agent is the measured process.
type agent struct {
	cmd    *exec.Cmd
	dir    string // of its profiles
	config string // file
	url    string
	log    bytes.Buffer
	began  time.Time
	done   chan struct{} // closed when it has ended
	err    error         // valid then

	mu      sync.Mutex
	samples []sample
}

// sample is what was seen of it at one moment.
type sample struct {
	at        time.Duration // since its start
	cpu       time.Duration // used since its start
	rss, peak int64         // bytes
}

const (
	sampleInterval = 200 * time.Millisecond
	pollInterval   = 50 * time.Millisecond
	patience       = 30 * time.Second
	clockTick      = 10 * time.Millisecond // of /proc/PID/stat
)

// start runs the agent on this host, with an empty directory.
func (b *bench) start(ctx context.Context, s *situation) (*agent, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	a := &agent{dir: filepath.Join(b.dir, s.name), url: "http://" + address + "/metrics", done: make(chan struct{})}
	args := append([]string{"agent", "--dir", a.dir, "--listen", address}, s.args...)
	if b.own {
		args = append(args, "--select", "exe="+filepath.Join(b.dir, "service*"), "--select", "exe="+b.churner)
	}
	a.config = filepath.Join(b.dir, s.name+".yaml")
	if err := os.WriteFile(a.config, []byte(configure(s)), 0o600); err != nil {
		return nil, err
	}
	args = append(args, "--config", a.config)
	if err := os.Mkdir(a.dir, 0o700); err != nil {
		return nil, err
	}
	a.cmd = exec.CommandContext(ctx, b.agent, args...)
	a.cmd.Stderr = &a.log
	a.began = time.Now()
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(a.done)
		a.err = a.cmd.Wait()
	}()
	go a.watch()
	return a, nil
}

// watch takes samples until the agent has ended.
func (a *agent) watch() {
	for tick := time.NewTicker(sampleInterval); ; {
		if s, err := a.look(); err == nil && s.rss > 0 { // else it is about to be reaped
			a.mu.Lock()
			a.samples = append(a.samples, s)
			a.mu.Unlock()
		}
		select {
		case <-a.done:
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

func (a *agent) look() (s sample, err error) {
	pid := a.cmd.Process.Pid
	stat, err := procfs.New("").Proc(pid).Stat()
	if err != nil {
		return s, err
	}
	s.at, s.cpu = time.Since(a.began), time.Duration(stat.UTime+stat.STime)*clockTick
	s.rss, s.peak, err = agents.Memory(pid)
	return s, err
}

// between are the samples of a part of the time.
func (a *agent) between(from, to time.Duration) (list []sample) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.samples {
		if s.at >= from && s.at <= to {
			list = append(list, s)
		}
	}
	return list
}

// mark is all that is known at a moment.
type mark struct {
	sample
	bpf      time.Duration
	bpfRuns  int64
	switches int64 // of threads that went to sleep
	metrics  map[string]float64
	disk     int64 // bytes
}

func (a *agent) mark() (m mark, err error) {
	s, err1 := a.look()
	metrics, err2 := agents.Metrics(a.url)
	disk, err3 := a.disk()
	switches, err4 := sleeps(a.cmd.Process.Pid)
	bpf, runs, err5 := agents.ProgramTime(a.cmd.Process.Pid)
	return mark{s, bpf, runs, switches, metrics, disk}, errors.Join(err1, err2, err3, err4, err5)
}

// sleeps adds up how often the threads of a process gave up their CPU by themselves.
func sleeps(pid int) (sum int64, err error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	for _, t := range tasks {
		b, err := os.ReadFile(filepath.Join(dir, t.Name(), "status"))
		if err != nil {
			continue // it has ended
		}
		n, err := strconv.ParseInt(agents.ParseFields(b)["voluntary_ctxt_switches"], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, err
}

// file is a profile on disk.
type file struct {
	path, service, kind string
	pid                 int
}

// files are the profiles that are there. Those that come or go meanwhile may be missing.
func (a *agent) files() (list []file, err error) {
	err = filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".pb.gz") {
			return err
		}
		process, name := filepath.Split(path)
		pid, _, _ := strings.Cut(filepath.Base(process), "-")
		kind, _, _ := strings.Cut(name, "-")
		f := file{path: path, service: filepath.Base(filepath.Dir(filepath.Dir(path))), kind: kind}
		if f.pid, err = strconv.Atoi(pid); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, f)
		return nil
	})
	return list, err
}

// disk is the space that the profiles take, as the disk counts.
func (a *agent) disk() (sum int64, err error) {
	list, err := a.files()
	for _, f := range list {
		var st syscall.Stat_t
		if err := syscall.Lstat(f.path, &st); err == nil {
			sum += st.Blocks * 512
		}
	}
	return sum, err
}

// profiled waits until each of the processes has a profile on disk.
func (a *agent) profiled(ctx context.Context, pids []int) (time.Duration, error) {
	return a.await(ctx, fmt.Sprintf("profiles of %d processes", len(pids)), func() (bool, error) {
		there := map[int]bool{}
		list, err := a.files()
		for _, f := range list {
			there[f.pid] = true
		}
		for _, pid := range pids {
			if !there[pid] {
				return false, err
			}
		}
		return true, err
	})
}

const targetsMetric = `pprofd_targets{kind="cpu"}`

// sampled waits until the agent says that it samples so many processes.
func (a *agent) sampled(ctx context.Context, n int) (time.Duration, error) {
	return a.await(ctx, fmt.Sprintf("%d targets", n), func() (bool, error) {
		m, err := agents.Metrics(a.url)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return false, nil
		}
		return m[targetsMetric] >= float64(n), err
	})
}

// await polls; it returns the time since the agent's start.
func (a *agent) await(ctx context.Context, what string, there func() (bool, error)) (time.Duration, error) {
	for {
		ok, err := there()
		passed := time.Since(a.began)
		switch {
		case err != nil:
			return 0, fmt.Errorf("wait for %s: %w", what, err)
		case ok:
			return passed, nil
		case passed > patience:
			return 0, fmt.Errorf("no %s within %v", what, patience)
		}
		select {
		case <-a.done:
			return 0, fmt.Errorf("the agent ended: %w\n%s", a.err, a.log.Bytes())
		default:
		}
		if err := sleep(ctx, pollInterval); err != nil {
			return 0, err
		}
	}
}

// reload gives the agent another configuration.
func (a *agent) reload(text string) error {
	if err := os.WriteFile(a.config, []byte(text), 0o600); err != nil {
		return err
	}
	return a.cmd.Process.Signal(syscall.SIGHUP)
}

// end asks the agent to end, and waits for that.
func (a *agent) end() error {
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-a.done:
		if a.err != nil {
			return fmt.Errorf("the agent: %w\n%s", a.err, a.log.Bytes())
		}
		return nil
	case <-time.After(patience):
		return errors.New("the agent does not end")
	}
}

// kill ends it in any case.
func (a *agent) kill() {
	a.cmd.Process.Kill()
	<-a.done
}

// found is what profiles say of some processes.
type found struct {
	named int           // of these processes have profiles
	cpu   time.Duration // in them
}

// cpuOf reads the CPU profiles of processes.
func (a *agent) cpuOf(pids map[int]time.Duration) (f found, err error) {
	list, err := a.files()
	if err != nil {
		return f, err
	}
	seen := map[int]bool{}
	for _, file := range list {
		if _, ok := pids[file.pid]; !ok || file.kind != "cpu" || file.service == "" {
			continue
		}
		seen[file.pid] = true
		sum, err := cpuIn(file.path)
		if err != nil {
			return f, err
		}
		f.cpu += sum
	}
	f.named = len(seen)
	return f, nil
}

// cpuIn adds up a CPU profile.
func cpuIn(path string) (sum time.Duration, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	p, err := profile.ParseData(b)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	for i, t := range p.SampleType {
		if t.Unit != "nanoseconds" {
			continue
		}
		for _, s := range p.Sample {
			sum += time.Duration(s.Value[i])
		}
	}
	return sum, nil
}
