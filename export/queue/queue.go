// Package queue sends what a spool holds to one destination: fresh profiles first, older ones at a bounded rate, and after a
// failure again as the destination asks for it.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/spool"
)

// Options describe a Queue. What is 0 is the default.
type Options struct {
	Name     string // of the destination, for errors
	Cursor   *spool.Cursor
	Exporter export.Exporter // closed by Close
	// Parallel is how many profiles are on their way at a time, at most: 1. There is one as long as none has to wait for more than 2 s,
	// and after each failure. As many as are on their way may be sent twice if the program is killed.
	Parallel int
	// Timeout of one Export: 30 s.
	Timeout time.Duration
	// Fresh is how long after its commit a profile goes before older ones: 30 s.
	Fresh time.Duration
	// BacklogRate is how many older profiles are sent a second at most: 100.
	BacklogRate float64
	// MinPause and MaxPause bound the pauses after failures: 1 s, and twice that each time up to 30 s; each is made up to half
	// shorter or longer, at random. Where the destination says how long it wants not to be asked, that counts if it is longer (up to an hour).
	MinPause, MaxPause time.Duration
	// Patient: Close sends also what is not fresh, and goes on after failures. Else that is left to the next start.
	Patient bool
	// Dropped is told of each profile that the destination refused for ever. It and Failed may be called several times at once,
	// and do not call the queue. What the spool drops by itself (spool.TooOld, ...) is only counted.
	Dropped func(p *export.Profile, reason string, err error)
	// Failed is told of each other failure, and how long the pause is that follows.
	Failed func(err error, pause time.Duration)

	// Clock and After are for tests; After is asked for what is left to wait by Clock.
	Clock spool.Clock
	After func(time.Duration) <-chan time.Time
}

// Queue sends to one destination.
type Queue struct {
	opt     Options
	backlog *rate.Limiter
	wake    chan struct{} // something on its way has come to an end
	begun   chan struct{}
	closing chan struct{}
	done    chan struct{} // Run has returned

	mu      sync.Mutex
	cancel  context.CancelFunc // of Run
	ended   bool               // Close was called
	flying  int
	pace    pace
	pause   pause
	trouble trouble
	stats   Stats
}

// Stats say how it goes. Those of the cursor go on after a restart, the others count since the start.
type Stats struct {
	spool.CursorStats
	Sends       int64         // attempts that have come to an end
	Failures    int64         // those that failed
	Took        time.Duration // by all of them
	Pause       time.Duration // what is left of it
	Pace        int           // profiles that may be on their way at a time
	LastError   string
	LastSuccess time.Time
}

var errOptions = errors.New("a cursor and an exporter are needed, and no limit is negative")

// New makes a Queue. Run begins to send.
func New(o Options) (*Queue, error) {
	if o.Cursor == nil || o.Exporter == nil || o.Parallel < 0 || o.BacklogRate < 0 || min(o.Timeout, o.Fresh, o.MinPause, o.MaxPause) < 0 {
		return nil, fmt.Errorf("queue %s: %w", o.Name, errOptions)
	}
	o.Parallel, o.BacklogRate = cmp.Or(o.Parallel, 1), cmp.Or(o.BacklogRate, 100)
	o.Timeout, o.Fresh = cmp.Or(o.Timeout, 30*time.Second), cmp.Or(o.Fresh, 30*time.Second)
	o.MinPause, o.MaxPause = cmp.Or(o.MinPause, time.Second), cmp.Or(o.MaxPause, 30*time.Second)
	if o.Clock == nil {
		o.Clock = spool.SystemClock()
	}
	if o.After == nil {
		o.After = time.After
	}
	if o.Dropped == nil {
		o.Dropped = func(*export.Profile, string, error) {}
	}
	if o.Failed == nil {
		o.Failed = func(error, time.Duration) {}
	}
	return &Queue{
		opt:     o,
		backlog: rate.NewLimiter(rate.Limit(o.BacklogRate), max(1, int(o.BacklogRate/10))),
		wake:    make(chan struct{}, 1), begun: make(chan struct{}), closing: make(chan struct{}), done: make(chan struct{}),
		pace:  pace{most: o.Parallel, now: 1},
		pause: newPause(o.MinPause, o.MaxPause), trouble: trouble{of: make(map[uint64]*failures)},
	}, nil
}

// Run sends until ctx ends, which also cuts off what is on its way, or until Close is through. It is called once.
func (q *Queue) Run(ctx context.Context) error {
	defer close(q.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !q.begin(cancel) {
		return nil
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	for ctx.Err() == nil {
		r, wait, err := q.next()
		switch {
		case err != nil:
			q.failed(err, 0)
		case r != nil:
			sending.Go(func() { q.send(ctx, r) })
		case wait == over:
			return nil
		default:
			q.wait(ctx, wait)
		}
	}
	return ctx.Err()
}

// begin: false says that Close came first.
func (q *Queue) begin(cancel context.CancelFunc) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cancel = cancel
	close(q.begun)
	return !q.ended
}

// Begun is closed once Run has begun: only then does Close send what is fresh.
func (q *Queue) Begun() <-chan struct{} { return q.begun }

// What next says of waiting, besides a time.
const (
	forever = time.Duration(-1) // for something to be committed, or to come back
	over    = time.Duration(-2) // there is nothing more to do
)

// wait returns when there may be something to do.
func (q *Queue) wait(ctx context.Context, d time.Duration) {
	var timer <-chan time.Time
	if d >= 0 {
		timer = q.opt.After(d)
	}
	closing := q.closing
	if q.isEnded() {
		closing = nil
	}
	select {
	case <-ctx.Done():
	case <-timer:
	case <-q.wake:
	case <-q.opt.Cursor.Ready():
	case <-closing:
	}
}

func (q *Queue) isEnded() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended
}

