package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/agent/notify"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/profiler"
)

// Options say how to run. Config and Log are needed.
type Options struct {
	Config   *config.Config
	Load     func() (*config.Config, error) // reads the configuration anew; nil: it cannot change
	Reload   <-chan os.Signal               // asks for that
	Log      *slog.Logger
	Level    *slog.LevelVar // of Log; may be nil
	ProcRoot string         // "/proc"
	Version  string
}

const (
	scanInterval = 10 * time.Second
	endPatience  = 5 * time.Second // for the last window to be delivered
)

// Agent is the service. Run runs once.
type Agent struct {
	o         Options
	log       *slog.Logger
	discovery *discover.Discovery
	metrics   *metrics
	servers   *servers
	again     chan struct{} // asks for a scan
	began     time.Time
	most      int // processes since memory was given back; of scan alone, as is
	shrunk    int // scans that found many fewer

	mu      sync.Mutex
	config  *config.Config
	pipe    *pipeline
	front   *front
	procs   []profiler.Process
	scanned bool
}

// New prepares all that can be refused: directories, rules, addresses.
func New(o Options) (*Agent, error) {
	a := &Agent{o: o, log: o.Log, config: o.Config, again: make(chan struct{}, 1), began: time.Now()}
	var err error
	if a.discovery, err = discover.New(a.rules(o.Config)); err != nil {
		return nil, err
	}
	a.metrics = newMetrics(a)
	registry, err := newRegistry(a.metrics)
	if err != nil {
		return nil, err
	}
	a.servers = newServers(o.Log, o.Version, registry)
	if err := a.begin(o.Config); err != nil {
		return nil, errors.Join(err, a.servers.close(context.Background()))
	}
	return a, nil
}

// Run profiles until ctx ends. The last window is delivered, if the destinations take it in time.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.discovery.Run(ctx) })
	g.Go(func() error { return a.scan(ctx) })
	g.Go(func() error { return a.sample(ctx) })
	g.Go(func() error { return a.watch(ctx) })
	err := g.Wait()
	a.log.Info("the end", "after", time.Since(a.began).Round(time.Second))
	return err
}

// sample runs one configuration after the other: the windows of one are delivered before the next begins.
func (a *Agent) sample(ctx context.Context) error {
	for {
		c, pipe, front := a.present()
		during, stop := context.WithCancel(ctx)
		served := make(chan error, 1)
		go func() { served <- front.serve(during) }()
		pipe.start(a.processes())
		next, err := a.awaitReload(ctx, c, served)
		if next == nil {
			a.tell(notify.Stopping)
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
		errEnd := pipe.close(end)
		if err != nil || next == nil {
			errEnd = errors.Join(errEnd, a.servers.close(end))
		}
		cancel()
		stop()
		if err == nil {
			err = <-served
		}
		if err != nil || next == nil {
			return errors.Join(err, errEnd)
		}
		if errEnd != nil {
			a.log.Error("the windows of the configuration before were not delivered", "error", errEnd)
		}
		if err := a.replace(c, next); err != nil {
			return errors.Join(err, a.servers.close(context.Background()))
		}
	}
}

// awaitReload waits for a configuration that needs another pipeline; nil: ctx has ended.
func (a *Agent) awaitReload(ctx context.Context, now *config.Config, served chan error) (*config.Config, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case err := <-served:
			return nil, fmt.Errorf("serve %s: %w", now.Listen, cmp.Or(err, errors.New("it has ended")))
		case <-a.o.Reload:
			a.tell(notify.Reloading)
			next, err := a.o.Load()
			if err != nil {
				a.log.Error("the configuration stays as it was", "error", err)
				a.tellReady("the new configuration is wrong; the one before is in force")
				continue
			}
			return next, nil
		}
	}
}

// replace begins anew with another configuration, with the one before where that cannot be.
func (a *Agent) replace(before, next *config.Config) error {
	err := a.begin(next)
	if err == nil {
		a.log.Info("the configuration was read anew")
		a.tellReady("the configuration was read anew")
		return nil
	}
	a.log.Error("the configuration stays as it was", "error", err)
	a.tellReady("the new configuration cannot be used; the one before is in force")
	return a.begin(before)
}

