package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"syscall"
	"time"

	"github.com/pprofd/pprofd/export"
)

// Cursor is what one destination has got, and what it has not. It is safe for concurrent use.
type Cursor struct {
	s     *Spool
	file  ackFile
	stale bool          // the file does not say what is so
	retry time.Duration // when to try to write it anew
	ready chan struct{}

	attached bool
	maxAge   time.Duration
	until    uint64 // where the destination was taken out; 0: it was not
	low      uint64 // all before is done
	totals   map[string]Count
	progress map[uint64]*progress // of batches, by their first sequence number; absent: nothing is done
	taken    map[uint64]*Record
}

// progress is what of a batch is done: delivered, dropped, or not for this destination.
type progress struct {
	bits    []uint64 // nil: all of it, if n says so
	n       int
	samples int64
}

func (p *progress) has(i int) bool { return p.bits == nil || p.bits[i/64]>>(i%64)&1 == 1 }

// Record is a profile that was taken.
type Record struct {
	Seq     uint64 // never used twice
	Profile *export.Profile
	Age     time.Duration // since Start, by the clock that does not step
	Waited  time.Duration // since it was committed, by the same

	batch *batch
}

// Lane is which part of the spool to take from.
type Lane struct {
	Than   time.Duration         // age of a batch, since it was committed
	Older  bool                  // batches of that age and older ones; else younger ones
	Except func(seq uint64) bool // which records to pass over; may be nil
}

// Reasons of the spool's own, among those of CursorStats.Dropped.
const (
	TooOld       = "too_old"      // for the destination, or for the spool
	SpoolSize    = "spool_size"   // the spool's limit
	DiskFull     = "disk_full"    // the oldest went for the newest, on disk or in memory
	Corrupt      = "corrupt"      // or gone from the disk
	Unconfigured = "unconfigured" // the destination was none any more when all others had it
)

// otherReason stands for those beyond maxReasons.
const otherReason = "other"

// ErrClosed is returned when the spool has been closed.
var ErrClosed = errors.New("the spool is closed")

// Take returns the oldest profile of the lane that is not delivered, dropped or taken; nil, if there is none. It belongs to the
// caller until he calls Done, Drop or Release. What is too old or cannot be read is dropped on the way. An error is of the
// system (too many open files): the next call may succeed.
func (c *Cursor) Take(l Lane) (*Record, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !c.attached {
		return nil, nil
	}
	_, now := s.opt.Clock()
	for {
		b, seq := c.next(l, now)
		if b == nil {
			return nil, nil
		}
		r, err := c.read(b, seq, now)
		if err != nil {
			return nil, fmt.Errorf("spool %s: %s: %w", s.opt.Dir, b.name(), err)
		}
		if r != nil {
			c.taken[seq] = r
			return r, nil
		}
	}
}

// next finds a record that can be taken.
func (c *Cursor) next(l Lane, now time.Duration) (*batch, uint64) {
	all := c.s.batches
	split := sort.Search(len(all), func(i int) bool { return now-all[i].mono < l.Than })
	low := sort.Search(len(all), func(i int) bool { return all[i].last() >= c.low })
	from, to := low, len(all)
	if l.Older {
		to = split
	} else {
		from = max(low, split)
	}
	for i := from; i < to; i++ {
		b := all[i]
		if c.done(b) {
			if i == low {
				low, c.low = low+1, b.last()+1
			}
			continue
		}
		if seq, ok := c.free(b, l.Except); ok {
			return b, seq
		}
	}
	return nil, 0
}

// free is the first record of b that is neither done nor taken.
func (c *Cursor) free(b *batch, except func(uint64) bool) (uint64, bool) {
	p := c.progress[b.first]
	for i := range b.count {
		seq := b.first + uint64(i)
		if p != nil && p.has(i) || c.taken[seq] != nil || except != nil && except(seq) {
			continue
		}
		return seq, true
	}
	return 0, false
}

// expire drops batches of which all is too old.
func (c *Cursor) expire(now time.Duration) {
	all := c.s.batches
	low := sort.Search(len(all), func(i int) bool { return all[i].last() >= c.low })
	for _, b := range slices.Clone(all[low:]) {
		if !c.tooOld(b, now) {
			return
		}
		c.dropAll(b, TooOld)
		c.s.release(b)
	}
}

func (c *Cursor) tooOld(b *batch, now time.Duration) bool {
	return c.maxAge > 0 && b.age(b.newest, now) > c.maxAge
}

