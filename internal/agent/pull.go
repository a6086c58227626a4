package agent

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/profiler"
)

// Bounds of what is pulled.
const (
	pullHz       = 100 // as runtime/pprof samples
	pullDuration = 30 * time.Second
	pullWindow   = 10 * time.Second
	maxPulls     = 256      // requests at a time: a scraper of many processes asks for them one beside the other
	maxReading   = 4        // of these, that read memory: a process that lets others wait is no reason for all to wait
	maxWalls     = 4        // of these, that sample goroutines: each has a thread that does not let others wait for it
	maxPullBytes = 64 << 20 // of profiles that wait for the rest of their interval, or for those of other processes
)

// puller takes profiles for whoever asks for them over HTTP.
type puller struct {
	a       *Agent
	config  *config.Config
	procs   procfs.FS
	budget  budget
	cpu     *sharing
	reading chan struct{} // one for each reading of processes' memory
	pulls   chan struct{} // one for each request
	walls   chan struct{} // one for each that samples goroutines
	ended   chan struct{}

	mu     sync.Mutex
	closed bool
	under  sync.WaitGroup // requests under way
}

var (
	_ pprofhttp.Source    = (*puller)(nil)
	_ pprofhttp.Inspector = (*puller)(nil)
)

func (a *Agent) newPuller(c *config.Config) *puller {
	u := &puller{
		a: a, config: c, procs: procfs.New(a.o.ProcRoot), reading: make(chan struct{}, maxReading), pulls: make(chan struct{}, maxPulls),
		walls: make(chan struct{}, maxWalls), ended: make(chan struct{}),
	}
	u.budget.most = maxPullBytes
	u.cpu = newSharing(&u.budget, func(out export.Exporter) (*profiler.Profiler, error) {
		return profiler.New(profiler.Config{
			Log: a.log, Kind: profiler.KindCPU, Frequency: pullHz, NoKernel: !c.CPU.Kernel, Window: pullWindow, NoEmpty: true, Exporter: out,
			ProcRoot: a.o.ProcRoot, Version: a.o.Version, MaxTargets: c.MaxTargets,
		})
	})
	return u
}

// stop has what is being sampled answered as it is, and waits until all that is under way has been answered.
func (u *puller) stop() {
	u.mu.Lock()
	if !u.closed {
		u.closed = true
		close(u.ended)
	}
	u.mu.Unlock()
	u.cpu.end()
	u.under.Wait()
}

// enter counts a request in; leave counts it out.
func (u *puller) enter() (leave func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, errEnding
	}
	select {
	case u.pulls <- struct{}{}:
	default:
		return nil, pprofhttp.Busy(busyAfter, "%d profiles are being taken: try again later", maxPulls)
	}
	u.under.Add(1)
	return func() {
		<-u.pulls
		u.under.Done()
	}, nil
}

var errEnding = pprofhttp.Busy(busyAfter, "the agent ends, or begins anew with another configuration")

// Processes implements pprofhttp.Source.
func (u *puller) Processes() []pprofhttp.Process {
	var list []pprofhttp.Process
	for _, i := range u.a.discovery.List() {
		if i.Verdict == discover.Wanted {
			list = append(list, pprofhttp.Process{PID: i.PID, Start: i.Start, Service: i.Service, Comm: i.Comm, Labels: i.Labels})
		}
	}
	return list
}

// Profile implements pprofhttp.Source.
func (u *puller) Profile(ctx context.Context, q pprofhttp.Request) (*profile.Profile, error) {
	leave, err := u.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	procs, err := u.find(q.PID, q.Service)
	if err != nil {
		return nil, err
	}
	var p *profile.Profile
	switch q.Kind {
	case pprofhttp.KindProfile:
		p, err = u.sample(ctx, procs, q.Duration)
	case pprofhttp.KindWall:
		p, err = u.wall(ctx, procs, q.Duration)
	case pprofhttp.KindHeap, pprofhttp.KindAllocs, pprofhttp.KindBlock, pprofhttp.KindMutex, pprofhttp.KindGoroutine:
		p, err = u.memory(ctx, procs, q)
	default:
		err = pprofhttp.NotFound("there is no kind of profile %q", q.Kind)
	}
	if err != nil {
		return nil, explain(err)
	}
	return p, u.stillWanted(procs)
}

// find is what a request is for.
func (u *puller) find(pid int, service string) (list []discover.Info, err error) {
	if pid > 0 {
		i, err := u.process(pid)
		return []discover.Info{i}, err
	}
	for _, i := range u.a.discovery.List() {
		if i.Verdict == discover.Wanted && i.Service == service {
			list = append(list, i)
		}
	}
	if len(list) == 0 {
		return nil, pprofhttp.NoService(service)
	}
	return list, nil
}

