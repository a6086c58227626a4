package profiler

import (
	"context"
	"time"

	"github.com/pprofd/pprofd/export"
)

// WaitsUnknown is the state of a process of which is not known where it keeps its profiles of contention. The others are those of
// memory profiles: MemoryOn, MemoryOff, MemoryFailed.
const WaitsUnknown = "unknown"

// waitReading is what is known of one process's profile of contention.
type waitReading struct {
	before map[uint64]counts // by bucket, at the last reading; nil: there was none
	since  time.Time         // of before
	state  string
}

// wait is what is known of a kind.
func (s *reading) wait(kind string) *waitReading {
	if s.waits == nil {
		s.waits = make(map[string]*waitReading)
	}
	if s.waits[kind] == nil {
		s.waits[kind] = &waitReading{state: memoryUnread}
	}
	return s.waits[kind]
}

// sites is how many are remembered of a process.
func (s *reading) sites() int {
	n := len(s.before)
	for _, w := range s.waits {
		n += len(w.before)
	}
	return n
}

// waitState is what an error of reading a profile of contention means.
func waitState(err error) string {
	switch {
	case err == nil:
		return MemoryOn
	case isOff(err):
		return MemoryOff
	case off(err):
		return WaitsUnknown
	}
	return MemoryFailed
}

// readWait reads t's profile of out.Kind and hands on what has come since the last reading, if anything has. A process that has it
// switched off is remembered, too: what is counted from then on is new.
func (r *Readings) readWait(ctx context.Context, t *memTarget, out export.Profile, s *reading) error {
	kind := contentionKinds[out.Kind]
	c := contention{records: r.waits}
	c.records.Keep()
	on, err := r.m.readContention(t, kind, &c)
	r.waits = c.records
	if err != nil {
		return err
	}
	now := time.Now()
	r.mu.Lock()
	w := s.wait(out.Kind)
	var since time.Time
	c.before, since = w.before, w.since
	r.stats.Sites += uint64(c.records.Len())
	r.mu.Unlock()
	if c.before != nil {
		out.Start, out.Duration = since, now.Sub(since)
		r.m.buildContention(&out, t, &c, r.sym)
		if len(out.Data.Sample) > 0 {
			err = r.cfg.Exporter.Export(ctx, &out)
		}
	}
	c.remember()
	switch errKept := r.keep(Process{out.PID, out.StartTicks}, s, w, c.before, now); {
	case err != nil:
		return err
	case errKept != nil:
		return errKept
	case !on:
		return offError(kind)
	}
	return nil
}

// keep remembers what is counted, in the place of what was.
func (r *Readings) keep(p Process, s *reading, w *waitReading, before map[uint64]counts, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wait[p] != s { // it is gone
		return nil
	}
	r.kept -= len(w.before)
	w.before = nil
	if r.kept+len(before) > rememberedSites {
		return errTooManySites
	}
	w.before, w.since = before, now
	r.kept += len(before)
	return nil
}