// read reads a record of b. Neither record nor error: it was dropped, for it is too old or corrupt.
func (c *Cursor) read(b *batch, seq uint64, now time.Duration) (*Record, error) {
	metas, err := c.s.header(b)
	if unreadable(err) {
		c.s.spoil(b)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := &metas[seq-b.first]
	age := b.age(m.profile.Start.UnixNano(), now)
	if c.maxAge > 0 && age > c.maxAge {
		c.drop(b, seq, m.encoded.Total, TooOld)
		return nil, nil
	}
	f, closer, err := c.s.open(b)
	if err == nil {
		defer closer()
		var p *export.Profile
		if p, err = m.read(f); err == nil {
			return &Record{Seq: seq, Profile: p, Age: age, Waited: now - b.mono, batch: b}, nil
		}
	}
	if !unreadable(err) {
		return nil, err
	}
	c.s.stats.BadProfiles++
	c.drop(b, seq, m.encoded.Total, Corrupt)
	return nil, nil
}

// unreadable says whether err will be the same the next time.
func unreadable(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, e) {
			return false
		}
	}
	return err != nil
}

func (c *Cursor) drop(b *batch, seq uint64, samples int64, reason string) {
	c.mark(b, seq, seq, samples)
	reason = c.count(reason, 1, samples)
	_ = c.write(ack{dropped, reason, seq, seq, samples}) // counted
	c.s.release(b)
}

// Done says that the destination has it. An error says that it may get it again after a restart.
func (c *Cursor) Done(r *Record) error {
	return c.finish(r, func(samples int64) ack {
		c.count("", 1, samples)
		return ack{delivered, "", r.Seq, r.Seq, samples}
	})
}

// Drop says that it will not be delivered. reason is a short name ("http_400"); beyond 32 of them they are counted as "other".
func (c *Cursor) Drop(r *Record, reason string) error {
	return c.finish(r, func(samples int64) ack {
		return ack{dropped, c.count(cmp.Or(reason, otherReason), 1, samples), r.Seq, r.Seq, samples}
	})
}

func (c *Cursor) finish(r *Record, how func(samples int64) ack) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	switch {
	case c.s.closed:
		return ErrClosed
	case c.taken[r.Seq] != r:
		return fmt.Errorf("spool %s: record %d was not taken", c.s.opt.Dir, r.Seq)
	}
	delete(c.taken, r.Seq)
	samples := r.Profile.Encoded.Total
	c.mark(r.batch, r.Seq, r.Seq, samples)
	err := c.write(how(samples))
	c.s.release(r.batch)
	if err != nil {
		return fmt.Errorf("spool %s: acknowledge: %w", c.s.opt.Dir, err)
	}
	return nil
}

// Release says that it was not delivered, and can be taken again.
func (c *Cursor) Release(r *Record) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.taken[r.Seq] == r {
		delete(c.taken, r.Seq)
		c.s.release(r.batch) // if it was held for this record alone
	}
}

// Ready gets a value when something was committed since the last one.
func (c *Cursor) Ready() <-chan struct{} { return c.ready }

func (c *Cursor) wake() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// wants says whether what b holds has been for this destination.
func (c *Cursor) wants(b *batch) bool { return c.until == 0 || b.first < c.until }

// done says whether there is nothing left in b for this destination.
func (c *Cursor) done(b *batch) bool {
	p := c.progress[b.first]
	return p != nil && p.n >= b.count
}

// holds says whether b has to stay for this destination.
func (c *Cursor) holds(b *batch) bool { return !c.done(b) && (c.attached || c.takes(b)) }

// takes says whether something of b is taken.
func (c *Cursor) takes(b *batch) bool {
	for seq := range c.taken {
		if seq >= b.first && seq <= b.last() {
			return true
		}
	}
	return false
}

// mark notes that some of b is done which was not, with as many samples.
func (c *Cursor) mark(b *batch, first, last uint64, samples int64) {
	p := c.progress[b.first]
	if p == nil {
		p = &progress{bits: make([]uint64, (b.count+63)/64)}
		c.progress[b.first] = p
	}
	if p.bits == nil {
		return
	}
	for i := int(first - b.first); i <= int(last-b.first); i++ {
		if !p.has(i) {
			p.bits[i/64] |= 1 << (i % 64)
			p.n++
		}
	}
	p.samples += samples
	if p.n == b.count {
		p.bits = nil
	}
}

// count adds to the totals of a reason, and returns its name there.
func (c *Cursor) count(reason string, profiles, samples int64) string {
	reason = shortReason(reason)
	if _, ok := c.totals[reason]; !ok && len(c.totals) >= maxReasons {
		reason = otherReason
	}
	t := c.totals[reason]
	c.totals[reason] = Count{t.Profiles + profiles, t.Samples + samples}
	return reason
}

// dropAll drops what is left in b and not taken.
func (c *Cursor) dropAll(b *batch, reason string) {
	if !c.wants(b) {
		return
	}
	samples := b.total
	if p := c.progress[b.first]; p != nil {
		samples -= p.samples
	}
	for seq, r := range c.taken {
		if seq >= b.first && seq <= b.last() {
			samples -= r.Profile.Encoded.Total
		}
	}
	list := c.left(b)
	if len(list) == 0 {
		return
	}
	var n int64
	for i := range list {
		n += int64(list[i].last-list[i].first) + 1
	}
	reason = c.count(reason, n, samples)
	for i := range list {
		a := &list[i]
		a.kind, a.reason, a.samples = dropped, reason, samples
		c.mark(b, a.first, a.last, samples)
		samples = 0 // all with the first
	}
	_ = c.write(list...) // counted
}

