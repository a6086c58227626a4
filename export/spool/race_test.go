package spool

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestConcurrentUse: all at the same time, in a spool that is too small, with a destination that comes and goes.
func TestConcurrentUse(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxSize: 10 * blockLen})
	c := attach(t, s, "a", "b", "guest")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var all, samples, got, gotSamples atomic.Int64
	var running sync.WaitGroup
	run := func(f func()) {
		running.Go(func() {
			for ctx.Err() == nil {
				f()
			}
		})
	}
	for range 2 {
		run(func() {
			n := all.Add(1)
			samples.Add(n)
			if err := s.Append(numbered(int(n), time.Now(), n)); err != nil {
				t.Error(err)
			}
			if n%8 == 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
	run(func() {
		if err := s.Commit(); err != nil {
			t.Error(err)
		}
	})
	run(func() { attach(t, s, "a", "b"); attach(t, s, "a", "b", "guest"); time.Sleep(30 * time.Millisecond) })
	run(func() { s.Stats(); c[0].Stats(); time.Sleep(time.Millisecond) })
	for i, c := range c {
		run(func() {
			r, err := c.Take(anything)
			switch {
			case err != nil:
				t.Error(err)
			case r == nil:
				time.Sleep(time.Millisecond)
			case rand.IntN(3) == 0 || i == 1 && rand.IntN(10) > 0:
				c.Release(r)
			default:
				if err := c.Done(r); err != nil {
					t.Error(err)
				}
				if i == 0 {
					got.Add(1)
					gotSamples.Add(r.Profile.Encoded.Total)
				}
			}
		})
	}
	for time.Sleep(time.Second); s.Stats().RemovedSize < 10 && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		continue
	}
	cancel()
	running.Wait()
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	want := Count{all.Load(), samples.Load()}
	for i, c := range c[:2] {
		st := c.Stats()
		d := sumDropped(st)
		if sum := (Count{st.Delivered.Profiles + d.Profiles + st.Pending.Profiles, st.Delivered.Samples + d.Samples + st.Pending.Samples}); sum != want {
			t.Errorf("%d: %+v of %+v", i, st, want)
		}
	}
	if st := c[0].Stats(); st.Delivered != (Count{got.Load(), gotSamples.Load()}) || got.Load() == 0 {
		t.Errorf("%+v, %d done", st, got.Load())
	}
	if st := s.Stats(); st.RemovedSize == 0 || st.Bytes > 13*blockLen {
		t.Errorf("%+v", st)
	}
}
