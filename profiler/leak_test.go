package profiler

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestNothingLeaks: a profiler that is closed leaves no descriptor and no goroutine, also if it never ran or its
// target was refused.
func TestNothingLeaks(t *testing.T) {
	needs.BPF(t)
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
	for _, c := range []struct {
		name string
		run  bool
	}{{"ran", true}, {"never ran", false}} {
		t.Run(c.name, func(t *testing.T) {
			cycle(t, proc.PID, c.run) // what the libraries keep for good
			fds, goroutines := descriptors(t), runtime.NumGoroutine()
			for range 3 {
				cycle(t, proc.PID, c.run)
			}
			if now := descriptors(t); now > fds {
				t.Errorf("%d descriptors are open, %d were before", now, fds)
			}
			now := runtime.NumGoroutine()
			for end := time.Now().Add(time.Second); now > goroutines && time.Now().Before(end); now = runtime.NumGoroutine() {
				time.Sleep(time.Millisecond) // one that has given its result may not have ended yet
			}
			if now > goroutines {
				t.Errorf("%d goroutines, %d were before", now, goroutines)
			}
		})
	}
}

// cycle is the life of a profiler.
func cycle(t *testing.T, pid int, run bool) {
	t.Helper()
	p, err := New(Config{Exporter: &keep{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(pid); err != nil {
		t.Error(err)
	}
	if p.Add(os.Getppid()) == nil && p.Add(1<<22) == nil { // the first may be Go: go test
		t.Error("no such process, and no error")
	}
	if run {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
