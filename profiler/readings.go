package profiler

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/symbolize"
)

// Process names a process: a PID alone does not.
type Process struct {
	PID   int
	Start uint64 // clock ticks since boot
}

// ReadingsConfig says what to read of whom. MemoryConfig.Merge has no meaning here.
type ReadingsConfig struct {
	MemoryConfig
	Interval  time.Duration // between two readings of a process; a minute
	Discovery Discovery     // names the processes; must be safe for concurrent use
}

// Readings reads the profiles that the runtimes of many processes keep of themselves over and over, each process at moments of its
// own, so that there is no rush. A process is open only while it is read. Set and Stats are safe to call while Run runs.
type Readings struct {
	cfg    ReadingsConfig
	m      *Memory
	sym    *symbolize.Symbolizer
	fresh  time.Time // when what is remembered of programs began
	buffer goruntime.MemRecords
	waits  goruntime.ContentionRecords // also a buffer
	kept   int                         // sites remembered for differences, of all processes

	patience time.Duration  // with the memory of a process
	round    *readingRound  // that reads
	rounds   sync.WaitGroup // those that were given up as well

	mu       sync.Mutex
	wait     map[Process]*reading
	interval time.Duration // ReadingsConfig.Interval, or what SetInterval has made of it
	stats    ReadingsStats
	woken    []*memTarget // whose memory has answered after all
	ended    bool         // Close was called
}

// reading is what is known of one process.
type reading struct {
	next   time.Time
	spread bool              // next is one of many moments of the interval
	stuck  bool              // a round that was given up still waits for its memory
	before map[uint64]counts // by bucket, at the last reading; for KindAllocs
	since  time.Time         // of before
	state  string
	waits  map[string]*waitReading // KindBlock, KindMutex: those that are read
}

// ReadingsStats counts since NewReadings.
type ReadingsStats struct {
	Readings uint64                    // that became profiles
	Failed   uint64                    // that did not, of processes that still run
	Sites    uint64                    // allocation sites read
	Took     time.Duration             // by all readings, with symbols and building
	CPUTime  time.Duration             // that this took
	States   map[string]int            // of memory profiles: processes in each
	Waits    map[string]map[string]int // the same of KindBlock and KindMutex, by kind
	Alive    time.Time                 // when it last looked whether there is something to read, or had read a process
}

// States of a process's memory profile.
const (
	MemoryOn        = "on"         // it is read
	MemoryOff       = "off"        // runtime.MemProfileRate is 0
	MemoryLinkedOut = "linked_out" // nothing in the program reads it, so that the linker has left it out
	MemoryFailed    = "failed"
	memoryUnread    = "unread"
)

const (
	defaultReadingInterval = time.Minute
	readingTick            = 500 * time.Millisecond
	firstReading           = 2 * time.Second // within which a process is read that has run for longer than that
	deadReadings           = 10              // intervals after which one is looked at again that has no memory profile
	rememberedSites        = 1 << 20         // for differences: some 50 MB
)

// NewReadings reads nothing yet.
func NewReadings(c ReadingsConfig) *Readings {
	if c.Interval <= 0 {
		c.Interval = defaultReadingInterval
	}
	r := &Readings{cfg: c, m: NewMemory(c.MemoryConfig), wait: make(map[Process]*reading), buffer: goruntime.MemRecords{Reuse: true}, fresh: time.Now(),
		interval: c.Interval, patience: stallPatience, round: newReadingRound()}
	r.m.watch = r.round.progress
	r.sym = symbolize.New(r.m.images.Get, &symbolize.Options{Kallsyms: r.m.cfg.ProcRoot + "/kallsyms"})
	r.m.goroutines = newGoroutineReader(r.m.images, r.m.layouts, r.sym)
	return r
}

// Set says which processes there are.
func (r *Readings) Set(now []Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := make(map[Process]bool, len(now))
	for _, p := range now {
		there[p] = true
		if r.wait[p] == nil {
			r.wait[p] = &reading{next: time.Now().Add(r.firstWait(p)), state: memoryUnread}
		}
	}
	for p, s := range r.wait {
		if !there[p] {
			r.kept -= s.sites()
			delete(r.wait, p)
		}
	}
}

