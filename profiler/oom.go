package profiler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/cgroup"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/symbolize"
)

// How often targets are looked at, and read. A read takes the target nothing, but us a CPU: it is repeated the sooner the
// limit may be reached, and takes at most a twentieth of the time.
const (
	oomMinPoll  = 20 * time.Millisecond
	oomMaxPoll  = 500 * time.Millisecond
	oomMinRead  = 50 * time.Millisecond
	oomMaxRead  = 10 * time.Second
	oomCPUShare = 20
	oomDying    = time.Second // from when a process is chosen to the death of its first thread; 12 ms were seen at most
	oomRush     = 1 << 30     // bytes a second: what a process that keeps still may begin to take at any time
	// oomKept bounds what is kept of all targets. 100,000 allocation sites are some 25 MB.
	oomKept = 256 << 20
)

// OOMWatch waits for the kernel to kill targets of a Memory for lack of memory. It belongs to one goroutine.
type OOMWatch struct {
	m       *Memory
	victims *bpf.Victims
	heaps   *bpf.VictimHeaps // nil: the kernel cannot copy them
	targets []*oomTarget
	spare   goruntime.MemRecords // what is being read
	kept    int                  // bytes of all targets' records
	took    time.Duration        // by the last look at all targets
	skipped bool                 // something was not kept
	copied  int                  // heaps that were copied by the kernel side
}

// oomTarget is a target with what was read of it last.
type oomTarget struct {
	*memTarget
	limits   *cgroup.Memory
	pressure cgroup.Pressure // at the last look
	growth   float64         // bytes a second by which the free memory shrinks
	looked   time.Time
	gone     bool    // at the last look
	last     oomRead // of records
}

// oomRead says what a reading is of.
type oomRead struct {
	at       time.Time // the zero time: there is none
	took     time.Duration
	rate     int64
	pressure cgroup.Pressure
}

// WatchOOM begins to listen to the kernel, and reads every target once. Errors name what is missing.
func (m *Memory) WatchOOM() (*OOMWatch, error) {
	victims, err := bpf.WatchVictims()
	if err != nil {
		return nil, err
	}
	w := &OOMWatch{m: m, victims: victims}
	for _, t := range m.targets {
		o := &oomTarget{memTarget: t}
		if o.limits, err = cgroup.Open(m.root, int(t.pid)); err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.targets = append(w.targets, o)
	}
	if w.heaps, err = bpf.WatchVictimHeaps(); err != nil {
		m.cfg.Log.Info("the heaps of OOM victims are not copied in their own context", "error", err)
	}
	for _, t := range w.targets {
		if err := w.watchHeap(t); err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.look(t, time.Now())
		w.read(t)
	}
	return w, nil
}

// watchHeap has t's heap copied when it dies as a victim.
func (w *OOMWatch) watchHeap(t *oomTarget) error {
	if w.heaps == nil {
		return nil
	}
	at := bpf.HeapWatch{StartTime: t.start, Buckets: t.layout.Buckets + t.bias, Rate: t.layout.Rate + t.bias, Records: t.layout.RecordBytes()}
	if t.layout.Cycle != 0 {
		at.Cycle = t.layout.Cycle + t.bias
	}
	return w.heaps.Watch(t.pid, at)
}

// Await waits for ctx to end, or for all targets to have exited. The heap of each that the kernel kills meanwhile for lack
// of memory is handed on at once. It returns how many there were; what could not be had of one is in the error.
func (w *OOMWatch) Await(ctx context.Context) (killed int, err error) {
	var errs []error
	for ctx.Err() == nil && len(w.targets) > 0 {
		v, err := w.victims.Read(time.Now().Add(w.pause()))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.tick()
		case err != nil:
			return killed, errors.Join(append(errs, fmt.Errorf("listen for OOM kills: %w", err))...)
		default:
			n, err := w.victim(ctx, v)
			killed += n
			errs = append(errs, err)
		}
	}
	return killed, errors.Join(errs...)
}

// pause is how long nothing needs to be looked at.
func (w *OOMWatch) pause() time.Duration {
	pause := oomMaxPoll
	for _, t := range w.targets {
		pause = min(pause, max(min(t.left()/8, t.lasts(oomRush)), oomMinPoll))
	}
	return max(pause, oomCPUShare*w.took)
}

// left is how long the memory of t lasts if it goes on like this.
func (t *oomTarget) left() time.Duration {
	return t.lasts(t.growth)
}

// lasts is how long the free memory would last.
func (t *oomTarget) lasts(growth float64) time.Duration {
	const day = 24 * 60 * 60
	if t.pressure.Limit == 0 {
		return oomMaxRead // nobody knows
	}
	return time.Duration(min(float64(t.pressure.Free())/max(growth, 1), day) * float64(time.Second))
}

// due says whether t is to be read again.
func (t *oomTarget) due(now time.Time) bool {
	wait := min(max(t.left()/4, oomMinRead), oomMaxRead)
	return now.Sub(t.last.at) >= max(wait, oomCPUShare*t.last.took)
}

// tick looks at all targets and reads those that are due, unless there is a victim to see to.
func (w *OOMWatch) tick() {
	now := time.Now()
	w.targets = slices.DeleteFunc(w.targets, w.ended)
	for _, t := range w.targets {
		w.look(t, now)
	}
	w.took = time.Since(now)
	for _, t := range w.targets {
		if t.due(now) {
			w.read(t)
			return // the next one at the next tick: a victim does not wait
		}
	}
}

