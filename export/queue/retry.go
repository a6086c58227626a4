package queue

import (
	"maps"
	"slices"
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

// trouble is what is known of records that failed, so that one that the destination hangs on does not keep the others from being
// sent: after it another one has its turn. If that succeeds, and the first fails again, it rests, longer each time.
type trouble struct {
	of        map[uint64]*failures
	ends      int // of attempts
	successes int
}

type failures struct {
	once      int           // times that the destination could not cope with it
	rests     int           // times that others succeeded in between
	until     time.Duration // of the rest
	ends      int           // of attempts, when it failed last
	successes int
}

func (t *trouble) get(seq uint64) (f *failures, first bool) {
	f, ok := t.of[seq]
	if !ok {
		t.prune()
		f = new(failures)
		t.of[seq] = f
	}
	return f, !ok
}

// prune forgets the oldest records where there are too many. They may have left the spool.
func (t *trouble) prune() {
	if len(t.of) >= maxTrouble {
		delete(t.of, slices.Min(slices.Collect(maps.Keys(t.of))))
	}
}

// once notes such a failure of a record. true: it is the second one.
func (t *trouble) once(seq uint64) bool {
	f, _ := t.get(seq)
	f.once++
	return f.once > 1
}

// later notes that a record could not be sent now.
func (t *trouble) later(seq uint64, now time.Duration) {
	f, first := t.get(seq)
	if !first && t.successes > f.successes {
		f.until = now + min(restFirst<<min(2*f.rests, 20), restMost)
		f.rests++
	}
	f.ends, f.successes = t.ends, t.successes
}

// over: an attempt has come to an end.
func (t *trouble) over(success bool) {
	t.ends++
	if success {
		t.successes++
	}
}

// rests returns a function that says which records are to be passed over now. again: if there are no others, their turn is now.
func (t *trouble) rests(now time.Duration, again bool) func(uint64) bool {
	return func(seq uint64) bool {
		f := t.of[seq]
		return f != nil && (f.until > now || !again && f.ends == t.ends && f.once == 0)
	}
}

// next is how long it takes until the first of them can be sent again; forever, if none rests.
func (t *trouble) next(now time.Duration) time.Duration {
	first := forever
	for _, f := range t.of {
		if d := f.until - now; d > 0 && (first == forever || d < first) {
			first = d
		}
	}
	return first
}
