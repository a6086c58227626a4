// Package queue sends what a spool holds to one destination: fresh profiles first, older ones at a bounded rate.
package queue

import (
	"context"
	"errors"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/spool"
)

// Options describe a Queue. What is 0 is the default.
type Options struct {
	Name     string
	Cursor   *spool.Cursor
	Exporter export.Exporter // closed by Close
	// Parallel is how many profiles are on their way at a time: 1. As many may be sent twice if the program is killed.
	Parallel int
	// Timeout of one Export: 30 s.
	Timeout time.Duration
	// Fresh is how long after its commit a profile goes before older ones: 30 s.
	Fresh time.Duration
	// BacklogRate is how many older profiles are sent a second at most: 100.
	BacklogRate float64
	// MinPause and MaxPause bound the pauses after failures, which double: 1 s, 30 s; each is changed by up to half, at random.
	MinPause, MaxPause time.Duration
	// Patient: Close goes on trying until its context ends. Else it leaves to the next start what a failing destination does not take.
	Patient bool
	// Dropped is told of each profile that the destination refused for ever, if not nil.
	Dropped func(p *export.Profile, reason string, err error)
	// Failed is told of each other failure, and how long the pause is that follows, if not nil.
	Failed func(err error, pause time.Duration)

	// Clock and After are for tests. After gets what is left to wait by Clock.
	Clock spool.Clock
	After func(time.Duration) <-chan time.Time
}

// Queue sends to one destination.
type Queue struct{}

var errNotYet = errors.New("not there yet")

// New makes a Queue; Run begins to send.
func New(o Options) (*Queue, error) { return nil, errNotYet }

// Run sends until ctx ends, which also cuts off what is on its way, or until Close is through.
func (q *Queue) Run(ctx context.Context) error { return errNotYet }

// Close sends what there is until ctx ends, waits for Run, and closes the exporter. Where the destination fails, it gives up, unless
// Patient: what is not delivered stays in the spool.
func (q *Queue) Close(ctx context.Context) error { return errNotYet }

// Stats say how it goes; the numbers of profiles go on after a restart.
type Stats struct {
	spool.CursorStats
	Failures    int64         // attempts that failed, since the start
	Sends       int64         // attempts
	Took        time.Duration // by all of them
	Paused      time.Duration // what is left of a pause
	LastError   string
	LastSuccess time.Time
}

// Stats may be called at any time.
func (q *Queue) Stats() Stats { return Stats{} }
