package queue

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pprofd/pprofd/export"
)

// TestParallel: as many are on their way as was asked for, and no more.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		r := newRig(t, Options{Parallel: 4}, 0, func(_ context.Context, n int) error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Duration(n%7) * time.Second / 10)
			mu.Lock()
			defer mu.Unlock()
			now--
			if n%50 == 0 {
				return &export.DeliveryError{Retry: export.Never, Reason: "invalid", Err: errDown}
			}
			return nil
		})
		defer r.end()
		r.window(200)
		pass(29 * time.Second)
		if most != 4 {
			t.Errorf("%d at a time", most)
		}
		if st := r.queue.Stats(); st.Delivered.Profiles != 196 || st.Dropped["invalid"].Profiles != 4 {
			t.Errorf("%+v", st)
		}
	})
}

// TestPace: one at a time is enough for a quick server, also after a slow time; a slow one gets as many as it takes to keep up.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most, latency := 0, 0, 10*time.Millisecond
		r := newRig(t, Options{Parallel: 32}, 0, func(context.Context, int) error {
			mu.Lock()
			now++
			most = max(most, now)
			d := latency
			mu.Unlock()
			time.Sleep(d)
			mu.Lock()
			defer mu.Unlock()
			now--
			return nil
		})
		defer r.end()
		windows := func(n int) (peak int) {
			mu.Lock()
			most = 0
			mu.Unlock()
			for range n {
				r.window(100)
				pass(10 * time.Second)
			}
			mu.Lock()
			defer mu.Unlock()
			return most
		}
		if n := windows(5); n != 1 {
			t.Errorf("a quick server got %d at a time", n)
		}
		mu.Lock()
		latency = 400 * time.Millisecond // as a Pyroscope that answers when its segment is written
		mu.Unlock()
		n := windows(10)
		if st := r.queue.Stats(); n < 4 || n > 32 || st.Pending.Profiles != 0 {
			t.Errorf("a slow server got %d at a time, and %d profiles wait", n, st.Pending.Profiles)
		}
		mu.Lock()
		latency = 10 * time.Millisecond
		mu.Unlock()
		windows(5)
		if n := windows(5); n != 1 {
			t.Errorf("a server that has become quick gets %d at a time", n)
		}
	})
}

// counter counts how many are at a destination at a time.
type counter struct {
	mu        sync.Mutex
	now, most int
}

func (c *counter) hold(d time.Duration) {
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	time.Sleep(d)
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
}

// TestPaceKeepsUp: 200 processes with a CPU profile every 10 s, and heap and allocations every minute, at a server that is 40 ms away:
// 26.7 profiles/s, of which one at a time would deliver 25.
func TestPaceKeepsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		r := newRig(t, Options{Parallel: 32}, time.Hour, func(context.Context, int) error { c.hold(40 * time.Millisecond); return nil })
		defer r.end()
		for i := range 60 {
			r.window(200)
			if i%6 == 0 {
				r.window(400)
			}
			pass(10 * time.Second)
		}
		if st := r.queue.Stats(); st.Pending.Profiles != 0 || len(st.Dropped) > 0 || c.most < 2 {
			t.Errorf("at most %d at a time: %+v", c.most, st)
		}
		t.Logf("at most %d at a time", c.most)
	})
}

// TestPaceAfterAnOutage: what waited for a server that was away goes one at a time, if the server is quick.
func TestPaceAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		began := time.Now()
		r := newRig(t, Options{Parallel: 32}, time.Hour, func(context.Context, int) error {
			if time.Since(began) < 10*time.Minute {
				return errors.New("away")
			}
			c.hold(10 * time.Millisecond)
			return nil
		})
		defer r.end()
		for range 60 {
			r.window(2)
			pass(10 * time.Second)
		}
		pass(2 * time.Minute)
		if st := r.queue.Stats(); st.Delivered.Profiles != 120 || c.most != 1 {
			t.Errorf("%d at a time: %+v", c.most, st)
		}
	})
}
