package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/spend"
	"github.com/pprofd/pprofd/profiler"
)

// pipeline is what one configuration samples and where it goes.
type pipeline struct {
	queue  *handover
	store  *file.Store // nil: no files
	kinds  []*kind
	keeper *spend.Keeper        // nil: there is no budget
	cpu    *profiler.CPUWindows // what wall has of CPU profiles; nil: nobody wants them
	cancel context.CancelFunc
	ran    sync.WaitGroup
}

// newPipeline opens the destinations. The kinds open what they need themselves: one that cannot does not stop the others.
func (a *Agent) newPipeline(c *config.Config) (*pipeline, error) {
	store, err := openStore(c)
	if err != nil {
		return nil, fmt.Errorf("directory for profiles: %w", err)
	}
	name := "dir"
	if store == nil {
		name = "spool"
	}
	p := &pipeline{store: store, queue: newHandover(name, newSink(store, a.servers, a.log), a.log)}
	a.metrics.destination(p.queue)
	add := func(name string, open func() (source, error)) {
		p.kinds = append(p.kinds, &kind{name: name, open: open, log: a.log, changed: a.rescan})
	}
	if c.CPU.Enabled && c.Wall.Enabled {
		p.cpu = &profiler.CPUWindows{}
	}
	if c.CPU.Enabled {
		add(profiler.KindCPU, func() (source, error) { return newSampler(a.cpu(c, p), a.metrics.cpu, nil) })
	}
	if kinds := reads(c); len(kinds) > 0 {
		r := &lateReader{}
		add(kindMemory, func() (source, error) { return r.begin(a.readings(c, kinds, p), a.metrics.memory), nil })
		if c.Allocs.Enabled && c.Allocs.Source == sourceAuto {
			add(profiler.KindAllocs, func() (source, error) { return newSampler(a.allocs(c, p), a.metrics.allocs, r.lacks) })
		}
	}
	if c.Allocs.Enabled && c.Allocs.Source == sourceProbe {
		add(profiler.KindAllocs, func() (source, error) { return newSampler(a.allocs(c, p), a.metrics.allocs, nil) })
	}
	if c.Wall.Enabled {
		add(profiler.KindWall, func() (source, error) { return newWaller(a.wall(c, p), a.metrics.wall), nil })
	}
	if p.keeper, err = a.keep(c, p); err != nil {
		return nil, errors.Join(err, p.close(context.Background()))
	}
	return p, nil
}

func openStore(c *config.Config) (*file.Store, error) {
	if c.Dir.Path == "" {
		return nil, nil
	}
	return file.OpenStore(file.StoreOptions{Dir: c.Dir.Path, MaxSize: c.Dir.MaxSize, MaxAge: c.Dir.MaxAge, MaxFiles: c.Dir.MaxFiles})
}

// expire removes profiles that are too old, also where no new one comes.
func (p *pipeline) expire() {
	if p.store != nil {
		p.store.Expire()
	}
}

// reads are the kinds of profiles that are read.
func reads(c *config.Config) (kinds []string) {
	if c.Heap.Enabled {
		kinds = append(kinds, profiler.KindHeap)
	}
	if c.Allocs.Enabled && c.Allocs.Source != sourceProbe {
		kinds = append(kinds, profiler.KindAllocs)
	}
	if c.Block.Enabled {
		kinds = append(kinds, profiler.KindBlock)
	}
	if c.Mutex.Enabled {
		kinds = append(kinds, profiler.KindMutex)
	}
	if c.Goroutine.Enabled {
		kinds = append(kinds, profiler.KindGoroutine)
	}
	return kinds
}

func (a *Agent) cpu(c *config.Config, p *pipeline) profiler.Config {
	return profiler.Config{
		Log: a.log, Kind: profiler.KindCPU, Frequency: c.CPU.Hz, NoKernel: !c.CPU.Kernel, Window: c.Window, Exporter: p.queue, Comments: p.comments,
		ProcRoot: a.o.ProcRoot, Version: a.o.Version, Discovery: a.discovery, MaxTargets: c.MaxTargets, Windows: p.cpu,
	}
}

func (a *Agent) allocs(c *config.Config, p *pipeline) profiler.Config {
	return profiler.Config{
		Log: a.log, Kind: profiler.KindAllocs, Window: c.Window, Exporter: p.queue, Comments: p.comments, AllocInterval: c.Allocs.AllocInterval, AllocBudget: share(c.Allocs.Budget),
		ProcRoot: a.o.ProcRoot, Version: a.o.Version, Discovery: a.discovery, MaxTargets: c.MaxTargets,
	}
}

// share is what the profiler takes: a part of 1, and a negative number for no limit.
func share(percent float64) float64 {
	if percent == 0 {
		return -1
	}
	return percent / 100
}

func (a *Agent) readings(c *config.Config, kinds []string, p *pipeline) profiler.ReadingsConfig {
	return profiler.ReadingsConfig{
		MemoryConfig: profiler.MemoryConfig{Log: a.log, Kinds: kinds, Exporter: p.queue, Comments: p.comments, ProcRoot: a.o.ProcRoot, Version: a.o.Version},
		Interval:     readingInterval(c), Discovery: a.discovery,
	}
}

// readingInterval is that of all that is read: one reading serves all kinds.
func readingInterval(c *config.Config) (interval time.Duration) {
	for _, k := range []config.Memory{c.Heap, c.Allocs.Memory, c.Block, c.Mutex, c.Goroutine} {
		if k.Enabled && (interval == 0 || k.Interval < interval) {
			interval = k.Interval
		}
	}
	return interval
}

func (p *pipeline) start(procs []profiler.Process) {
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	for _, k := range p.kinds {
		k.set(procs)
		p.ran.Go(func() { k.run(ctx) })
	}
	if p.keeper != nil {
		p.ran.Go(func() { p.keeper.Run(ctx) })
	}
}

func (p *pipeline) set(procs []profiler.Process) {
	for _, k := range p.kinds {
		k.set(procs)
	}
}

// settled says whether it is known of each kind whether it runs.
func (p *pipeline) settled() bool {
	return !slices.ContainsFunc(p.kinds, func(k *kind) bool { return !k.settled() })
}

// off names the kinds that do not run, and why.
func (p *pipeline) off() (text string) {
	for _, k := range p.kinds {
		if up, _, why := k.state(); !up && why != nil {
			text += fmt.Sprintf("; %s is off: %v", k.name, why)
		}
	}
	return text
}

// close ends the windows and delivers them, if ctx does not end before.
func (p *pipeline) close(ctx context.Context) error {
	if p.cancel != nil {
		p.cancel()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.ran.Wait()
	}()
	select {
	case <-ended:
		return p.queue.end(ctx)
	case <-ctx.Done():
		go func() { // another pipeline may follow: this one ends when it can
			<-ended
			if err := p.queue.end(context.Background()); err != nil {
				p.queue.log.Error("the end of a window that took long", "error", err)
			}
		}()
		return errors.New("the last window could not be built in time")
	}
}

// What allocs.source may be, beside read.
const (
	sourceAuto  = "auto" // read where there is something to read, else probe
	sourceProbe = "probe"
)

// lateReader knows which processes have nothing to read, once there is a reader.
type lateReader struct {
	mu sync.Mutex
	r  *profiler.Readings
}

func (l *lateReader) begin(c profiler.ReadingsConfig, t *readTotals) source {
	r := newReader(c, t)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r = r.r
	return r
}

// lacks says whether the runtime of p profiles no memory, as far as that is known.
func (l *lateReader) lacks(p profiler.Process) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r != nil && l.r.Lacks(p)
}
