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
	"strings"
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

// Destination is one that profiles are kept for.
type Destination struct {
	Name   string        // its identity; becomes a file name, so there should be no secret in it
	MaxAge time.Duration // of a profile, from its Start, that it takes; older ones are dropped. 0: any
}

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

func (s *Spool) load() error {
	d, err := s.dir.Root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	wall, mono := s.opt.Clock()
	s.used(uint64(max(wall.UnixMicro(), 1))) // also where all files are gone
	for _, name := range names {
		switch {
		case private.IsTemp(name):
			_ = s.dir.Remove(name)
			s.stats.Leftovers++
		case strings.HasSuffix(name, suffix):
			if err := s.loadBatch(name); err != nil {
				return err
			}
		}
	}
	s.setAges(wall.UnixNano(), mono)
	for _, name := range names {
		if strings.HasSuffix(name, acksSuffix) && !private.IsTemp(name) {
			if err := s.cursor(name).load(); err != nil {
				return err
			}
		}
	}
	for _, b := range slices.Clone(s.batches) {
		if b.garbled {
			s.evict(b, Corrupt)
		}
	}
	return nil
}

// loadBatch takes up the batch of a file. What is no name that a spool gives is passed over.
func (s *Spool) loadBatch(name string) error {
	named, ok := parseName(name)
	if !ok {
		return nil
	}
	b, err := s.preamble(name)
	if err != nil && !unreadable(err) {
		return err
	}
	if err != nil || b.first != named.first || b.count != named.count || b.total != named.total {
		b = named
		b.garbled = true
	}
	for n := len(s.batches); n > 0 && b.first <= s.batches[n-1].last(); n = len(s.batches) {
		s.stats.RemovedCorrupt++ // a copy under another name: nothing would tell them apart
		prev := s.batches[n-1]
		if !prev.garbled || b.garbled {
			return s.dir.Remove(name)
		}
		s.batches, s.size = s.batches[:n-1], s.size-prev.disk()
		if err := s.dir.Remove(prev.name()); err != nil {
			return err
		}
	}
	s.batches = append(s.batches, b)
	s.size += b.disk()
	s.used(b.last() + 1)
	return nil
}

func (s *Spool) preamble(name string) (*batch, error) {
	f, err := s.dir.Root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := make([]byte, preambleLen)
	if err := readFull(f, p, 0); err != nil {
		return nil, err
	}
	return parsePreamble(p)
}

// setAges says of batches that were there before when they were committed by the clock of now. They do not get younger from one to the next.
func (s *Spool) setAges(wall int64, mono time.Duration) {
	for i, b := range s.batches {
		b.mono = mono - time.Duration(max(wall-b.created, 0))
		if i > 0 {
			b.mono = max(b.mono, s.batches[i-1].mono)
		}
	}
}

// used: sequence numbers before next may have been used.
func (s *Spool) used(next uint64) { s.next = max(s.next, next) }

func (s *Spool) cursor(file string) *Cursor {
	c := &Cursor{
		s: s, file: ackFile{dir: s.dir, name: file}, ready: make(chan struct{}, 1),
		totals: make(map[string]Count), progress: make(map[uint64]*progress), taken: make(map[uint64]*Record),
	}
	s.cursors[file] = c
	return c
}

// Attach says which destinations there are from now on, and returns their cursors, in the same order. A destination that was there
// before keeps its cursor. Others are none any more: their cursors give nothing.
func (s *Spool) Attach(destinations ...Destination) ([]*Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	var list []*Cursor
	present := make(map[*Cursor]bool)
	for _, d := range destinations {
		if d.Name == "" {
			return nil, fmt.Errorf("spool %s: a destination has no name", s.opt.Dir)
		}
		c := s.attach(d)
		if present[c] {
			return nil, fmt.Errorf("spool %s: there are two destinations %q", s.opt.Dir, d.Name)
		}
		present[c] = true
		list = append(list, c)
	}
	for _, c := range s.cursors {
		if !present[c] {
			s.detach(c)
		}
	}
	s.sweep()
	return list, nil
}

func (s *Spool) attach(d Destination) *Cursor {
	file := acksName(d.Name)
	c, ok := s.cursors[file]
	from := uint64(0)
	if ok {
		from = cmp.Or(c.until, maxSeq)
	} else {
		c = s.cursor(file)
	}
	c.attach(d.MaxAge, from)
	if c.file.f == nil || from != maxSeq {
		c.stale = true
		_ = c.rewrite() // counted, and tried again
	}
	c.wake()
	return c
}

func (s *Spool) detach(c *Cursor) {
	c.attached = false
	if c.until == 0 {
		c.until = s.next
		_ = c.write(ack{kind: until, first: c.until})
	}
	s.forget(c)
}

// forget forgets a destination that is none any more and of which there is nothing to know.
func (s *Spool) forget(c *Cursor) {
	if c.attached || len(c.taken) > 0 || c.until == 0 || len(s.batches) > 0 && s.batches[0].first < c.until {
		return
	}
	c.file.remove()
	delete(s.cursors, c.file.name)
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

// evict removes b, but for what is being sent, and counts what it held. false: it is still there.
func (s *Spool) evict(b *batch, reason string) bool {
	taken := false
	for _, c := range s.cursors {
		c.dropAll(b, reason)
		taken = taken || c.takes(b)
	}
	if !b.evicted {
		b.evicted = true
		s.stats.removed(reason)
	}
	return !taken && s.remove(b)
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

// remove removes b from disk and memory. false: it could not; that is tried again by sweep.
func (s *Spool) remove(b *batch) bool {
	i, ok := slices.BinarySearchFunc(s.batches, b.first, func(b *batch, first uint64) int { return cmp.Compare(b.first, first) })
	if !ok {
		return true
	}
	if b.mem == nil {
		if err := s.dir.Remove(b.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.unremoved = true
			return false
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
	return true
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
