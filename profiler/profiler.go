// Package profiler is the pipeline: the one place where the parts meet.
//
// Run reads records from the kernel (bpf), completes their stacks (unwind), counts them by address (internal/aggregate),
// and at the end of the window names the addresses (symbolize) and hands one profile per target to an export.Exporter.
package profiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/unwind"
)

// Config says what to profile and how. The zero value of a field means its default.
type Config struct {
	Log       *slog.Logger
	Kind      string // KindCPU; or KindAllocs: what is allocated, seen by probes in the code of the targets
	Frequency int    // samples per second and CPU; 99
	Event     string // "" (cycles where there are any, else cpu-clock), "cpu-clock", "cycles"
	NoKernel  bool   // leave kernel stacks out
	Goid, TID bool   // add the labels goid, tid
	Merge     bool   // one profile for all targets
	// Window is the time after which profiles are exported, over and over. Targets may come and go: Run does not end with
	// the last one, and forgets at the end of a window which have ended. 0: one profile, at the end of Run.
	Window   time.Duration
	Exporter export.Exporter
	ProcRoot string // "/proc"
	Version  string // of pprofd, for the profile's comments
	CPUs     int    // how many are sampled: memory is bounded by them; those that this process may run on
	TuneGC   bool   // the garbage collector is the Profiler's to set, unless the environment has GOGC
	Source   Source // where records come from; Close closes it; nil: the kernel, by package bpf

	// Discovery makes targets of processes as they come, beside those of Add; needs Window. Profiles without samples are not
	// exported then. nil: there are no others.
	Discovery  Discovery
	MaxTargets int // at the same time; 4,096
	// NoEmpty leaves out profiles without samples, also without Discovery.
	NoEmpty bool

	// AllocInterval is the bytes of allocation between two samples, on average: 512 KiB.
	AllocInterval int64
	// AllocBudget is the share of one CPU that the probes in a target may cost it, 0.007; beyond, they are there for a part
	// of the time only. Negative: no limit.
	AllocBudget float64
	// Comments are lines that each profile gets beside its own; may be nil. Run calls it once a window.
	Comments func() []string
	Windows  *CPUWindows // is handed each window's profiles, too; nil: nobody is

	noLoop  bool // for tests: do without bpf_loop, as kernels before 5.17 must
	noMulti bool // for tests: do without uprobe_multi links, as kernels before 6.6 must
}

// Source of records: a *bpf.Probes, or a *bpf.Replay of what one recorded. See there for the methods.
type Source interface {
	SetTarget(pid uint32, t *bpf.Target) error
	UpdateTarget(pid uint32, t *bpf.Target) error
	RemoveTarget(pid uint32) (was bool, err error)
	ForgetLosses(pid uint32) error
	Start() error
	Stop() error
	Flush() error
	Read(rec *bpf.Record, deadline time.Time) error
	Stats() (bpf.Stats, error)
	Losses() (map[uint32]bpf.Loss, error)
	Throttled() (map[uint32]bpf.Loss, error)
	Event() bpf.Event
	Close() error
}

var (
	_ Source = (*bpf.Probes)(nil)
	_ Source = (*bpf.Replay)(nil)
)

// KindCPU is the kind of profiles of CPU time.
const KindCPU = "cpu"

const (
	defaultAllocBudget = 0.007
	defaultMaxTargets  = 4096
)

const (
	defaultFrequency = 99
	statsTicks       = 4
	floodRecords     = 256 // after so many it is looked whether the reader has not waited for long
)