func (a *Agent) tellReady(status string) {
	a.tell(func() error { return notify.Ready(status) })
}

// begin makes what a configuration asks for.
func (a *Agent) begin(c *config.Config) error {
	if err := a.discovery.Reconfigure(a.rules(c)); err != nil {
		return err
	}
	pipe, err := a.newPipeline(c)
	if err != nil {
		return err
	}
	if err := a.servers.configure(c); err != nil {
		return errors.Join(err, pipe.close(context.Background()))
	}
	front, err := a.newFront(c)
	if err != nil {
		return errors.Join(err, pipe.close(context.Background()))
	}
	if a.o.Level != nil {
		if err := a.o.Level.UnmarshalText([]byte(c.Log.Level)); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.config, a.pipe, a.front = c, pipe, front
	a.mu.Unlock()
	a.rescan()
	return nil
}

// rules are what a configuration says of the processes.
func (a *Agent) rules(c *config.Config) discover.Config {
	host, err := os.Hostname()
	if err != nil {
		a.log.Warn("name of this machine", "error", err)
	}
	return discover.Config{
		ProcRoot: a.o.ProcRoot, Host: host, Select: c.Select, Exclude: c.Exclude, Relabel: c.Relabel, Labels: c.Labels, Log: a.log,
		Containers: c.Containers, Kubernetes: a.kubernetes(c),
	}
}

// kubernetes is whom to ask for pods.
func (a *Agent) kubernetes(c *config.Config) discover.Kubernetes {
	k := c.Kubernetes
	if k.Enabled == "false" || k.Kubelet != "" || k.API != "" {
		return k.Kubernetes
	}
	cluster, ok := discover.InCluster(os.Getenv)
	if !ok && k.Enabled == "true" {
		a.log.Error("there is no Kubernetes to ask for pods: give kubernetes.kubelet or kubernetes.api, or set NODE_NAME (to spec.nodeName) in a pod")
	}
	return cluster
}

func (a *Agent) present() (*config.Config, *pipeline, *front) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config, a.pipe, a.front
}

func (a *Agent) processes() []profiler.Process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.procs
}

func (a *Agent) rescan() {
	select {
	case a.again <- struct{}{}:
	default:
	}
}

// scan looks for processes that no event told of, at once and then now and then.
func (a *Agent) scan(ctx context.Context) error {
	tick := time.NewTicker(scanInterval)
	defer tick.Stop()
	for {
		found, err := a.discovery.Scan(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.log.Error("look for processes", "error", err)
		default:
			a.found(found)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-a.again:
		}
	}
}

func (a *Agent) found(list []discover.Proc) {
	procs := make([]profiler.Process, 0, len(list))
	for _, p := range list {
		procs = append(procs, profiler.Process(p))
	}
	a.mu.Lock()
	pipe := a.pipe
	first := !a.scanned && pipe.settled()
	a.procs, a.scanned = procs, a.scanned || first
	a.mu.Unlock()
	pipe.set(procs)
	pipe.expire()
	_ = a.servers.commit() // has removed what is too old; logs errors
	a.giveBack(len(procs))
	if first {
		a.log.Info("profiling", "processes", len(procs))
		a.tellReady(fmt.Sprintf("profiling %d processes at the start%s", len(procs), pipe.off()))
	}
}

// giveBack returns memory to the machine once a quarter of the processes are gone. Go does it by itself, but takes its time, and
// who looks at a service's memory a minute after its processes have gone wants to see that.
func (a *Agent) giveBack(processes int) {
	a.most = max(a.most, processes)
	if processes > a.most*3/4 {
		return
	}
	a.shrunk++
	if a.shrunk < shrunkScans { // their last windows are under way
		return
	}
	a.most, a.shrunk = processes, 0
	debug.FreeOSMemory()
}

// shrunkScans of scanInterval are a window and more.
const shrunkScans = 2