// ended says whether t has come to another end, and lets go of it then. That the kernel killed it may be told a moment after it
// is gone: so it is asked for once more before it is believed.
func (w *OOMWatch) ended(t *oomTarget) bool {
	was := t.gone
	if t.gone = !w.m.alive(&t.process) || !t.current(); !t.gone || !was {
		return false
	}
	w.forget(t)
	w.m.note("process %d (%s) has exited, or runs another program now; it was not killed for lack of memory", t.pid, t.comm)
	return true
}

// look finds out how near t is to its limit.
func (w *OOMWatch) look(t *oomTarget, now time.Time) {
	p, err := t.limits.Pressure()
	if err != nil {
		return
	}
	if d := now.Sub(t.looked).Seconds(); d > 0 && !t.looked.IsZero() {
		growth := (float64(t.pressure.Free()) - float64(p.Free())) / d
		t.growth = max(growth, t.growth/2) // garbage collections make it rise in steps
	}
	t.pressure, t.looked = p, now
}

// read reads t; what was read before stays where that fails.
func (w *OOMWatch) read(t *oomTarget) bool { return w.readFrom(t, t.memory()) }

func (w *OOMWatch) readFrom(t *oomTarget, mem io.ReaderAt) bool {
	began := time.Now()
	rate, err := t.layout.ReadRate(mem, t.bias)
	if err == nil {
		err = t.readFrom(mem, &w.spare, goruntime.Unpublished)
	}
	if err != nil {
		return false
	}
	if w.kept-t.records.Bytes()+w.spare.Bytes() > oomKept {
		w.skipped = true
		return false
	}
	w.kept += w.spare.Bytes() - t.records.Bytes()
	t.records, w.spare = w.spare, t.records
	t.last = oomRead{at: began, took: time.Since(began), rate: rate, pressure: t.pressure}
	return true
}

// readCopy reads what the kernel side copied of t as its first thread died.
func (w *OOMWatch) readCopy(t *oomTarget) bool {
	if w.heaps == nil {
		return false
	}
	c, err := w.heaps.Read(t.pid, time.Now().Add(oomDying))
	if err != nil {
		w.m.cfg.Log.Info("the heap of an OOM victim was not copied in its own context", "pid", t.pid, "error", err)
		return false
	}
	if !w.readFrom(t, c) {
		return false
	}
	w.copied++
	return true
}

func (w *OOMWatch) forget(t *oomTarget) {
	w.kept -= t.records.Bytes()
	t.records = goruntime.MemRecords{}
	if w.heaps != nil {
		if err := w.heaps.Forget(t.pid); err != nil {
			w.m.note("%v", err)
		}
	}
}

// victim sees to a process that is being killed. It has SIGKILL already, so that its memory is gone at any moment: what can
// still be read is the whole list, or nothing.
func (w *OOMWatch) victim(ctx context.Context, v bpf.Victim) (n int, err error) {
	i := slices.IndexFunc(w.targets, func(t *oomTarget) bool { return w.is(t, v) })
	if i < 0 {
		return 0, nil
	}
	t := w.targets[i]
	killed := time.Now()
	after := w.read(t) || w.readCopy(t)
	w.targets = slices.Delete(w.targets, i, i+1)
	defer w.forget(t)
	if t.last.at.IsZero() {
		return 1, fmt.Errorf("process %d (%s) was killed for lack of memory, and its heap could not be read, before or after", t.pid, t.comm)
	}
	said := fmt.Sprintf("killed for lack of memory (OOM): the heap was read after the kernel had chosen the process, before its memory was gone; %s", t.last.limit())
	if !after {
		said = fmt.Sprintf("killed for lack of memory (OOM): the heap was read last %v before the kernel chose the process, whose memory was gone too soon to be read then; %s",
			killed.Sub(t.last.at).Round(time.Millisecond), t.last.limit())
	}
	w.m.note("process %d (%s) was %s", t.pid, t.comm, said)
	return 1, w.m.exportKilled(ctx, t, said)
}

func (r *oomRead) limit() string {
	if r.pressure.Limit == 0 {
		return "its memory limit is not known"
	}
	return fmt.Sprintf("%d of %d MiB that it may use were in use at the last look before", r.pressure.Used>>20, r.pressure.Limit>>20)
}

// is says whether v is t's process, by what is known of v.
func (w *OOMWatch) is(t *oomTarget, v bpf.Victim) bool {
	switch {
	case v.Start != 0 && v.Start != t.start:
		return false
	case v.PID == t.pid, v.PID == 0:
		return true
	case v.Start == 0:
		_, err := os.Stat(w.m.procs.Proc(int(t.pid)).Path(fmt.Sprintf("task/%d", v.PID)))
		return err == nil
	}
	return false
}

// exportKilled hands on what was read of t last.
func (m *Memory) exportKilled(ctx context.Context, t *oomTarget, said string) error {
	sym := symbolize.New(m.images.Get, &symbolize.Options{Kallsyms: m.cfg.ProcRoot + "/kallsyms"})
	p := &export.Profile{Kind: KindHeap, PID: int(t.pid), Comm: t.comm, Start: t.last.at}
	m.build(p, t.memTarget, sym, t.last.rate)
	p.Data.Comments = append(p.Data.Comments, published(goruntime.Unpublished), said)
	m.notes = append(m.notes, sym.Notes()...)
	return m.deliver(context.WithoutCancel(ctx), []*export.Profile{p})
}

// Close ends it. The targets stay those of the Memory.
func (w *OOMWatch) Close() error {
	if w.skipped {
		w.m.note("heaps of more than %d MB together were not kept: some readings are older than they might be", oomKept>>20)
	}
	if w.heaps != nil {
		return errors.Join(w.heaps.Close(), w.victims.Close())
	}
	return w.victims.Close()
}