// next takes what is to be sent next, or says how long to wait.
func (q *Queue) next() (*spool.Record, time.Duration, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, now := q.opt.Clock()
	leaving := q.ended && !q.opt.Patient
	if q.flying >= q.pace.now {
		return nil, forever, nil
	}
	if left := q.pause.left(now); left > 0 {
		return nil, q.unless(leaving, left), nil
	}
	wait := forever
	for _, again := range []bool{false, true} {
		except := q.trouble.rests(now, again)
		r, err := q.opt.Cursor.Take(spool.Lane{Than: q.opt.Fresh, Except: except})
		if r == nil && err == nil && !leaving {
			r, wait, err = q.older(now, except)
		}
		if r != nil {
			q.flying++
			q.pace.took(r.Waited, now)
		}
		if r != nil || err != nil {
			return r, 0, err
		}
	}
	if q.flying == 0 {
		q.pace.idle()
	}
	return nil, q.unless(leaving || q.ended && q.opt.Cursor.Stats().Pending.Profiles == 0, wait), nil
}

// unless is how long to wait, if it is not over: then only for what is on its way.
func (q *Queue) unless(end bool, wait time.Duration) time.Duration {
	switch {
	case !end:
		return wait
	case q.flying > 0:
		return forever
	}
	return over
}

// older takes from the backlog, if its rate allows that.
func (q *Queue) older(now time.Duration, except func(uint64) bool) (*spool.Record, time.Duration, error) {
	wait := q.trouble.next(now)
	at := time.Time{}.Add(now)
	if left := 1 - q.backlog.TokensAt(at); left > 0 {
		d := time.Duration(left/q.opt.BacklogRate*float64(time.Second)) + 1
		if wait == forever || d < wait {
			wait = d
		}
		return nil, wait, nil
	}
	r, err := q.opt.Cursor.Take(spool.Lane{Than: q.opt.Fresh, Older: true, Except: except})
	if r != nil {
		q.backlog.AllowN(at, 1)
	}
	return r, wait, err
}

func (q *Queue) send(ctx context.Context, r *spool.Record) {
	sending, cancel := context.WithTimeout(ctx, q.opt.Timeout)
	_, began := q.opt.Clock()
	err := q.opt.Exporter.Export(sending, r.Profile)
	cancel()
	wall, now := q.opt.Clock()
	q.mu.Lock()
	q.stats.Sends++
	q.stats.Took += now - began
	q.trouble.over(err == nil)
	if err == nil {
		q.stats.LastSuccess = wall
		q.pause.reset()
		q.pace.succeeded(now)
	}
	q.mu.Unlock()
	switch {
	case err == nil:
		err = q.opt.Cursor.Done(r)
		q.landed(r, true)
		q.note(err)
	case ctx.Err() != nil:
		q.opt.Cursor.Release(r)
		q.landed(r, false)
	default:
		q.judge(r, err)
	}
}

// judge decides what becomes of a record that could not be sent.
func (q *Queue) judge(r *spool.Record, err error) {
	e := export.RetryOf(err)
	if e == nil {
		e = &export.DeliveryError{Reason: "failed"}
	}
	q.mu.Lock()
	q.stats.Failures++
	q.stats.LastError = err.Error()
	_, now := q.opt.Clock()
	refused := e.Retry == export.Never || e.Retry == export.Once && q.trouble.once(r.Seq)
	if e.Retry == export.Later {
		q.trouble.later(r.Seq, now)
	}
	if e.Retry == export.Never {
		q.pause.reset() // it is there, and answers
	}
	q.mu.Unlock()
	if refused {
		reason := cmp.Or(e.Reason, "refused")
		dropped := q.opt.Cursor.Drop(r, reason)
		q.opt.Dropped(r.Profile, reason, err)
		q.note(dropped)
	} else {
		q.opt.Cursor.Release(r)
	}
	if e.Retry != export.Never {
		q.failed(err, e.After)
	}
	q.landed(r, refused)
}

// failed makes a pause.
func (q *Queue) failed(err error, after time.Duration) {
	q.mu.Lock()
	_, now := q.opt.Clock()
	pause := q.pause.failed(now, after)
	q.pace.failed()
	q.stats.LastError = err.Error()
	q.mu.Unlock()
	q.opt.Failed(fmt.Errorf("%s: %w", q.opt.Name, err), pause)
}

// note notes an error of the spool, which does not keep anything from being sent.
func (q *Queue) note(err error) {
	if err == nil {
		return
	}
	q.mu.Lock()
	q.stats.LastError = err.Error()
	q.mu.Unlock()
	q.opt.Failed(fmt.Errorf("%s: %w", q.opt.Name, err), 0)
}

// landed: r is not on its way any more.
func (q *Queue) landed(r *spool.Record, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.flying--
	if over {
		delete(q.trouble.of, r.Seq)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Close sends what is fresh until ctx ends, or the destination fails (Patient: all there is, whether it fails or not), waits for
// Run, and closes the exporter. What is not delivered stays in the spool; all of it, if Run was not called before.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	running, first := q.cancel, !q.ended
	q.ended = true
	q.mu.Unlock()
	if !first {
		return nil
	}
	close(q.closing)
	if running != nil {
		select {
		case <-q.done:
		case <-ctx.Done():
			running()
			<-q.done
		}
	}
	return q.opt.Exporter.Close()
}

// Stats may be called at any time.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	st := q.stats
	_, now := q.opt.Clock()
	st.Pause, st.Pace = max(q.pause.left(now), 0), q.pace.now
	q.mu.Unlock()
	st.CursorStats = q.opt.Cursor.Stats()
	return st
}