// Profiler samples targets. All methods may be called at any time, from any goroutine, except that Run runs once and Close
// comes last. Add and Remove wait while Run exports.
type Profiler struct {
	cfg    Config
	probes Source
	allocs *allocs       // of KindAllocs
	batch  batch         // Run's alone
	poll   time.Duration // Run's alone: for how long it waits while the ring buffer is not a quarter full

	turn     sync.Mutex // all below, up to changed: Run takes it from batch to batch
	opener              // whose images are all targets'
	unwinder *unwind.Unwinder
	layouts  layouts
	kept     map[objfile.ImageID]bool // programs of targets that ended in the window before; references to their images
	table    *aggregate.Table
	targets  map[uint32]*target // by PID
	all      []*target          // of this window, by target.id - 1
	past     past
	refused  map[uint32]uint64           // start times by PID: no targets, whose samples may still be in the ring buffer
	ignored  map[procfs.FileID]time.Time // executables of which the kernel side tells no more: since when
	swept    time.Time
	counted  counted
	rate     rate
	input    unwind.Input
	labels   []bpf.Label
	labelIDs labelIDs
	started  time.Time // of the window
	names    keptNames // kept from cut to cut
	lastRead bpf.Stats
	ticks    int
	changed  time.Time // when a target came, or ran another program, of which more is to be learned

	cutting atomic.Bool // Cut is in use: that the ring buffer was read to its end does not mean that Run ends
	stopped atomic.Bool // it does

	userTime atomic.Int64 // of Run, ns

	mu    sync.Mutex
	stats Stats
	noted time.Time // when Notes began anew
	asked time.Time // when Stats was called last
	cuts  []cut     // that wait
	ended bool      // none can come
}

// past counts what is over.
type past struct {
	targets  int    // of earlier windows, that are not in Profiler.all
	unwanted uint64 // samples
	failed   uint64 // processes
	windows  Windows
}

// New loads what the kernel must do and checks that it may. Errors name the missing capability or kernel version.
func New(c Config) (*Profiler, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Frequency == 0 {
		c.Frequency = defaultFrequency
	}
	if c.ProcRoot == "" {
		c.ProcRoot = "/proc"
	}
	if c.Discovery != nil && c.Window == 0 {
		return nil, errors.New("profiles of all processes need a window")
	}
	c.MaxTargets = cmp.Or(c.MaxTargets, defaultMaxTargets)
	c.Kind = cmp.Or(c.Kind, KindCPU)
	c.AllocBudget = cmp.Or(c.AllocBudget, defaultAllocBudget)
	c.AllocInterval = cmp.Or(c.AllocInterval, bpf.DefaultAllocInterval)
	c.collectAt(fewGCPercent)
	probes, allocs, err := c.open()
	if err != nil {
		return nil, err
	}
	o := newOpener(c.ProcRoot)
	c.Version = cmp.Or(c.Version, "(devel)")
	return &Profiler{
		cfg: c, probes: probes, allocs: allocs, opener: o,
		unwinder: unwind.New(o.images), table: aggregate.New(aggregate.Limits{}),
		layouts: make(layouts), targets: make(map[uint32]*target), counted: newCounted(), rate: newRate(&c),
		refused: make(map[uint32]uint64), ignored: make(map[procfs.FileID]time.Time), swept: time.Now(), noted: time.Now(),
	}, nil
}

// open returns the configured source of records, else loads the BPF programs.
func (c *Config) open() (Source, *allocs, error) {
	switch {
	case c.Source != nil:
		return c.Source, nil, nil
	case c.Kind == KindAllocs:
		a, err := c.openAllocs()
		if err != nil {
			return nil, nil, err
		}
		return a.probes, a, nil
	}
	event := bpf.Event(c.Event)
	if c.Event == "auto" {
		event = bpf.EventAuto
	}
	probes, err := bpf.Load(bpf.Options{Frequency: c.Frequency, Event: event, NoKernel: c.NoKernel, NoLoop: c.noLoop,
		Discover: c.Discovery != nil, MaxTargets: c.MaxTargets})
	return probes, nil, err
}

// Stats counts since New. Recorded = exported + lost + unwanted, exactly, once Run has returned.
type Stats struct {
	Recorded  uint64 // samples that the kernel took of targets, lost ones included
	Lost      uint64 // of these, in the profiles as [lost]
	Truncated uint64 // stacks that end in [truncated]
	Broken    uint64 // stacks that end in [broken]
	Unwanted  uint64 // of processes that Discovery refused, or that had ended before it was asked
	Targets   int
	Exited    int
	Failed    uint64   // processes that Discovery wants and that could not be opened
	Notes     []string // what the user should know: a target has exited, labels are unknown, ...

	StalePID, LostEvents, NoRoom uint64 // see bpf.Stats
	Windows                      Windows

	// What it cost, and what was seen for it. Throttled samples are not among Recorded.
	Ticks, Hits, Throttled, BadSpans uint64        // see bpf.Stats
	BPFTime                          time.Duration // of all programs: bpf.Stats.RunTime
	UserTime                         time.Duration // CPU time of Run, which does all that is done for samples, but for its waiting
}

