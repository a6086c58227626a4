package profiler

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/objfile"
)

// stuckPieces is memory that does not answer where many pieces are read.
type stuckPieces struct {
	goruntime.Memory
	letGo chan struct{}
}

func (m stuckPieces) ReadPieces([]objfile.Piece) error {
	<-m.letGo
	return errors.New("too late")
}

// TestReadingsStall: processes whose memory does not answer are given up, one after the other, and are counted; all others are read meanwhile, and
// nothing is left of the former in the end, whether they answer before it or after.
func TestReadingsStall(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(map[bool]string{false: "answers before the end", true: "answers after the end"}[late], func(t *testing.T) { testReadingsStall(t, late) })
	}
}

func testReadingsStall(t *testing.T, late bool) {
	path := testprog.Build(t, "heap", testprog.Options{})
	var procs []Process
	for range 3 {
		procs = append(procs, processOf(t, testprog.Start(t, path, "-quiet", "-life", "5m").PID))
	}
	one, other, good := procs[0], procs[1], procs[2]
	letGo := make(chan struct{})
	kinds := []string{KindHeap, KindBlock, KindGoroutine}
	k := &keep{}
	r := NewReadings(ReadingsConfig{MemoryConfig: MemoryConfig{Kinds: kinds, Exporter: k}, Interval: 200 * time.Millisecond, Discovery: everybody{}})
	r.patience = 200 * time.Millisecond
	r.m.instead = func(p Process, m goruntime.Memory) goruntime.Memory {
		switch p {
		case one:
			return stuck{m, letGo}
		case other:
			return stuckPieces{m, letGo}
		}
		return m
	}
	end := runThese(t, r)
	r.Set(procs)
	waitFor(t, func() bool { return r.Stats().Failed == 2 })
	had := len(k.of(KindGoroutine, good))
	waitFor(t, func() bool { return len(k.of(KindGoroutine, good)) >= had+3 })
	s := r.Stats()
	if s.Failed != 2 || s.States[MemoryFailed] != 2 || s.States[MemoryOn] != 1 || len(k.of(KindGoroutine, one)) != 0 || len(k.of(KindGoroutine, other)) != 0 {
		t.Errorf("%+v", s)
	}
	if late {
		end()
		close(letGo)
		r.rounds.Wait()
		return
	}
	for _, p := range []Process{one, other} { // as if that were an hour ago: they are not read before they have answered
		r.mu.Lock()
		r.wait[p].next = time.Now()
		r.mu.Unlock()
	}
	if due := r.due(time.Now()); slices.Contains(due, one) || slices.Contains(due, other) {
		t.Errorf("due: %v", due)
	}
	close(letGo)
	waitFor(t, func() bool { return r.Stats().Failed >= 4 }) // too late again
	end()
	r.rounds.Wait()
}