// process is the one that has a PID now. Discovery is told of one that it does not know yet.
func (u *puller) process(pid int) (discover.Info, error) {
	start, err := u.procs.Proc(pid).StartTime()
	if err != nil {
		return discover.Info{}, pprofhttp.NotFound("process %d does not run: see /targets for those that do", pid)
	}
	i, known := u.known(pid, start)
	if !known {
		u.a.discovery.Look(pid, start)
		i, known = u.known(pid, start)
	}
	switch {
	case !known:
		return i, pprofhttp.NotFound("process %d is no Go program that the agent can profile: pprofd ps -p %d says why; /targets lists those that it can", pid, pid)
	case i.Verdict == discover.Obstructed:
		return i, pprofhttp.NotFound("process %d (%s) cannot be profiled: %s", pid, i.Comm, i.Obstacle)
	}
	return i, unwanted(&i)
}

func (u *puller) known(pid int, start uint64) (discover.Info, bool) {
	list := u.a.discovery.List()
	n := slices.IndexFunc(list, func(i discover.Info) bool { return i.PID == pid && i.Start == start })
	if n < 0 {
		return discover.Info{}, false
	}
	return list[n], true
}

// whatToDo is about processes that are not profiled.
var whatToDo = map[discover.Verdict]string{
	discover.Unselected: "no expression of select matches it: add one to the agent's configuration",
	discover.Excluded:   "an expression of exclude matches it: remove that from the agent's configuration",
	discover.OptedOut:   "its environment has PPROFD=off: start it without",
	discover.Dropped:    "relabel_configs drop it: change them in the agent's configuration",
	discover.Undecided:  "what its container or pod is called is not known yet: try again in a few seconds",
}

// unwanted says why a process is not to be profiled; nil: it is.
func unwanted(i *discover.Info) error {
	if i.Verdict == discover.Wanted {
		return nil
	}
	return pprofhttp.NotFound("process %d (%s) is not to be profiled: %s", i.PID, i.Comm, whatToDo[i.Verdict])
}

// stillWanted looks whether one of the processes runs a program by now that must not be profiled.
func (u *puller) stillWanted(procs []discover.Info) error {
	was := make(map[discover.Proc]bool, len(procs))
	for i := range procs {
		was[procs[i].Proc] = true
	}
	for _, i := range u.a.discovery.List() {
		if was[i.Proc] && i.Verdict != discover.Wanted {
			return unwanted(&i)
		}
	}
	return nil
}

// explain makes of errors what their client can use.
func explain(err error) error {
	var known *pprofhttp.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, os.ErrNotExist), errors.Is(err, objfile.ErrNotGo): // it has executed another program
		return &pprofhttp.Error{Status: http.StatusNotFound, Err: err}
	case errors.Is(err, profiler.ErrNoMemoryProfile):
		return &pprofhttp.Error{Status: http.StatusNotImplemented, Err: err}
	}
	return err
}

func keys(procs []discover.Info) []profiler.Process {
	list := make([]profiler.Process, len(procs))
	for i := range procs {
		list[i] = profiler.Process(procs[i].Proc)
	}
	return list
}

// sample takes a profile of CPU time.
func (u *puller) sample(ctx context.Context, procs []discover.Info, d time.Duration) (*profile.Profile, error) {
	if d == 0 {
		d = pullDuration
	}
	got, err := u.cpu.sample(ctx, keys(procs), d)
	if err != nil {
		return nil, err
	}
	if len(got.parts) == 0 {
		got.parts = []piece{{data: idle(procs)}}
	}
	return got.profile()
}

// idle is the profile of processes that used no CPU time.
func idle(procs []discover.Info) *profile.Profile {
	cpu := func() *profile.ValueType { return &profile.ValueType{Type: "cpu", Unit: "nanoseconds"} }
	return &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, cpu()}, PeriodType: cpu(), Period: int64(time.Second / pullHz),
		Mapping: []*profile.Mapping{{ID: 1, File: procs[0].Exe}},
	}
}

// Cmdline implements pprofhttp.Inspector.
func (u *puller) Cmdline(pid int) ([]string, error) {
	if _, err := u.process(pid); err != nil {
		return nil, err
	}
	args, err := u.procs.Proc(pid).Cmdline()
	if err != nil {
		return nil, explain(err)
	}
	return args, nil
}

// Names implements pprofhttp.Inspector.
func (u *puller) Names(ctx context.Context, pid int, pcs []uint64) (names []string, err error) {
	leave, err := u.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	i, err := u.process(pid)
	if err != nil {
		return nil, err
	}
	err = u.read(ctx, func(m *profiler.Memory) error {
		names, err = m.Names(profiler.Process(i.Proc), pcs)
		return err
	})
	if err != nil {
		return nil, explain(err)
	}
	return names, nil
}

// budget bounds the memory of profiles that wait.
type budget struct {
	most int64
	used atomic.Int64
}

// take says whether there is room for n more bytes, and takes it.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.most {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }
