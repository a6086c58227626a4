package queue

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	longestAfter = time.Hour // that a destination may ask for
	restFirst    = 4 * time.Second
	restMost     = 5 * time.Minute
	maxTrouble   = 256
)

// pause is the time in which a destination that failed is left alone.
type pause struct {
	backoff backoff.ExponentialBackOff
	until   time.Duration // by the clock that does not step
}

func newPause(first, most time.Duration) pause {
	p := pause{backoff: backoff.ExponentialBackOff{
		InitialInterval: first, MaxInterval: max(first, most), Multiplier: 2, RandomizationFactor: 0.5,
	}}
	p.reset()
	return p
}

// reset: the next pause is a short one.
func (p *pause) reset() { p.backoff.Reset() }

func (p *pause) left(now time.Duration) time.Duration { return p.until - now }

// failed makes a pause of at least after, and returns what is left of it. Failures of what was sent before the pause began do
// not make the next one longer.
func (p *pause) failed(now, after time.Duration) time.Duration {
	if p.left(now) <= 0 {
		p.until = now + p.backoff.NextBackOff()
	}
	p.until = max(p.until, now+min(after, longestAfter))
	return p.left(now)
}

// trouble is what is known of records that failed. Those that fail again rest, so that one that the destination hangs on does
// not keep the others from being sent.
type trouble map[uint64]*failures

type failures struct {
	once  int // that the destination could not cope with it
	later int
	until time.Duration
}

func (t trouble) of(seq uint64) *failures {
	f := t[seq]
	if f == nil {
		t.prune()
		f = new(failures)
		t[seq] = f
	}
	return f
}

// prune forgets the oldest records where there are too many. They may have left the spool.
func (t trouble) prune() {
	if len(t) < maxTrouble {
		return
	}
	var oldest uint64
	for seq := range t {
		if oldest == 0 || seq < oldest {
			oldest = seq
		}
	}
	delete(t, oldest)
}

// once notes such a failure of a record. true: it is the second one.
func (t trouble) once(seq uint64) bool {
	f := t.of(seq)
	f.once++
	return f.once > 1
}

// later notes that a record could not be sent now. From the second time on it rests, four times as long each time.
func (t trouble) later(seq uint64, now time.Duration) {
	f := t.of(seq)
	f.later++
	if f.later > 1 {
		f.until = now + min(restFirst<<min(2*(f.later-2), 20), restMost)
	}
}

// rests returns a function that says which records are to be passed over now.
func (t trouble) rests(now time.Duration) func(uint64) bool {
	return func(seq uint64) bool {
		f := t[seq]
		return f != nil && f.until > now
	}
}

// next is how long it takes until the first of them can be sent again; forever, if none rests.
func (t trouble) next(now time.Duration) time.Duration {
	first := forever
	for _, f := range t {
		if d := f.until - now; d > 0 && (first == forever || d < first) {
			first = d
		}
	}
	return first
}