// Windows counts those that have ended.
type Windows struct {
	Ended    uint64
	Profiles uint64        // handed on
	Failures uint64        // of these, not taken
	Dropped  uint64        // not handed on, since Discovery did not want their process any more
	Building time.Duration // in all, to build them and to hand them on
	Last     time.Time     // when the last one ended
}

// Stats is safe to call from other goroutines while Run runs.
func (p *Profiler) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = time.Now()
	s := p.stats
	s.Notes = slices.Clone(s.Notes)
	return s
}

// note tells the user something, once.
func (p *Profiler) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.stats.Notes, text) && len(p.stats.Notes) < 100 {
		p.stats.Notes = append(p.stats.Notes, text)
		p.cfg.Log.Info(text)
	}
}

// Run samples until ctx ends or, without Config.Window, every target has exited, then exports the profiles. The end of ctx
// is no error. The exporter gets a context of its own: what was gathered is delivered also after ctx has ended.
func (p *Profiler) Run(ctx context.Context) error {
	if err := p.start(); err != nil {
		return err
	}
	p.cfg.Windows.begin()
	defer p.cfg.Windows.end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error {
		<-ctx.Done()
		err := p.probes.Stop()
		p.stopped.Store(true)
		return errors.Join(err, p.probes.Flush())
	})
	g.Go(func() error {
		defer cancel()
		return p.read(ctx, cancel)
	})
	err := g.Wait()
	defer p.endCuts()
	p.turn.Lock()
	defer p.turn.Unlock()
	p.stopAllocs()
	return errors.Join(err, p.export(context.WithoutCancel(ctx)))
}

func (p *Profiler) start() error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if len(p.all) == 0 && p.cfg.Window == 0 {
		return errors.New("nothing to profile: no process was added")
	}
	p.started = time.Now()
	p.rate.restart(p.started)
	if p.rate.off {
		return nil
	}
	return errors.Join(p.probes.Start(), p.startAllocs())
}

// tick does what is due when the ring buffer has just been read to its end.
func (p *Profiler) tick(ctx context.Context) {
	p.endGone()
	p.due(ctx)
}

// tickInFlood does what is due while the ring buffer never is empty.
func (p *Profiler) tickInFlood(ctx context.Context) {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.due(ctx)
}

// due does what is to be done now and then: publish numbers, look again at what could not be verified, end windows. The
// kernel side's numbers cost a system call for each counter.
func (p *Profiler) due(ctx context.Context) {
	if p.ticks++; p.ticks%statsTicks == 1 || p.poll >= watchedInterval {
		p.readStats()
	}
	now := time.Now()
	for _, t := range p.targets {
		p.verifyLater(t)
		p.verifyAllocsLater(t)
		p.turnAllocs(t, now)
	}
	p.publish()
	if p.cfg.Window > 0 && now.Sub(p.started) >= p.cfg.Window {
		p.endWindow(ctx)
	}
	p.poll = p.patience(now)
}

func (p *Profiler) readStats() {
	s, err := p.probes.Stats()
	if err != nil {
		return
	}
	missed := s.LostEvents > p.lastRead.LostEvents
	p.lastRead = s
	if missed {
		p.catchUp()
	}
}

// export builds the window's profiles and hands them on, one at a time.
func (p *Profiler) export(ctx context.Context) error {
	began := time.Now()
	duration := began.Sub(p.started)
	defer p.cfg.Windows.ends(p.started, began)()
	defer func() {
		p.past.windows.Ended++
		p.past.windows.Last = time.Now()
		p.past.windows.Building += time.Since(began)
	}()
	if err := p.countLosses(); err != nil {
		return err
	}
	p.publish()
	if p.cfg.Exporter == nil {
		return nil
	}
	p.rate.comments = nil
	if p.cfg.Comments != nil {
		p.rate.comments = p.cfg.Comments()
	}
	sym := p.symbolizer(began)
	o := aggregate.BuildOptions{
		Kind: p.kind(), Type: "cpu", Unit: "nanoseconds", Period: p.rate.period(),
		Start: p.started, Duration: duration, Merge: p.cfg.Merge, TargetLabels: p.targetLabels, Weight: p.throttleWeights(),
		Main: func(id uint32) objfile.ImageID { return p.all[id-1].main },
	}
	if p.allocs != nil {
		o.Objects, o.Period = p.objects(), p.cfg.AllocInterval
	}
	p.nameAll()
	for _, t := range p.all {
		if p.cfg.Discovery == nil && !p.cfg.NoEmpty {
			o.Targets = append(o.Targets, t.id)
		}
		p.tellNotGo(t)
	}
	var errs []error
	var empty []*target
	for b := range p.table.Build(p.images.Get, sym, o) {
		if b.Target > 0 && b.Samples.Count+b.Lost.Count == 0 && b.Lost.Sum == 0 {
			empty = append(empty, p.all[b.Target-1])
		}
		errs = append(errs, p.deliver(ctx, b, duration))
	}
	p.tellEmpty(empty)
	for _, n := range sym.Notes() {
		p.note("%s", n)
	}
	return errors.Join(errs...)
}

