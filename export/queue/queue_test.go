package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/spool"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// destination is one whose answers a test gives.
type destination struct {
	answer func(ctx context.Context, n int) error // to profile n

	mu     sync.Mutex
	began  time.Time
	tried  []attempt
	closed bool
}

type attempt struct {
	n  int
	at time.Duration // since the beginning
	ok bool
}

func (d *destination) Export(ctx context.Context, p *export.Profile) error {
	at := time.Since(d.began)
	err := d.answer(ctx, p.PID)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tried = append(d.tried, attempt{p.PID, at, err == nil})
	return err
}

func (d *destination) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

// got lists what was delivered, in order.
func (d *destination) got() (list []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.tried {
		if a.ok {
			list = append(list, a.n)
		}
	}
	return list
}

// of lists the attempts to send n.
func (d *destination) of(n int) (list []time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.tried {
		if a.n == n {
			list = append(list, a.at)
		}
	}
	return list
}

// rig is a spool with one destination. Its time is synctest's.
type rig struct {
	*testing.T
	*destination
	dir   string
	spool *spool.Spool
	queue *Queue
	run   sync.WaitGroup
	drops map[string][]int // by reason
	next  int
}

func fine(context.Context, int) error { return nil }

func newRig(t *testing.T, o Options, maxAge time.Duration, answer func(context.Context, int) error) *rig {
	t.Helper()
	r := &rig{T: t, dir: t.TempDir(), destination: &destination{answer: answer, began: time.Now()}, drops: make(map[string][]int)}
	var err error
	if r.spool, err = spool.Open(spool.Options{Dir: r.dir}); err != nil {
		t.Fatal(err)
	}
	c, err := r.spool.Attach(spool.Destination{Name: "d", MaxAge: maxAge})
	if err != nil {
		t.Fatal(err)
	}
	o.Name, o.Cursor, o.Exporter = "d", c[0], r.destination
	o.Dropped = func(p *export.Profile, reason string, err error) {
		if err == nil {
			t.Error("dropped without an error")
		}
		r.drops[reason] = append(r.drops[reason], p.PID)
	}
	if r.queue, err = New(o); err != nil {
		t.Fatal(err)
	}
	r.run.Go(func() { _ = r.queue.Run(context.Background()) })
	return r
}

// window commits n profiles, which have as many samples as their number says.
func (r *rig) window(n int) {
	r.Helper()
	for range n {
		r.next++
		p := &export.Profile{
			Kind: "cpu", PID: r.next, Start: time.Now().Add(-10 * time.Second), Duration: 10 * time.Second,
			Encoded: &export.Encoded{Gzip: []byte(fmt.Sprint(r.next)), Total: int64(r.next)},
		}
		if err := r.spool.Append(p); err != nil {
			r.Fatal(err)
		}
	}
	if err := r.spool.Commit(); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) end() {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := r.queue.Close(ctx); err != nil {
		r.Error(err)
	}
	r.run.Wait()
	if !r.closed {
		r.Error("the exporter is open")
	}
	if err := r.spool.Close(); err != nil {
		r.Error(err)
	}
}

// pass lets time pass, and all come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func upTo(last int) (list []int) {
	for n := 1; n <= last; n++ {
		list = append(list, n)
	}
	return list
}

func sum(list []int) (n int64) {
	for _, i := range list {
		n += int64(i)
	}
	return n
}

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{}, 0, fine)
		defer r.end()
		for range 5 {
			r.window(20)
			synctest.Wait()
			pass(10 * time.Second)
		}
		if d := cmp.Diff(upTo(100), r.got()); d != "" {
			t.Error(d)
		}
		st := r.queue.Stats()
		if st.Delivered != (spool.Count{Profiles: 100, Samples: 5050}) || st.Sends != 100 || st.Failures != 0 || st.Pending.Profiles != 0 || time.Since(st.LastSuccess) != 10*time.Second {
			t.Errorf("%+v", st)
		}
	})
}

// TestAcknowledgesBeforeTheNext: when a profile is being sent, a restart would know of all before.
func TestAcknowledgesBeforeTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		var sent, known int
		r = newRig(t, Options{}, 0, func(context.Context, int) error {
			image := t.TempDir()
			if err := os.CopyFS(image, os.DirFS(r.dir)); err != nil {
				t.Error(err)
			}
			if err := os.Chmod(image, 0o700); err != nil {
				t.Error(err)
			}
			s, err := spool.Open(spool.Options{Dir: image})
			if err != nil {
				t.Error(err)
				return err
			}
			defer s.Close()
			c, err := s.Attach(spool.Destination{Name: "d"})
			if err != nil {
				t.Error(err)
				return err
			}
			if n := c[0].Stats().Delivered.Profiles; n != int64(sent) {
				t.Errorf("%d are known of %d", n, sent)
			}
			sent++
			known++
			return nil
		})
		defer r.end()
		r.window(10)
		synctest.Wait()
		if known != 10 {
			t.Errorf("%d looked at", known)
		}
	})
}

var errDown = errors.New("connection refused")

