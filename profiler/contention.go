package profiler

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/symbolize"
)

// Kinds of profiles of waiting, which runtimes keep of themselves where the program asks for it.
const (
	KindBlock = "block" // where goroutines waited
	KindMutex = "mutex" // where mutexes were held that others waited for
)

// Errors of who asks for what a program has not switched on.
var (
	ErrBlockOff = errors.New("the program has its block profile switched off: have it call runtime.SetBlockProfileRate, " +
		"for instance with 10000, which counts what waits for 10 µs and more, and a part of the rest")
	ErrMutexOff = errors.New("the program has its mutex profile switched off: have it call runtime.SetMutexProfileFraction, " +
		"for instance with 10, which counts one event in 10")
)

// contentionKinds are KindBlock and KindMutex.
var contentionKinds = map[string]goruntime.ContentionKind{KindBlock: goruntime.Block, KindMutex: goruntime.Mutex}

func isContention(kind string) bool {
	_, ok := contentionKinds[kind]
	return ok
}

// offError is what is said of a kind that is off.
func offError(kind goruntime.ContentionKind) error {
	if kind == goruntime.Mutex {
		return ErrMutexOff
	}
	return ErrBlockOff
}

// isOff says whether an error says that a program has a profile of contention switched off.
func isOff(err error) bool { return errors.Is(err, ErrBlockOff) || errors.Is(err, ErrMutexOff) }

// off says the same, or that where it keeps them is not known.
func off(err error) bool { return isOff(err) || errors.Is(err, goruntime.ErrNoContention) }

// contention is one kind of it, of one process.
type contention struct {
	records  goruntime.ContentionRecords // of the last reading
	before   map[uint64]counts           // by bucket: events and ticks, for a difference; nil: there is none
	since    time.Time                   // of before
	scale    goruntime.ContentionScale   // of the last reading
	wrappers bool                        // functions that the compiler made are shown
}

// WaitRates are what a program has given to runtime.SetBlockProfileRate (nanoseconds of waiting) and
// runtime.SetMutexProfileFraction (events), of which one is counted on average; 0: off.
type WaitRates struct{ Block, Mutex int64 }

// WaitRates says what a process has set. Errors are those of opener.open, or wrap goruntime.ErrNoContention.
func (m *Memory) WaitRates(pid int) (r WaitRates, err error) {
	t, err := m.look(pid)
	if err != nil {
		return r, err
	}
	where, rates, err := m.contention(t)
	if err == nil {
		r, err = waitRates(where, rates, t)
	}
	return r, errors.Join(t.named(pid, err), t.close())
}

func waitRates(where *goruntime.Contention, rates goruntime.ContentionRates, t *memTarget) (WaitRates, error) {
	if rates.Block <= 1 { // 1 is all, whatever the clock
		return WaitRates(rates), nil
	}
	scale, err := where.ReadScale(t.memory(), t.bias, goruntime.Block, rates)
	return WaitRates{scale.BlockRate(rates.Block), rates.Mutex}, err
}

// contention finds out where t keeps its profiles of contention, and whether it does.
func (m *Memory) contention(t *memTarget) (where *goruntime.Contention, rates goruntime.ContentionRates, err error) {
	if where, err = m.layouts.of(m.images, t.space.Main().Image).contention(); err != nil {
		return nil, rates, err
	}
	rates, err = where.ReadRates(t.memory(), t.bias)
	return where, rates, err
}

// readContention reads a kind of t into c.
func (m *Memory) readContention(t *memTarget, kind goruntime.ContentionKind, c *contention) (on bool, err error) {
	where, rates, err := m.contention(t)
	if err != nil {
		return false, err
	}
	mem := t.memory()
	c.wrappers = where.Wrappers
	if c.scale, err = where.ReadScale(mem, t.bias, kind, rates); err != nil {
		return false, err
	}
	if err := where.ReadAll(mem, t.bias, kind, &c.records); err != nil {
		return false, err
	}
	return rates.Of(kind) > 0, nil
}

// addContention checks that a kind can be had of t, and notes what is counted already if only what comes is asked for. What was
// counted before the program switched it off is there, too.
func (m *Memory) addContention(t *memTarget, kind string, remember bool) error {
	c := &contention{}
	on, err := m.readContention(t, contentionKinds[kind], c)
	switch {
	case err != nil:
		return err
	case !on && (remember || c.records.Len() == 0):
		return offError(contentionKinds[kind])
	}
	if remember {
		c.remember()
	}
	if t.contended == nil {
		t.contended = make(map[string]*contention)
	}
	t.contended[kind] = c
	return nil
}

// remember notes what was read last as what was there before.
func (c *contention) remember() {
	c.before, c.since = make(map[uint64]counts, c.records.Len()), time.Now()
	for at := range c.records.All {
		c.before[at.Addr] = counts{uint64(at.Count), uint64(at.Ticks)}
	}
}

// exportContention makes one profile of a kind.
func (m *Memory) exportContention(t *memTarget, kind string, sym *symbolize.Symbolizer) (*export.Profile, error) {
	c := t.contended[kind]
	p := &export.Profile{Kind: kind, PID: int(t.pid), Comm: t.comm, Start: time.Now()}
	if c.before != nil {
		p.Start, p.Duration = c.since, time.Since(c.since)
	}
	if _, err := m.readContention(t, contentionKinds[kind], c); err != nil {
		return nil, err
	}
	m.buildContention(p, t, c, sym)
	return p, nil
}

// buildContention makes the profile of what was read last: what has come since c.before, or all.
func (m *Memory) buildContention(p *export.Profile, t *memTarget, c *contention, sym *symbolize.Symbolizer) {
	events := profile.ValueType{Type: "contentions", Unit: "count"}
	s := aggregate.NewSnapshot(m.images.Get, sym, aggregate.SnapshotOptions{
		Types:      []profile.ValueType{events, {Type: "delay", Unit: "nanoseconds"}},
		PeriodType: events, Period: 1, Start: p.Start, Duration: p.Duration, Main: t.space.Main().Image.ID, Labels: m.labels(t),
		Wrappers: c.wrappers,
	})
	for at := range c.records.All {
		count, delay := c.scale.Apply(at.Count, at.Ticks)
		if was, ok := c.before[at.Addr]; ok {
			n, d := c.scale.Apply(int64(was.allocs), int64(was.frees))
			count, delay = max(count-n, 0), max(delay-d, 0)
		}
		if count != 0 || delay != 0 {
			s.Add(t.resolve(at.Stack), 0, count, delay)
		}
	}
	p.Data = s.Profile()
	p.Data.Comments = append(p.Data.Comments, "pprofd "+m.cfg.Version, fmt.Sprintf("read from the Go runtime's own %s profile", p.Kind))
	p.Data.Comments = append(p.Data.Comments, m.comments()...)
}
