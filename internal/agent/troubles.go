package agent

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pprofd/pprofd/export"
)

// troubles logs what goes wrong with a destination: the first failure with the destination's own words, then at most one line a
// minute with the number of those in between, and that it goes again.
type troubles struct {
	log       *slog.Logger
	name      string
	bad, good string // what is said

	mu      sync.Mutex
	failure streak
	since   time.Time          // of the first failure after the last success; zero: it goes
	told    bool               // of this failure, so that its end is worth a line
	drops   map[string]*streak // by reason
}

// streak is what is not worth a line each.
type streak struct {
	last   time.Time // line
	number int       // of failures since
}

const troubleLines = time.Minute // between two lines

func newTroubles(log *slog.Logger, name string) *troubles {
	return &troubles{
		log: log, name: name, drops: make(map[string]*streak), bad: "profiles cannot be delivered now, and wait", good: "profiles are delivered again",
	}
}

// due counts, and says whether it is time for a line, and for how many.
func (s *streak) due() (number int, ok bool) {
	s.number++
	if !s.last.IsZero() && time.Since(s.last) < troubleLines {
		return 0, false
	}
	number = s.number
	s.last, s.number = time.Now(), 0
	return number, true
}

// failed: it will be tried again, after pause if that is known.
func (t *troubles) failed(err error, pause time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() {
		t.since = time.Now()
	}
	n, ok := t.failure.due()
	if !ok {
		return
	}
	t.told = true
	args := []any{"destination", t.name, "error", strings.TrimPrefix(err.Error(), t.name+": "), "failures", n}
	if pause > 0 {
		args = append(args, "again in", pause.Round(time.Millisecond))
	}
	t.log.Error(t.bad, args...)
}

// succeeded: it goes.
func (t *troubles) succeeded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told {
		t.log.Info(t.good, "destination", t.name, "after", time.Since(t.since).Round(time.Millisecond))
	}
	t.since, t.told = time.Time{}, false
}

// dropped: the destination will never take p.
func (t *troubles) dropped(p *export.Profile, reason string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.drops[reason]
	if s == nil {
		s = new(streak)
		t.drops[reason] = s
	}
	if n, ok := s.due(); ok {
		t.log.Error("profile is lost: it was refused", "destination", t.name, "reason", reason, "error", err, "kind", p.Kind, "service", p.Service,
			"pid", p.PID, "lost", n)
	}
}
