package spool

import (
	"runtime"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
)

// TestMemory: an hour of 2,000 processes in windows of 10 s, of which one destination has got nothing and the other a bit of each.
func TestMemory(t *testing.T) {
	dir := t.TempDir()
	clock := newClock()
	s := open(t, Options{Dir: dir, Clock: clock.now, MaxSize: 1 << 40})
	c := attach(t, s, "down", "slow")
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	labels := []export.Label{{Name: "node", Value: "n1"}, {Name: "pod", Value: "p"}}
	body := &export.Encoded{Gzip: make([]byte, 16), Total: 1}
	for range 360 {
		for n := range 2000 {
			p := &export.Profile{Kind: "cpu", PID: n + 1, Service: "api", Labels: labels, Start: clock.wall, Encoded: body}
			if err := s.Append(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			r := take(t, c[1], fresh)
			take(t, c[1], fresh)
			if err := c[1].Done(r); err != nil {
				t.Fatal(err)
			}
		}
		clear(c[1].taken)
		clock.pass(10 * time.Second)
	}
	if st := c[0].Stats(); st.Pending.Profiles != 720_000 {
		t.Errorf("%+v", st)
	}
	if used := heap() - before; used > 3<<20 {
		t.Errorf("%d bytes", used)
	} else {
		t.Logf("%d bytes for %d batches", used, s.Stats().Batches)
	}
	runtime.KeepAlive(s)
}