// SetInterval changes how often each process is read from now on. Who waits, waits no longer than that.
func (r *Readings) SetInterval(interval time.Duration) error {
	if interval <= 0 {
		return fmt.Errorf("interval %v is not positive", interval)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	shorter := interval < r.interval
	r.interval = interval
	now := time.Now()
	for p, s := range r.wait {
		if alive := s.state == MemoryOn || s.state == memoryUnread; alive && shorter && s.next.Sub(now) > interval {
			s.next = now.Add(moment(p, interval))
		}
	}
	return nil
}

// seed makes the moments of different hosts differ.
var seed = maphash.MakeSeed()

// firstWait spreads the first readings. A young process has nothing to tell before its first garbage collections.
func (r *Readings) firstWait(p Process) time.Duration {
	within := r.interval
	if young := (&target{process: process{start: p.Start}}).age() < firstReading; !young {
		within = min(within, firstReading)
	}
	return moment(p, within)
}

// one reads one process.
func (r *Readings) one(ctx context.Context, p Process, now time.Time) {
	r.mu.Lock()
	s := r.wait[p]
	r.mu.Unlock()
	if s == nil {
		return
	}
	began := time.Now()
	var watch stopwatch
	watch.start()
	result := r.read(ctx, p, s)
	spent := watch.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := r.interval
	if r.judge(p, s, &result) {
		wait *= deadReadings
	}
	r.stats.Took += time.Since(began)
	r.stats.CPUTime += spent
	s.again(p, wait, now)
}

// outcome is what became of reading a process.
type outcome struct {
	memory error            // of KindHeap and KindAllocs; nil where they are not asked for
	waits  map[string]error // of KindBlock and KindMutex, those that are asked for
	gone   bool             // the process has ended, or is not wanted any more

	goroutines error // of KindGoroutine
}

// failed says whether something could not be read that may have been there.
func (o *outcome) failed() bool {
	if state, _ := memoryState(o.memory); state == MemoryFailed {
		return true
	}
	for _, err := range o.waits {
		if waitState(err) == MemoryFailed {
			return true
		}
	}
	return unread(o.goroutines)
}

// unread says whether an error means that goroutines could not be read, of a program of which that is possible.
func unread(err error) bool { return err != nil && !errors.Is(err, ErrNoMemoryProfile) }

// judge counts an outcome. dead: there was nothing to be read, and soon there will not be anything, either.
func (r *Readings) judge(p Process, s *reading, o *outcome) (dead bool) {
	if o.gone {
		return false
	}
	dead = true
	var failed []error
	if r.memoryKinds() {
		state, none := memoryState(o.memory)
		s.state = state
		if state == MemoryFailed {
			failed = append(failed, o.memory)
		}
		dead = none
	}
	for kind, err := range o.waits {
		state := waitState(err)
		s.wait(kind).state = state
		if state == MemoryFailed {
			failed = append(failed, err)
		}
		dead = dead && (state == MemoryOff || state == WaitsUnknown)
	}
	if unread(o.goroutines) {
		failed = append(failed, o.goroutines)
	}
	dead = dead && (!slices.Contains(r.cfg.Kinds, KindGoroutine) || o.goroutines != nil)
	if len(failed) > 0 {
		r.stats.Failed++
		r.m.cfg.Log.Warn("a profile could not be read", "pid", p.PID, "error", errors.Join(failed...))
	} else if !dead {
		r.stats.Readings++
	}
	return dead
}

// memoryState is what an error of reading a memory profile means. none: there is no profile.
func memoryState(err error) (state string, none bool) {
	switch {
	case err == nil:
		return MemoryOn, false
	case errors.Is(err, goruntime.ErrNoMemProfile):
		return MemoryLinkedOut, true
	case errors.Is(err, errMemProfileOff):
		return MemoryOff, true
	}
	return MemoryFailed, false
}

func (r *Readings) memoryKinds() bool {
	return slices.Contains(r.cfg.Kinds, KindHeap) || slices.Contains(r.cfg.Kinds, KindAllocs)
}

// again sets the moment of the next reading. The first ones of an agent come together: the second ones are spread over the
// interval, half of it to one and a half of it later.
func (s *reading) again(p Process, wait time.Duration, now time.Time) {
	if !s.spread {
		s.spread = true
		s.next = now.Add(wait/2 + moment(p, wait))
		return
	}
	if s.next = s.next.Add(wait); s.next.Before(now) { // it was late: the others are, too
		s.next = now.Add(wait)
	}
}

// moment is between 0 and within, another one for each process and host.
func moment(p Process, within time.Duration) time.Duration {
	return time.Duration(maphash.Comparable(seed, p) % uint64(within))
}

// read reads a process and hands on its profiles. If it is given up it does not return.
func (r *Readings) read(ctx context.Context, p Process, s *reading) (o outcome) {
	service, labels, ok := r.cfg.Discovery.Labels(p.PID, p.Start)
	if !ok {
		return outcome{gone: true}
	}
	t, err := r.m.look(p.PID)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && t.start != p.Start:
		_ = t.close() // there is nothing to be lost
		return outcome{gone: true}
	case err != nil:
		return r.unopened(err)
	}
	r.round.process, r.round.taking = p, t
	out := export.Profile{PID: p.PID, StartTicks: p.Start, Comm: t.comm, Service: service, Labels: labels, Start: time.Now()}
	o = r.readKinds(ctx, t, &out, s)
	r.round.taking = nil
	o.gone = o.failed() && !t.current()
	r.shut(t)
	return o
}

