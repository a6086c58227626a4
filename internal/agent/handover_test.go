package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// gate is a destination that takes a profile whenever it is told to.
type gate struct {
	open chan struct{}
	got  []*export.Profile
	err  error
}

func (g *gate) Export(_ context.Context, p *export.Profile) error {
	<-g.open
	g.got = append(g.got, p)
	return g.err
}

func (*gate) Flush() error { return nil }
func (*gate) Close() error { return nil }

func profileOf(samples []*profile.Sample) *export.Profile {
	return &export.Profile{Kind: "cpu", PID: 1, Data: &profile.Profile{Sample: samples}}
}

// TestQueueIsBounded: a stuck destination is waited for once, not for each profile; what is lost is counted; when it goes on,
// so does the queue.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		q := newHandover("test", g, slog.New(slog.DiscardHandler))
		samples := make([]*profile.Sample, 20_000) // 4 MB
		for i := range samples {
			samples[i] = &profile.Sample{}
		}
		began := time.Now()
		var lost int
		for range 20 {
			if err := q.Export(t.Context(), profileOf(samples)); errors.Is(err, errQueueFull) {
				lost++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		s := q.Stats()
		if took := time.Since(began); took != queuePatience || lost != 20-s.Depth || int(s.Dropped) != lost || s.Bytes > queueBytes || s.Depth < 4 {
			t.Errorf("after %v: %d lost; %+v", took, lost, s)
		}
		close(g.open)
		synctest.Wait()
		if err := q.Export(t.Context(), profileOf(nil)); err != nil {
			t.Error(err)
		}
		if err := q.end(t.Context()); err != nil {
			t.Error(err)
		}
		if s := q.Stats(); int(s.Delivered) != len(g.got) || s.Depth != 0 || s.Bytes != 0 || s.Delivered+s.Dropped != 21 {
			t.Errorf("%d got; %+v", len(g.got), s)
		}
	})
}

// TestQueueEnds: the end does not wait for a destination that hangs.
func TestQueueEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{}), err: errors.New("no space left")}
		q := newHandover("test", g, slog.New(slog.DiscardHandler))
		for range 3 {
			if err := q.Export(t.Context(), profileOf(nil)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := q.end(ctx); err == nil {
			t.Error("no error, and nothing was delivered")
		}
		close(g.open)
		<-q.done
		if s := q.Stats(); s.Failed != 3 || s.LastError != "no space left" {
			t.Errorf("%+v", s)
		}
	})
}

// TestMetricsOfReload: what an old pipeline hands on while the next one is there is counted, once.
func TestMetricsOfReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(nil)
		slow := &gate{open: make(chan struct{})}
		before := newHandover("dir", slow, slog.New(slog.DiscardHandler))
		m.destination(before)
		for range 3 {
			if err := before.Export(t.Context(), profileOf(nil)); err != nil {
				t.Fatal(err)
			}
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := before.end(ended); err == nil {
			t.Fatal("a gate that is closed has let it through")
		}
		open := &gate{open: make(chan struct{})}
		close(open.open)
		for range 2 {
			next := newHandover("dir", open, slog.New(slog.DiscardHandler))
			m.destination(next)
			if err := errors.Join(next.Export(t.Context(), profileOf(nil)), next.end(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		if s := m.handovers()["dir"]; s.Delivered != 2 || s.Depth != 3 {
			t.Errorf("while the first is stuck: %+v", s)
		}
		close(slow.open)
		synctest.Wait()
		if s := m.handovers()["dir"]; s.Delivered != 5 || s.Depth != 0 || s.Bytes != 0 {
			t.Errorf("in the end: %+v", s)
		}
	})
}

// TestPipelineEndsLate: one whose last window takes too long is not waited for, and ends all the same.
func TestPipelineEndsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		close(g.open)
		p := &pipeline{queue: newHandover("dir", g, slog.New(slog.DiscardHandler))}
		last := make(chan struct{})
		p.ran.Go(func() {
			<-last
			if err := p.queue.Export(context.Background(), profileOf(nil)); err != nil {
				t.Error(err)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.close(ctx); err == nil {
			t.Error("it was waited for")
		}
		close(last)
		synctest.Wait()
		if !p.queue.ended() || len(g.got) != 1 {
			t.Errorf("it runs on, and has handed on %d profiles", len(g.got))
		}
	})
}