// tellNotGo tells of a target that ended up in a program that is not Go; on the way to a Go program, as with env(1) and
// shells, nobody wants to know.
func (p *Profiler) tellNotGo(t *target) {
	if t.notGo != "" {
		p.note("%s", t.notGo)
	}
}

// tellEmpty tells of profiles without samples.
func (p *Profiler) tellEmpty(empty []*target) {
	switch {
	case p.cfg.Window > 0: // the next may have some
	case len(empty) > 3:
		p.note("%d of %d processes used no CPU time that was sampled: their profiles are empty", len(empty), len(p.all))
	case p.allocs != nil:
		for _, t := range empty {
			p.note("process %d (%s) allocated nothing that was sampled: its profile is empty", t.pid, t.comm)
		}
	default:
		for _, t := range empty {
			p.note("process %d (%s) used no CPU time that was sampled: its profile is empty", t.pid, t.comm)
		}
	}
}

// targetLabels name the process in a merged profile.
func (p *Profiler) targetLabels(id uint32) []aggregate.Label {
	if !p.cfg.Merge || id == 0 || int(id) > len(p.all) {
		return nil
	}
	t := p.all[id-1]
	return []aggregate.Label{{Key: "comm", Value: t.comm}, {Key: "pid", Value: fmt.Sprint(t.pid)}}
}

func (p *Profiler) deliver(ctx context.Context, b aggregate.Built, d time.Duration) error {
	out := &export.Profile{Kind: p.cfg.Kind, Start: p.started, Duration: d, Data: b.Profile}
	if !p.cfg.Merge && b.Target > 0 && int(b.Target) <= len(p.all) {
		t := p.all[b.Target-1]
		if t.name.unwanted {
			p.past.windows.Dropped++
			p.past.unwanted += uint64(b.Samples.Count)
			return nil
		}
		out.PID, out.StartTicks, out.Comm = int(t.pid), t.start, t.comm
		out.Service, out.Labels = t.name.service, t.name.labels
	}
	b.Profile.Comments = append(b.Profile.Comments, "pprofd "+p.cfg.Version)
	b.Profile.Comments = append(b.Profile.Comments, p.source(b.Target)...)
	b.Profile.Comments = append(b.Profile.Comments, p.rate.comments...)
	b.Profile.Comments = append(b.Profile.Comments, export.SamplesComment(uint64(b.Samples.Count+b.Lost.Count), uint64(b.Lost.Count)))
	p.past.windows.Profiles++
	p.cfg.Windows.add(out)
	err := p.cfg.Exporter.Export(ctx, out)
	if err != nil {
		p.past.windows.Failures++
	}
	return err
}

// kind of the samples.
func (p *Profiler) kind() uint8 {
	if p.allocs != nil {
		return uint8(bpf.KindAlloc)
	}
	return uint8(bpf.KindCPU)
}

// Close frees everything.
func (p *Profiler) Close() error {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.stopAllocs()
	err := p.probes.Close()
	for _, t := range p.all {
		err = errors.Join(err, t.close())
		if p.targets[t.pid] != t {
			p.forgotten(t)
		}
	}
	clear(p.targets)
	for id := range p.kept {
		err = errors.Join(err, p.images.Release(id))
	}
	p.kept = nil
	return err
}

// PIDs are the targets that still run.
func (p *Profiler) PIDs() []uint32 {
	p.turn.Lock()
	defer p.turn.Unlock()
	return slices.Sorted(maps.Keys(p.targets))
}
