package profiler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// Kinds of memory profiles.
const (
	KindHeap   = "heap"   // what is in use, by where it was allocated
	KindAllocs = "allocs" // what was allocated between Add and Export
)

// MemoryConfig says what to read. The zero value of a field means its default.
type MemoryConfig struct {
	Log         *slog.Logger
	Kinds       []string // KindHeap, KindAllocs, KindBlock, KindMutex, KindGoroutine
	Unpublished bool     // of memory: also what happened since the garbage collection before the last
	Difference  bool     // of KindBlock and KindMutex: what happened between Add and Export, not all that ever did
	Merge       bool     // one profile of each kind for all processes
	Exporter    export.Exporter
	ProcRoot    string          // "/proc"
	Version     string          // of pprofd, for the profile's comments
	Comments    func() []string // more of them; may be nil
}

// Memory reads the profiles that the Go runtimes of other processes keep of themselves, of memory and of contention: nothing is
// traced, nothing is written. It belongs to one goroutine.
type Memory struct {
	cfg MemoryConfig
	opener
	layouts memLayouts
	targets []*memTarget
	started time.Time
	notes   []string

	goroutines *goroutineReader // nil until it is needed

	watch   *progress                                        // of who reads memory directly; nil: nobody does, and who reads it gives up by himself
	instead func(Process, goruntime.Memory) goruntime.Memory // for tests: in place of a process's memory; nil: that itself
}

// memLayouts remembers where programs keep their profiles. It holds a reference to each image that it knows, so that its ID goes on
// naming it.
type memLayouts map[objfile.ImageID]*memLayout

// memLayout is what is known of a program. Each part is looked for when it is first asked for.
type memLayout struct {
	image   *objfile.Image
	memory  found[goruntime.MemProfile]
	waiting found[goruntime.Contention]
	used    bool // since the last sweep

	goroutines found[*goruntime.Goroutines]
	proven     bool // by a live process, of goroutines
}

type found[T any] struct {
	done  bool
	value T
	err   error
}

func (f *found[T]) get(im *objfile.Image, find func(*objfile.File, string) (T, error)) (*T, error) {
	if !f.done {
		version := ""
		if info, err := im.File.BuildInfo(); err == nil {
			version = info.GoVersion
		}
		f.value, f.err = find(im.File, version)
		f.done = true
	}
	return &f.value, f.err
}

func (l *memLayout) memProfile() (*goruntime.MemProfile, error) {
	return l.memory.get(l.image, goruntime.FindMemProfile)
}

func (l *memLayout) contention() (*goruntime.Contention, error) {
	return l.waiting.get(l.image, goruntime.FindContention)
}

// maxMemLayouts leaves room for other images among those that may be open.
const maxMemLayouts = 512

// of returns what is known of an image that is a Go program.
func (l memLayouts) of(images *objfile.Images, im *objfile.Image) *memLayout {
	known := l[im.ID]
	if known == nil {
		if known = (&memLayout{image: im}); len(l) < maxMemLayouts {
			images.Retain(im.ID)
			l[im.ID] = known
		}
	}
	known.used = true
	return known
}

// sweep forgets the programs that were not asked for since the last time. some: there were such.
func (l memLayouts) sweep(images *objfile.Images) (some bool, err error) {
	var errs []error
	for id, known := range l {
		if !known.used {
			errs = append(errs, images.Release(id))
			delete(l, id)
		}
		known.used = false
	}
	return len(errs) > 0, errors.Join(errs...)
}

// forget forgets all.
func (l memLayouts) forget(images *objfile.Images) error {
	var errs []error
	for id := range l {
		errs = append(errs, images.Release(id))
	}
	clear(l)
	return errors.Join(errs...)
}

// memTarget is one process whose profiles are read.
type memTarget struct {
	process
	bias    uint64
	layout  goruntime.MemProfile
	before  map[uint64]counts    // by bucket: at Add, for KindAllocs
	records goruntime.MemRecords // of the last reading
	stack   []objfile.Addr       // resolved last

	contended map[string]*contention // by kind, of those that are asked for
}