// TestOutage of 10 minutes: what is fresh goes first afterwards, the rest follows, the oldest first, at the given rate.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 5
		var down atomic.Bool
		down.Store(true)
		r := newRig(t, Options{BacklogRate: rate}, 0, func(context.Context, int) error {
			time.Sleep(10 * time.Millisecond)
			if down.Load() {
				return errDown
			}
			return nil
		})
		defer r.end()
		for range 60 {
			r.window(10)
			pass(10 * time.Second)
		}
		tries := len(r.tried)
		if tries < 20 || tries > 60 {
			t.Errorf("%d attempts in 10 minutes", tries)
		}
		for i := 1; i < tries; i++ {
			if d := r.tried[i].at - r.tried[i-1].at; d < 500*time.Millisecond || d > 46*time.Second {
				t.Errorf("attempt %d after %v", i, d)
			}
		}
		if st := r.queue.Stats(); st.Failures != int64(tries) || st.LastError != errDown.Error() || st.Pending.Profiles != 600 || st.Oldest != 10*time.Minute || st.Pause <= 0 {
			t.Errorf("%+v", st)
		}
		down.Store(false)
		for range 60 {
			r.window(10)
			pass(10 * time.Second)
		}
		got := r.got()
		if d := cmp.Diff(upTo(1200), slices.Sorted(slices.Values(got))); d != "" {
			t.Fatal(d)
		}
		// Committed since n: 10*n is when. The pause may have been 45 s.
		last, lastAt, worst := 0, time.Duration(0), time.Duration(0)
		for _, a := range r.tried[tries:] {
			late := a.at - time.Duration((a.n-1)/10)*10*time.Second
			if late <= 30*time.Second {
				worst = max(worst, late)
				continue
			}
			if a.n < last {
				t.Errorf("%d after %d", a.n, last)
			}
			if a.at-lastAt < 150*time.Millisecond && last%5 == 0 && last > 10 {
				t.Errorf("%d is %v after the one before", a.n, a.at-lastAt)
			}
			last, lastAt = a.n, a.at
		}
		if first := r.tried[tries].n; first < 570 {
			t.Errorf("the first after the outage is %d", first)
		}
		backlog := lastAt - 10*time.Minute
		if backlog < 590/rate*time.Second || backlog > 620/rate*time.Second+50*time.Second {
			t.Errorf("the backlog took %v", backlog)
		}
	})
}

// TestRetryAfter is respected, within reason.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []time.Duration{3 * time.Minute, 5 * time.Hour}
		r := newRig(t, Options{}, 0, func(context.Context, int) error {
			if len(answers) == 0 {
				return nil
			}
			after := answers[0]
			answers = answers[1:]
			return &export.DeliveryError{Retry: export.Later, After: after, Reason: "http_429", Err: errors.New("slow down")}
		})
		defer r.end()
		r.window(1)
		pass(2 * time.Hour)
		want := []attempt{{1, 0, false}, {1, 3 * time.Minute, false}, {1, 3*time.Minute + time.Hour, true}}
		if d := cmp.Diff(want, r.tried, cmp.AllowUnexported(attempt{})); d != "" {
			t.Error(d)
		}
	})
}

// TestPausesBeginAnew after a success.
func TestPausesBeginAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 12
		r := newRig(t, Options{}, 0, func(context.Context, int) error {
			failures--
			if failures >= 0 || failures == -3 {
				return errDown
			}
			return nil
		})
		defer r.end()
		r.window(5)
		pass(20 * time.Minute)
		if n := len(r.tried); n != 18 {
			t.Fatalf("%d attempts", n)
		}
		for i, seconds := range map[int]float64{1: 1.5, 2: 3, 3: 6, 4: 12, 11: 45, 15: 1.5} {
			if d := (r.tried[i].at - r.tried[i-1].at).Seconds(); d > seconds || d < seconds/3 {
				t.Errorf("attempt %d after %v s", i, d)
			}
		}
	})
}

// TestOnceAndNever: what cannot succeed is dropped, and counted by the destination's reason.
func TestOnceAndNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := make(map[int]int)
		r := newRig(t, Options{}, 0, func(_ context.Context, n int) error {
			tries[n]++
			switch {
			case n%10 == 1:
				return fmt.Errorf("push: %w", &export.DeliveryError{Retry: export.Never, Reason: "invalid", Err: errDown})
			case n%10 == 2, n%10 == 3 && tries[n] == 1:
				return &export.DeliveryError{Retry: export.Once, Reason: "http_500", Err: errDown}
			case n%10 == 4:
				return &export.DeliveryError{Retry: export.Never, Err: errDown}
			}
			return nil
		})
		defer r.end()
		r.window(30)
		pass(time.Minute)
		want := map[string][]int{"invalid": {1, 11, 21}, "http_500": {2, 12, 22}, "refused": {4, 14, 24}}
		if d := cmp.Diff(want, r.drops); d != "" {
			t.Error(d)
		}
		for n, count := range tries {
			want := 1
			if n%10 == 2 || n%10 == 3 {
				want = 2
			}
			if count != want {
				t.Errorf("%d was sent %d times", n, count)
			}
		}
		st := r.queue.Stats()
		for reason, list := range want {
			if st.Dropped[reason] != (spool.Count{Profiles: 3, Samples: sum(list)}) {
				t.Errorf("%s: %+v", reason, st.Dropped)
			}
		}
		if st.Delivered.Profiles != 21 || st.Failures != 15-0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestNeverMakesNoPause: a destination that refuses is there.
func TestNeverMakesNoPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{}, 0, func(context.Context, int) error {
			return &export.DeliveryError{Retry: export.Never, Reason: "invalid", Err: errDown}
		})
		defer r.end()
		r.window(100)
		synctest.Wait()
		if st := r.queue.Stats(); st.Dropped["invalid"].Profiles != 100 || st.Pause != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestHangs: a destination that hangs on one profile gets the others nevertheless.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Timeout: 10 * time.Second}, 30*time.Minute, func(ctx context.Context, n int) error {
			if n == 3 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		defer r.end()
		began := time.Now()
		for range 60 {
			r.window(5)
			pass(time.Minute)
			if err := r.spool.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		want := slices.Delete(upTo(300), 2, 3)
		if d := cmp.Diff(want, slices.Sorted(slices.Values(r.got()))); d != "" {
			t.Error(d)
		}
		if n := len(r.of(3)); n < 5 || n > 12 {
			t.Errorf("tried %d times: %v", n, r.of(3))
		}
		if st := r.queue.Stats(); st.Dropped[spool.TooOld] != (spool.Count{Profiles: 1, Samples: 3}) || st.Took > time.Since(began)/4 {
			t.Errorf("%+v", st)
		}
	})
}

// TestInjectedClock: a queue waits by the clock it is given, so that an outage takes no time.
func TestInjectedClock(t *testing.T) {
	var mu sync.Mutex
	wall, mono := time.Unix(1_800_000_000, 0), time.Duration(0)
	clock := func() (time.Time, time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		return wall.Add(mono), mono
	}
	after := func(d time.Duration) <-chan time.Time { // jumps
		mu.Lock()
		defer mu.Unlock()
		mono += d
		c := make(chan time.Time, 1)
		c <- wall.Add(mono)
		return c
	}
	s, err := spool.Open(spool.Options{Dir: t.TempDir(), Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := s.Attach(spool.Destination{Name: "d"})
	if err != nil {
		t.Fatal(err)
	}
	delivered := make(chan int)
	d := &destination{answer: func(_ context.Context, n int) error {
		if _, mono := clock(); mono < 10*time.Minute {
			return errDown
		}
		delivered <- n
		return nil
	}}
	q, err := New(Options{Cursor: c[0], Exporter: d, Clock: clock, After: after})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Append(&export.Profile{Kind: "cpu", PID: 1, Start: wall, Encoded: &export.Encoded{Gzip: []byte("x"), Total: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = q.Run(context.Background()) }()
	<-delivered
	if err := q.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if st := q.Stats(); st.Failures < 20 || st.Delivered.Profiles != 1 {
		t.Errorf("%+v", st)
	}
}

// TestNothingLost: a destination that fails at random, and restarts: what it got, and what was dropped, is all there was.
func TestNothingLost(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			var mu sync.Mutex
			got := make(map[int]int)
			answer := func(_ context.Context, n int) error {
				time.Sleep(time.Duration(n%100) * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				reason := fmt.Sprint("http_", 400+rnd.IntN(3))
				switch rnd.IntN(12) {
				case 0:
					return errDown
				case 1:
					return &export.DeliveryError{Retry: export.Never, Reason: reason, Err: errDown}
				case 2:
					return &export.DeliveryError{Retry: export.Once, Reason: reason, Err: errDown}
				case 3:
					return &export.DeliveryError{Retry: export.Later, After: time.Duration(rnd.IntN(30)) * time.Second, Err: errDown}
				}
				got[n]++
				return nil
			}
			rig := rand.New(rand.NewPCG(seed, 3))
			r := newRig(t, Options{Parallel: 1 + int(seed%2)*3, BacklogRate: 50}, 20*time.Minute, answer)
			for range 30 {
				r.window(1 + rig.IntN(20))
				pass(time.Duration(rig.IntN(20)) * time.Second)
			}
			for range 60 {
				pass(time.Minute)
				if err := r.spool.Commit(); err != nil {
					t.Fatal(err)
				}
			}
			r.end()
			st := r.queue.Stats()
			for n, count := range got {
				if count != 1 {
					t.Errorf("%d was delivered %d times", n, count)
				}
			}
			all := spool.Count{Profiles: int64(len(got)), Samples: sum(slices.Collect(maps.Keys(got)))}
			if st.Delivered != all {
				t.Errorf("delivered %+v, not %+v", st.Delivered, all)
			}
			for _, d := range st.Dropped {
				all.Profiles += d.Profiles
				all.Samples += d.Samples
			}
			if want := (spool.Count{Profiles: int64(r.next), Samples: sum(upTo(r.next))}); all != want || st.Pending.Profiles != 0 {
				t.Errorf("%+v: %+v of %+v", st, all, want)
			}
			if len(st.Dropped) < 3 {
				t.Errorf("too little happened: %+v", st)
			}
		})
	}
}
