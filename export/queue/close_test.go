package queue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/export/spool"
)

// TestClose sends what is fresh; the rest is there at the next start.
func TestClose(t *testing.T) {
	type how struct {
		patient bool
		answer  func(r *rig, n int) error
		within  time.Duration
		left    int64
	}
	slow := func(*rig, int) error { time.Sleep(time.Second); return nil }
	for name, h := range map[string]how{
		"all is fresh":        {false, slow, 25 * time.Second, 0},
		"not enough time":     {false, slow, 10*time.Second + 500*time.Millisecond, 9},
		"it fails":            {false, func(*rig, int) error { return errDown }, 25 * time.Second, 20},
		"it fails, patiently": {true, func(*rig, int) error { return errDown }, 25 * time.Second, 20},
		"patience helps": {true, func(r *rig, _ int) error {
			if time.Since(r.began) < 15*time.Second {
				return errDown
			}
			return nil
		}, 100 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *rig
				r = newRig(t, Options{Patient: h.patient}, 0, func(_ context.Context, n int) error { return h.answer(r, n) })
				r.window(20)
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), h.within)
				defer cancel()
				if err := r.queue.Close(ctx); err != nil {
					t.Error(err)
				}
				took := time.Since(r.began)
				if name == "it fails" && took > time.Second || name == "it fails, patiently" && took != h.within || took > h.within+time.Second {
					t.Errorf("took %v", took)
				}
				if st := r.queue.Stats(); st.Pending.Profiles != h.left {
					t.Errorf("%+v", st)
				}
				if again := r.queue.Close(ctx); again != nil {
					t.Error(again)
				}
				r.end()
			})
		})
	}
}

// TestCloseCutsOff what hangs.
func TestCloseCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{}, 0, func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() })
		r.window(3)
		synctest.Wait()
		r.end()
		if took := time.Since(r.began); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		if st := r.queue.Stats(); st.Pending.Profiles != 3 || st.Failures != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestCloseOnceBegun: what is fresh is sent, however soon Close comes.
func TestCloseOnceBegun(t *testing.T) {
	for range 50 {
		r := newRig(t, Options{}, 0, fine)
		r.window(2)
		<-r.queue.Begun()
		r.end()
		if got := r.got(); len(got) != 2 {
			t.Fatalf("sent: %v", got)
		}
	}
}

func TestCloseWithoutRun(t *testing.T) {
	s, err := spool.Open(spool.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := s.Attach(spool.Destination{Name: "d"})
	if err != nil {
		t.Fatal(err)
	}
	d := &destination{answer: fine}
	q, err := New(Options{Cursor: c[0], Exporter: d})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Close(t.Context()); err != nil || !d.closed {
		t.Error(err)
	}
	if err := q.Run(t.Context()); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]Options{
		"no cursor":        {Exporter: d},
		"no exporter":      {Cursor: c[0]},
		"a negative limit": {Cursor: c[0], Exporter: d, Timeout: -1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

// TestRunEnds with its context, whatever is going on.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{}, 0, fine)
		defer r.end()
		c, err := r.spool.Attach(spool.Destination{Name: "d"}, spool.Destination{Name: "other"})
		if err != nil {
			t.Fatal(err)
		}
		hanging := &destination{answer: func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }}
		q, err := New(Options{Cursor: c[1], Exporter: hanging, Timeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r.window(5)
		if err := q.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if d := cmp.Diff(upTo(5), r.got()); d != "" { // one that hangs does not keep the other
			t.Error(d)
		}
		if err := q.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
