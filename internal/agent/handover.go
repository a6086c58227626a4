package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sync/semaphore"

	"github.com/pprofd/pprofd/export"
)

// handover hands profiles on in a goroutine of its own: who makes them waits for a slow destination for a while, and then no
// more. What it holds is bounded by its size in memory.
type handover struct {
	name     string
	out      outlet
	log      *slog.Logger
	profiles chan *export.Profile
	room     *semaphore.Weighted
	patience time.Duration
	stuck    atomic.Bool // the last one to wait gave up, and nothing has been handed on since

	mu    sync.Mutex
	stats handoverStats
	done  chan struct{}
	err   error // of closing out; valid when done is closed
}

// outlet takes profiles, some of them at a time: Flush ends such a batch.
type outlet interface {
	export.Exporter
	Flush() error
}

// handoverStats counts since the start of the agent.
type handoverStats struct {
	Delivered, Failed, Dropped uint64
	Depth                      int   // profiles that wait, or are on their way
	Bytes                      int64 // of memory that they take, estimated
	Took                       time.Duration
	LastError                  string
	LastSuccess                time.Time
}

const (
	queueBytes    = 24 << 20
	queueProfiles = 1 << 10
	queuePatience = 5 * time.Second
	batchTime     = time.Second // from the first profile of a batch to its end
)

var errQueueFull = errors.New("its queue is full")

func newHandover(name string, out outlet, log *slog.Logger) *handover {
	q := &handover{
		name: name, out: out, log: log, profiles: make(chan *export.Profile, queueProfiles),
		room: semaphore.NewWeighted(queueBytes), patience: queuePatience, done: make(chan struct{}),
	}
	go q.run()
	return q
}

// Export puts p into the queue. Where there is no room for so long that the destination must be stuck, p is dropped.
func (q *handover) Export(ctx context.Context, p *export.Profile) error {
	size := weight(p.Data)
	if !q.room.TryAcquire(size) && !q.wait(ctx, size) {
		q.count(func(s *handoverStats) { s.Dropped++ })
		return fmt.Errorf("%s: %s profile of process %d is lost: %w", q.name, p.Kind, p.PID, errQueueFull)
	}
	q.count(func(s *handoverStats) { s.Depth, s.Bytes = s.Depth+1, s.Bytes+size })
	q.profiles <- p // has room: each profile weighs at least as much as its share of queueBytes
	return nil
}

func (q *handover) wait(ctx context.Context, size int64) bool {
	if q.stuck.Load() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	if q.room.Acquire(ctx, size) == nil {
		return true
	}
	q.stuck.Store(true)
	return false
}

// weight is about what a profile takes in memory.
func weight(p *profile.Profile) int64 {
	n := int64(queueBytes / queueProfiles)
	for _, s := range p.Sample {
		n += 200 + 8*int64(len(s.Location))
	}
	for _, l := range p.Location {
		n += 120 + 40*int64(len(l.Line))
	}
	n += 100 * int64(len(p.Function))
	return min(n, queueBytes)
}

// Close does nothing: who made the queue ends it.
func (*handover) Close() error { return nil }

func (q *handover) run() {
	defer close(q.done)
	for flush := (<-chan time.Time)(nil); ; {
		select {
		case p, ok := <-q.profiles:
			if !ok {
				q.err = q.out.Close()
				return
			}
			q.hand(p)
			if flush == nil {
				flush = time.After(batchTime)
			}
		case <-flush:
			flush = nil
			if err := q.out.Flush(); err != nil {
				q.count(func(s *handoverStats) { s.LastError = err.Error() })
			}
		}
	}
}

// hand hands p on.
func (q *handover) hand(p *export.Profile) {
	size := weight(p.Data)
	began := time.Now()
	err := q.out.Export(context.Background(), p)
	took := time.Since(began)
	if err != nil {
		q.log.Error("profile could not be delivered", "destination", q.name, "error", err)
	}
	q.count(func(s *handoverStats) {
		s.Depth, s.Bytes, s.Took = s.Depth-1, s.Bytes-size, s.Took+took
		if err != nil {
			s.Failed, s.LastError = s.Failed+1, err.Error()
			return
		}
		s.Delivered, s.LastSuccess = s.Delivered+1, time.Now()
	})
	q.stuck.Store(false)
	q.room.Release(size)
}

func (q *handover) count(f func(*handoverStats)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f(&q.stats)
}

// Stats says how it goes.
func (q *handover) Stats() handoverStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stats
}

// ended says whether nothing changes any more.
func (q *handover) ended() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// end waits until all is handed on, at most until ctx ends, and closes the destination. Nobody may call Export any more.
func (q *handover) end(ctx context.Context) error {
	close(q.profiles)
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return fmt.Errorf("%s: %d profiles could not be delivered before the end", q.name, q.Stats().Depth)
	}
}