type counts struct{ allocs, frees uint64 }

// readTries bounds how often a profile is read that a garbage collection moves meanwhile.
const readTries = 5

// NewMemory returns a Memory without processes.
func NewMemory(c MemoryConfig) *Memory {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ProcRoot == "" {
		c.ProcRoot = "/proc"
	}
	return &Memory{cfg: c, opener: newOpener(c.ProcRoot), layouts: make(memLayouts), started: time.Now()}
}

// Add makes a running process a target. Errors are those of opener.open, or wrap goruntime.ErrNoMemProfile,
// goruntime.ErrNoContention, ErrBlockOff or ErrMutexOff.
func (m *Memory) Add(pid int) error { return m.add(pid, true) }

// AddFromStart is Add for a process that began after NewMemory: KindAllocs is all that it has allocated.
func (m *Memory) AddFromStart(pid int) error { return m.add(pid, false) }

func (m *Memory) add(pid int, remember bool) error {
	t, err := m.look(pid)
	for _, kind := range m.cfg.Kinds {
		if err == nil {
			err = m.addKind(t, kind, remember)
		}
	}
	if err != nil {
		return errors.Join(t.named(pid, err), t.close())
	}
	m.targets = append(m.targets, t)
	return nil
}

// addKind checks that a kind can be had of t, and notes what is counted already where that is asked for.
func (m *Memory) addKind(t *memTarget, kind string, remember bool) error {
	switch {
	case isContention(kind):
		return m.addContention(t, kind, remember && m.cfg.Difference)
	case kind == KindGoroutine:
		return m.checkGoroutines(t)
	}
	rate, err := m.memRate(t)
	switch {
	case err != nil:
		return err
	case rate <= 0:
		return errMemProfileOff
	case kind == KindAllocs && remember:
		return t.remember(m.mode())
	}
	return nil
}

// Alive says whether any of the targets still runs.
func (m *Memory) Alive() bool {
	return slices.ContainsFunc(m.targets, func(t *memTarget) bool { return m.alive(&t.process) })
}

// Rate says of how many allocated bytes a process's runtime samples one at present (runtime.MemProfileRate); 0: none. Errors
// are those of Add; the process does not become a target.
func (m *Memory) Rate(pid int) (int64, error) {
	t, err := m.look(pid)
	var rate int64
	if err == nil {
		if rate, err = m.memRate(t); err != nil {
			err = t.named(pid, err)
		}
	}
	return max(rate, 0), errors.Join(err, t.close())
}

// look opens a process. The target, which is the caller's to close, is nil where it could not be opened; then the error names it
// already.
func (m *Memory) look(pid int) (*memTarget, error) {
	proc, err := m.open(pid)
	if err != nil {
		return nil, err
	}
	if m.watch != nil {
		m.readDirectly(&proc)
	}
	return &memTarget{process: proc, bias: proc.space.Main().Bias}, nil
}

// readDirectly has the memory of p be read by the goroutine that asks for it, while somebody watches: to hand each read over to another one would
// cost more than the read.
func (m *Memory) readDirectly(p *process) {
	p.space.ReadDirectly()
	mem := p.memory()
	if m.instead != nil {
		mem = m.instead(Process{int(p.pid), p.start}, mem)
	}
	p.mem = watched{mem, m.watch}
}

// memRate finds t's memory profile, and reads its rate.
func (m *Memory) memRate(t *memTarget) (int64, error) {
	layout, err := m.layouts.of(m.images, t.space.Main().Image).memProfile()
	if err != nil {
		return 0, err
	}
	t.layout = *layout
	return t.layout.ReadRate(t.memory(), t.bias)
}

func (t *memTarget) named(pid int, err error) error {
	if t == nil || err == nil {
		return err
	}
	return fmt.Errorf("process %d (%s): %w", pid, t.comm, err)
}

func (t *memTarget) close() error {
	if t == nil {
		return nil
	}
	return t.space.Close()
}

