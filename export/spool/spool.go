package spool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/internal/private"
)

// Options say where a Spool is and how much it keeps. What is 0 is the default.
type Options struct {
	// Dir is made if it is not there. It has to belong to this user, and nobody else may write to it.
	Dir string
	// MaxSize of all batches in bytes, as the disk counts, in blocks of 4 KiB: 512 MiB.
	MaxSize int64
	// MaxAge since a batch was committed: 1 hour.
	MaxAge time.Duration
	// MaxMemory is for batches that could not be written, in bytes: 8 MiB.
	MaxMemory int64
	// Clock is for tests.
	Clock Clock

	// step is for tests: it is called between any two changes on disk.
	step func()
}

// Clock tells the time of day, which may be set, and the time that has passed since some moment.
type Clock func() (wall time.Time, mono time.Duration)

// SystemClock is what an owner uses but in tests.
func SystemClock() Clock {
	began := time.Now()
	return func() (time.Time, time.Duration) { now := time.Now(); return now.Round(0), now.Sub(began) }
}

// Spool is safe for concurrent use.
type Spool struct {
	opt Options
	dir *private.Dir

	committing sync.Mutex // held while batches are written, one after the other

	mu        sync.Mutex
	closed    bool
	pending   []*export.Profile // the batch that is being collected
	weight    int64
	next      uint64   // sequence number
	batches   []*batch // in the order of sequence, and of age
	size      int64    // of those on disk, in whole blocks
	memory    int64    // of those that are not
	cursors   map[string]*Cursor
	headers   []cachedHeader // the last one used first
	unremoved bool           // a batch could not be removed
	stats     Stats
}

type cachedHeader struct {
	batch *batch
	metas []meta
}

const maxHeaders = 4 // kept in memory

// Open opens or makes the spool in o.Dir. Only one at a time may be open there. What a killed program left half done is repaired.
// Nothing is removed for being delivered before Attach has said who the destinations are.
func Open(o Options) (*Spool, error) {
	if o.MaxSize < 0 || o.MaxAge < 0 || o.MaxMemory < 0 {
		return nil, fmt.Errorf("spool %s: a limit is negative", o.Dir)
	}
	o.MaxSize, o.MaxAge, o.MaxMemory = cmp.Or(o.MaxSize, 512<<20), cmp.Or(o.MaxAge, time.Hour), cmp.Or(o.MaxMemory, 8<<20)
	if o.Clock == nil {
		o.Clock = SystemClock()
	}
	if o.step == nil {
		o.step = func() {}
	}
	dir, err := private.Open(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", o.Dir, err)
	}
	s := &Spool{opt: o, dir: dir, cursors: make(map[string]*Cursor)}
	if err := s.load(); err != nil {
		_ = s.dir.Close()
		return nil, fmt.Errorf("spool %s: %w", o.Dir, err)
	}
	return s, nil
}

// release removes b where no destination has any use for it.
func (s *Spool) release(b *batch) {
	some := false
	for _, c := range s.cursors {
		if c.holds(b) {
			return
		}
		some = some || c.attached
	}
	if !some {
		return
	}
	for _, c := range s.cursors {
		c.dropAll(b, Unconfigured)
	}
	s.remove(b)
}

// evict removes b, but for what is being sent, and counts what it held.
func (s *Spool) evict(b *batch, reason string) {
	taken := false
	for _, c := range s.cursors {
		c.dropAll(b, reason)
		taken = taken || c.takes(b)
	}
	if !b.evicted {
		b.evicted = true
		s.stats.removed(reason)
	}
	if !taken {
		s.remove(b)
	}
}

func (s *Stats) removed(reason string) {
	switch reason {
	case SpoolSize:
		s.RemovedSize++
	case TooOld:
		s.RemovedAge++
	case DiskFull:
		s.RemovedFull++
	case Corrupt:
		s.RemovedCorrupt++
	}
}

// remove removes b from disk and memory. Where it cannot, sweep tries again.
func (s *Spool) remove(b *batch) {
	i, ok := slices.BinarySearchFunc(s.batches, b.first, func(b *batch, first uint64) int { return cmp.Compare(b.first, first) })
	if !ok {
		return
	}
	if b.mem == nil {
		if err := s.dir.Remove(b.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.unremoved = true
			return
		}
		s.opt.step()
	}
	s.size -= b.disk()
	s.memory -= int64(len(b.mem))
	s.batches = slices.Delete(s.batches, i, i+1)
	s.headers = slices.DeleteFunc(s.headers, func(h cachedHeader) bool { return h.batch == b })
	for _, c := range s.cursors {
		delete(c.progress, b.first)
		s.forget(c)
	}
}

// sweep removes what nobody has any use for.
func (s *Spool) sweep() {
	for _, b := range slices.Clone(s.batches) {
		s.release(b)
	}
}

// expire removes what is too old.
func (s *Spool) expire() {
	_, now := s.opt.Clock()
	old := sort.Search(len(s.batches), func(i int) bool { return now-s.batches[i].mono <= s.opt.MaxAge })
	for _, b := range slices.Clone(s.batches[:old]) {
		s.evict(b, TooOld)
	}
	for _, c := range s.cursors {
		if c.attached && c.maxAge > 0 {
			c.expire(now)
		}
	}
	if s.unremoved {
		s.unremoved = false
		s.sweep()
	}
}

// open opens the file of b, or its bytes.
func (s *Spool) open(b *batch) (io.ReaderAt, func(), error) {
	if b.mem != nil {
		return bytes.NewReader(b.mem), func() {}, nil
	}
	f, err := s.dir.Root.Open(b.name())
	if err != nil {
		return nil, nil, err
	}
	return f, func() { f.Close() }, nil
}

// header returns what b holds. The last few are remembered: destinations are mostly at the same ones.
func (s *Spool) header(b *batch) ([]meta, error) {
	for i, h := range s.headers {
		if h.batch == b {
			s.headers[0], s.headers[i] = h, s.headers[0]
			return h.metas, nil
		}
	}
	f, closer, err := s.open(b)
	if err != nil {
		return nil, err
	}
	defer closer()
	metas, err := b.readHeader(f)
	if err != nil {
		return nil, err
	}
	s.headers = slices.Insert(s.headers[:min(len(s.headers), maxHeaders-1)], 0, cachedHeader{b, metas})
	return metas, nil
}

// spoil counts b as corrupt.
func (s *Spool) spoil(b *batch) {
	b.garbled = true
	s.evict(b, Corrupt)
}
