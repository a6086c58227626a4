package queue

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/spool"
)

type sink struct{ sent sync.WaitGroup }

func (s *sink) Export(context.Context, *export.Profile) error { s.sent.Done(); return nil }
func (*sink) Close() error                                    { return nil }

// BenchmarkWindow is what spool and queue cost for profiles of 10 KB that are encoded already, to one destination.
func BenchmarkWindow(b *testing.B) {
	for _, n := range []int{200, 2000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, err := spool.Open(spool.Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			c, err := s.Attach(spool.Destination{Name: "d"})
			if err != nil {
				b.Fatal(err)
			}
			out := new(sink)
			q, err := New(Options{Cursor: c[0], Exporter: out})
			if err != nil {
				b.Fatal(err)
			}
			var running sync.WaitGroup
			running.Go(func() { _ = q.Run(context.Background()) })
			before := used(b)
			for b.Loop() {
				out.sent.Add(n)
				for i := range n {
					p := &export.Profile{Kind: "cpu", PID: i + 1, Start: time.Now(), Encoded: &export.Encoded{Gzip: make([]byte, 10<<10), Total: 1}}
					if err := s.Append(p); err != nil {
						b.Fatal(err)
					}
				}
				if err := s.Commit(); err != nil {
					b.Fatal(err)
				}
				out.sent.Wait()
			}
			b.ReportMetric(float64((used(b)-before).Microseconds())/float64(b.N*n), "cpu-us/profile")
			if err := q.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
			running.Wait()
		})
	}
}

// used is CPU time.
func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