func (m *Memory) mode() goruntime.ReadMode {
	if m.cfg.Unpublished {
		return goruntime.Unpublished
	}
	return goruntime.Published
}

// remember notes what is counted already.
func (t *memTarget) remember(mode goruntime.ReadMode) error {
	t.before = make(map[uint64]counts)
	if err := t.read(mode); err != nil {
		return err
	}
	for b := range t.records.All {
		t.before[b.Addr] = counts{b.Allocs, b.Frees}
	}
	return nil
}

// read reads the process's records, once more where a garbage collection has moved them meanwhile.
func (t *memTarget) read(mode goruntime.ReadMode) error { return t.readInto(&t.records, mode) }

func (t *memTarget) readInto(r *goruntime.MemRecords, mode goruntime.ReadMode) error {
	return t.readFrom(t.memory(), r, mode)
}

// readFrom reads mem, which is t's memory or a copy of it.
func (t *memTarget) readFrom(mem io.ReaderAt, r *goruntime.MemRecords, mode goruntime.ReadMode) error {
	for range readTries {
		moved, err := t.layout.ReadAll(mem, t.bias, mode, r)
		if err != nil || !moved {
			return err
		}
	}
	return nil
}

var errMemProfileOff = errors.New("the program has set runtime.MemProfileRate to 0: its runtime profiles no memory")

// Notes tell what the user should know.
func (m *Memory) Notes() []string { return m.notes }

func (m *Memory) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	m.notes = append(m.notes, text)
	m.cfg.Log.Info(text)
}

// Export reads the profiles and hands them on. Those that cannot be read, such as of processes that have exited, are in
// the error; the others are handed on all the same.
func (m *Memory) Export(ctx context.Context) error {
	var errs []error
	sym := m.symbolizer()
	for _, kind := range m.cfg.Kinds {
		var all []*export.Profile
		for _, t := range m.targets {
			p, err := m.export(ctx, t, kind, sym)
			if err != nil {
				errs = append(errs, t.unread(kind, err))
				continue
			}
			all = append(all, p)
		}
		errs = append(errs, m.deliver(ctx, all))
	}
	m.notes = append(m.notes, sym.Notes()...)
	return errors.Join(errs...)
}

// export makes one profile of a target.
func (m *Memory) export(ctx context.Context, t *memTarget, kind string, sym *symbolize.Symbolizer) (*export.Profile, error) {
	if kind == KindGoroutine {
		return m.exportGoroutines(ctx, t)
	}
	return m.read(t, kind, sym)
}

// unread says of whom err is that a profile cannot be made for; of a process that has ended the rest says nothing.
func (t *memTarget) unread(kind string, err error) error {
	if errors.Is(err, objfile.ErrProcessGone) || errors.Is(err, os.ErrNotExist) {
		return &goneError{fmt.Sprintf("process %d (%s) ended before its %s profile was read", t.pid, t.comm, kind)}
	}
	return t.named(int(t.pid), err)
}

// goneError wraps os.ErrNotExist without its words.
type goneError struct{ text string }

func (e *goneError) Error() string { return e.text }
func (e *goneError) Unwrap() error { return os.ErrNotExist }

func (m *Memory) deliver(ctx context.Context, all []*export.Profile) error {
	if m.cfg.Merge && len(all) > 0 {
		parts := make([]*profile.Profile, 0, len(all))
		for _, p := range all {
			parts = append(parts, p.Data)
		}
		merged, err := profile.Merge(parts)
		if err != nil {
			return fmt.Errorf("merge %s profiles: %w", all[0].Kind, err)
		}
		all = []*export.Profile{{Kind: all[0].Kind, Start: all[0].Start, Duration: all[0].Duration, Data: merged}}
	}
	var errs []error
	for _, p := range all {
		errs = append(errs, m.cfg.Exporter.Export(ctx, p))
	}
	return errors.Join(errs...)
}

