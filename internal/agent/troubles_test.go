package agent

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pprofd/pprofd/export"
)

// TestTroublesAreFewLines: the first failure is told of, then one a minute with the number of those in between, and the end of it, if
// its beginning was told.
func TestTroublesAreFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lockedBuffer)
		tr := newTroubles(slog.New(slog.NewTextHandler(log, nil)), "server")
		lines := func() int { return strings.Count(log.String(), "\n") }
		tr.succeeded()
		for range 150 { // two minutes and a half
			tr.failed(errors.New("503: so it was ordered"), time.Second)
			time.Sleep(time.Second)
		}
		if n := lines(); n != 3 || strings.Count(log.String(), "failures=60") != 2 || !strings.Contains(log.String(), `"503: so it was ordered" failures=1 "again in"=1s`) {
			t.Errorf("%d lines:\n%s", n, log)
		}
		tr.succeeded()
		tr.succeeded()
		if n := lines(); n != 4 || !strings.Contains(log.String(), "delivered again") || !strings.Contains(log.String(), "after=2m30s") {
			t.Errorf("%d lines:\n%s", n, log)
		}
		for range 600 { // ten minutes of failure and success
			tr.failed(errors.New("500"), 0)
			tr.succeeded()
			time.Sleep(time.Second)
		}
		if n := lines() - 4; n < 18 || n > 22 {
			t.Errorf("%d lines of what comes and goes", n)
		}
		before := lines()
		for range 100 {
			tr.dropped(&export.Profile{Kind: "cpu", PID: 7, Service: "shop"}, "invalid", errors.New("400: bad"))
		}
		tr.dropped(&export.Profile{Kind: "heap", PID: 7, Service: "shop"}, "too_large", errors.New("413: large"))
		if n := lines() - before; n != 2 || !strings.Contains(log.String(), "reason=invalid") || !strings.Contains(log.String(), "413: large") {
			t.Errorf("%d lines:\n%s", n, log)
		}
	})
}

// batches is an outlet that counts.
type batches struct {
	gate
	flushed []int // profiles before each flush
}

func (b *batches) Flush() error {
	b.flushed = append(b.flushed, len(b.got))
	return errors.New("no space left")
}

// TestHandoverEndsBatches a second after their first profile, and not while there is none.
func TestHandoverEndsBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &batches{gate: gate{open: make(chan struct{})}}
		close(b.open)
		q := newHandover("test", b, slog.New(slog.DiscardHandler))
		for range 4 {
			if err := q.Export(t.Context(), profileOf(nil)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(400 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(b.flushed) != 2 || b.flushed[0] != 3 || b.flushed[1] != 4 || q.Stats().LastError != "no space left" {
			t.Errorf("%v; %+v", b.flushed, q.Stats())
		}
		if err := q.end(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