// left lists the ranges of b that are neither done nor taken.
func (c *Cursor) left(b *batch) []ack {
	p := c.progress[b.first]
	return ranges(b, func(i int) bool { return (p == nil || !p.has(i)) && c.taken[b.first+uint64(i)] == nil })
}

func ranges(b *batch, in func(i int) bool) (list []ack) {
	for i := range b.count {
		seq := b.first + uint64(i)
		switch n := len(list); {
		case !in(i):
		case n > 0 && list[n-1].last == seq-1:
			list[n-1].last = seq
		default:
			list = append(list, ack{first: seq, last: seq})
		}
	}
	return list
}

const ackRetry = time.Second // between attempts to write a file of acks anew

var errAcks = errors.New("the file could not be written a moment ago, and is not tried again yet")

// write writes acks, of which the state of c knows already, to the file. Where that fails, the file is written anew.
func (c *Cursor) write(list ...ack) error {
	f := &c.file
	if c.stale || f.f == nil || f.full() {
		if err := c.rewrite(); err == nil || c.stale || f.f == nil {
			return err
		}
	}
	err := f.append(list...)
	c.s.opt.step()
	if err == nil {
		return nil
	}
	c.s.stats.AckFailures++
	c.stale = true
	return c.rewrite()
}

// rewrite makes a new file of the whole state.
func (c *Cursor) rewrite() error {
	_, now := c.s.opt.Clock()
	if now < c.retry {
		return errAcks
	}
	if err := c.file.replace(c.state()); err != nil {
		c.retry = now + ackRetry
		c.s.stats.AckFailures++
		return err
	}
	c.s.opt.step()
	c.stale = false
	return nil
}

// state is all there is to know, in acks.
func (c *Cursor) state() []ack {
	list := []ack{{kind: sequence, first: c.s.next}}
	if c.until > 0 {
		list = append(list, ack{kind: until, first: c.until})
	}
	for reason, t := range c.totals {
		list = append(list, ack{total, reason, uint64(t.Profiles), 0, t.Samples})
	}
	for _, b := range c.s.batches {
		list = c.appendKnown(list, b)
	}
	return list
}

// appendKnown appends what of b is done. Whole batches that follow each other are one range.
func (c *Cursor) appendKnown(list []ack, b *batch) []ack {
	switch p, prev := c.progress[b.first], &list[len(list)-1]; {
	case p == nil:
		return list
	case p.bits != nil:
		done := ranges(b, p.has)
		for i := range done {
			done[i].kind = known
		}
		done[0].samples = p.samples
		return append(list, done...)
	case prev.kind == known && prev.samples == 0 && prev.last == b.first-1:
		prev.last = b.last()
		return list
	default:
		return append(list, ack{kind: known, first: b.first, last: b.last()})
	}
}

// attach makes c that of a destination. All that came from sequence number from on is new to it: what is too old is none of its.
func (c *Cursor) attach(maxAge time.Duration, from uint64) {
	_, now := c.s.opt.Clock()
	c.attached, c.maxAge, c.until, c.low = true, maxAge, 0, 0
	for _, b := range c.s.batches {
		if b.first >= from && c.tooOld(b, now) {
			c.mark(b, b.first, b.last(), b.total)
		}
	}
}

// load makes the state of what the file says.
func (c *Cursor) load() error {
	list, bad, err := c.file.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case unreadable(err): // as if there were none: what is still there is sent again
		bad++
	case err != nil:
		return err
	}
	c.s.stats.BadAcks += bad
	for i, a := range list {
		if i == 0 || a != list[i-1] { // its copy
			c.replay(a)
		}
	}
	if bad > 0 {
		c.stale = true
		_ = c.rewrite() // counted
	}
	return nil
}

func (c *Cursor) replay(a ack) {
	switch a.kind {
	case total:
		c.totals[a.reason] = Count{int64(a.first), a.samples}
	case until:
		c.until = a.first
	case sequence:
		c.s.used(a.first)
	case delivered, dropped, known:
		c.s.used(a.last + 1)
		if a.kind != known {
			c.count(a.reason, int64(a.last-a.first)+1, a.samples)
		}
		c.replayRange(a)
	}
}

func (c *Cursor) replayRange(a ack) {
	all := c.s.batches
	for i := sort.Search(len(all), func(i int) bool { return all[i].last() >= a.first }); i < len(all) && all[i].first <= a.last; i++ {
		b := all[i]
		first, last, samples := max(a.first, b.first), min(a.last, b.last()), a.samples
		if first == b.first && last == b.last() {
			samples = b.total
		}
		c.mark(b, first, last, samples)
	}
}