// read makes one profile.
func (m *Memory) read(t *memTarget, kind string, sym *symbolize.Symbolizer) (*export.Profile, error) {
	if isContention(kind) {
		return m.exportContention(t, kind, sym)
	}
	rate, err := t.layout.ReadRate(t.memory(), t.bias)
	if err != nil {
		return nil, err
	}
	p := &export.Profile{Kind: kind, PID: int(t.pid), Comm: t.comm, Start: time.Now()}
	if kind == KindAllocs {
		p.Start, p.Duration = m.started, time.Since(m.started)
	}
	if err := t.read(m.mode()); err != nil {
		return nil, err
	}
	m.build(p, t, sym, rate)
	p.Data.Comments = append(p.Data.Comments, published(m.mode()))
	return p, nil
}

// build makes the profile of what was read last.
func (m *Memory) build(p *export.Profile, t *memTarget, sym *symbolize.Symbolizer, rate int64) {
	s := aggregate.NewSnapshot(m.images.Get, sym, m.options(t, p, rate))
	for b := range t.records.All {
		t.add(s, b, rate, p.Kind)
	}
	p.Data = s.Profile()
	p.Data.Comments = append(p.Data.Comments, "pprofd "+m.cfg.Version, "read from the Go runtime's own memory profile")
	p.Data.Comments = append(p.Data.Comments, m.comments()...)
}

func published(mode goruntime.ReadMode) string {
	if mode == goruntime.Unpublished {
		return "up to now"
	}
	return "up to the last garbage collection but one, as runtime/pprof has it"
}

func (m *Memory) options(t *memTarget, p *export.Profile, rate int64) aggregate.SnapshotOptions {
	space := profile.ValueType{Type: "space", Unit: "bytes"}
	o := aggregate.SnapshotOptions{
		Types: []profile.ValueType{
			{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"},
			{Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"},
		},
		PeriodType: space, Period: rate, Start: p.Start, Duration: p.Duration, Main: t.space.Main().Image.ID, HideAllocator: true,
	}
	if p.Kind == KindAllocs {
		o.DefaultType = "alloc_space"
	}
	o.Labels = m.labels(t)
	return o
}

// labels tell t's samples from those of others.
func (m *Memory) labels(t *memTarget) []aggregate.Label {
	if !m.cfg.Merge {
		return nil
	}
	return []aggregate.Label{{Key: "comm", Value: t.comm}, {Key: "pid", Value: fmt.Sprint(t.pid)}}
}

// add adds one bucket, for KindAllocs what has been added to it since the beginning.
func (t *memTarget) add(s *aggregate.Snapshot, b *goruntime.Bucket, rate int64, kind string) {
	allocs, frees := b.Allocs, b.Frees
	if kind == KindAllocs {
		was := t.before[b.Addr]
		allocs, frees = allocs-min(was.allocs, allocs), frees-min(was.frees, frees)
	}
	if allocs == 0 && frees == 0 {
		return
	}
	objects, bytes := goruntime.Unsample(allocs, b.Size, rate)
	usedObjects, usedBytes := goruntime.Unsample(allocs-min(frees, allocs), b.Size, rate)
	s.Add(t.resolve(b.Stack), int64(b.Size), objects, bytes, usedObjects, usedBytes)
}

// resolve returns the stack of pcs, until the next.
func (t *memTarget) resolve(pcs []uint64) []objfile.Addr {
	stack := t.stack[:0]
	for _, pc := range pcs {
		a, ok := t.space.Resolve(pc)
		if !ok {
			a = objfile.Addr{Off: pc}
		}
		stack = append(stack, a)
	}
	t.stack = stack
	return stack
}

// Close gives everything back.
func (m *Memory) Close() error {
	var errs []error
	for _, t := range m.targets {
		errs = append(errs, t.close())
	}
	m.targets = nil
	return errors.Join(append(errs, m.layouts.forget(m.images))...)
}

// comments are those of the configuration.
func (m *Memory) comments() []string {
	if m.cfg.Comments == nil {
		return nil
	}
	return m.cfg.Comments()
}