// readKinds reads all that is asked for of t, and hands it on; as says of whom it is.
func (r *Readings) readKinds(ctx context.Context, t *memTarget, as *export.Profile, s *reading) (o outcome) {
	o.waits = make(map[string]error)
	if r.memoryKinds() {
		o.memory = t.named(as.PID, r.readMemory(ctx, t, *as, s))
	}
	for _, kind := range r.cfg.Kinds {
		if isContention(kind) {
			out := *as
			out.Kind = kind
			o.waits[kind] = t.named(as.PID, r.readWait(ctx, t, out, s))
		}
	}
	if slices.Contains(r.cfg.Kinds, KindGoroutine) {
		o.goroutines = t.named(as.PID, r.readGoroutines(ctx, t, as))
	}
	return o
}

// unopened is the outcome where nothing of a process could be read.
func (r *Readings) unopened(err error) outcome {
	o := outcome{waits: make(map[string]error)}
	for _, kind := range r.cfg.Kinds {
		switch {
		case isContention(kind):
			o.waits[kind] = err
		case kind == KindGoroutine:
			o.goroutines = err
		default:
			o.memory = err
		}
	}
	return o
}

// readMemory reads t's memory profile and hands it on as the kinds that are asked for; out is the same of all of them.
func (r *Readings) readMemory(ctx context.Context, t *memTarget, out export.Profile, s *reading) error {
	rate, err := r.m.memRate(t)
	switch {
	case err != nil:
		return err
	case rate <= 0:
		return errMemProfileOff
	}
	now := time.Now()
	if err := t.readInto(&r.buffer, r.m.mode()); err != nil {
		return err
	}
	t.records = r.buffer
	var errs []error
	for _, kind := range r.cfg.Kinds {
		p := out
		p.Kind, p.Start = kind, now
		switch t.before = s.before; {
		case isContention(kind), kind == KindGoroutine, kind == KindAllocs && t.before == nil:
			continue
		case kind == KindAllocs:
			p.Start, p.Duration = s.since, now.Sub(s.since)
		}
		r.m.build(&p, t, r.sym, rate)
		p.Data.Comments = append(p.Data.Comments, published(r.m.mode()))
		errs = append(errs, r.cfg.Exporter.Export(ctx, &p))
	}
	if slices.Contains(r.cfg.Kinds, KindAllocs) {
		errs = append(errs, r.remember(t, Process{out.PID, out.StartTicks}, s, now))
	}
	r.mu.Lock()
	r.stats.Sites += uint64(r.buffer.Len())
	r.mu.Unlock()
	return errors.Join(errs...)
}

var errTooManySites = errors.New("too many allocation sites, of all processes together: what was allocated since the last reading is not known")

// remember notes what is counted already.
func (r *Readings) remember(t *memTarget, p Process, s *reading, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wait[p] != s { // it is gone
		return nil
	}
	r.kept -= len(s.before)
	s.before = nil
	if r.kept+t.records.Len() > rememberedSites {
		return errTooManySites
	}
	s.before, s.since = make(map[uint64]counts, t.records.Len()), now
	for b := range t.records.All {
		s.before[b.Addr] = counts{b.Allocs, b.Frees}
	}
	r.kept += len(s.before)
	return nil
}

// forget lets go, every other interval, of programs that nobody runs any more and that are not read, and of all names then:
// those that are needed are found again.
func (r *Readings) forget(now time.Time) {
	if now.Sub(r.fresh) < forgetAfter*r.cfg.Interval {
		return
	}
	r.fresh = now
	for _, n := range r.sym.Notes() {
		r.m.cfg.Log.Debug(n)
	}
	some, err := r.m.layouts.sweep(r.m.images)
	if err != nil {
		r.m.cfg.Log.Warn("close executables", "error", err)
	}
	if some || r.sym.Overflowed() {
		r.sym.Reset()
	}
	if r.buffer.Bytes() > maxIdleBuffer {
		r.buffer = goruntime.MemRecords{Reuse: true}
	}
	if r.waits.Bytes() > maxIdleBuffer {
		r.waits = goruntime.ContentionRecords{}
	}
	r.m.goroutines.forget(maxIdleBuffer)
}

// forgetAfter is how many intervals a program stays open that no process runs.
const forgetAfter = 2

const maxIdleBuffer = 8 << 20

// Stats counts, and says how many processes are in which state.
func (r *Readings) Stats() ReadingsStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.stats
	out.States, out.Waits = make(map[string]int), make(map[string]map[string]int)
	for _, s := range r.wait {
		if r.memoryKinds() {
			out.States[s.state]++
		}
		for kind, w := range s.waits {
			if out.Waits[kind] == nil {
				out.Waits[kind] = make(map[string]int)
			}
			out.Waits[kind][w.state]++
		}
	}
	return out
}

// Lacks says whether p is known to have no memory profile to be read.
func (r *Readings) Lacks(p Process) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.wait[p]
	return s != nil && (s.state == MemoryOff || s.state == MemoryLinkedOut)
}
