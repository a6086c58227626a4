package objfile

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrTooCostly is wrapped by errors that say that an image has cost as much as one may: too many bytes were read of it, or
// its reads took too long.
var ErrTooCostly = errors.New("too costly to read on")

// meter reads an image and counts what that costs. It refuses to read once the limits are reached; as time goes on,
// they grow. A read that stalls is given up, and everything after it refused.
type meter struct {
	r      io.ReaderAt
	opened time.Time
	// patience is how long one read is waited for; 0: as long as it takes, for file systems that are the kernel's alone.
	patience time.Duration
	read     int64 // bytes
	waited   time.Duration
	stalled  error
	refused  error // the last refusal
}

func newMeter(r io.ReaderAt) *meter {
	m := &meter{r: r, opened: time.Now()}
	if s, ok := r.(interface{ patience() time.Duration }); ok {
		m.patience = s.patience()
	}
	return m
}

// ReadAt implements io.ReaderAt. After an error that wraps ErrTooCostly the read may still go on, and write into p.
func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	start := time.Now()
	if err := m.check(start); err != nil {
		m.refused = err
		return 0, err
	}
	n, err := m.wait(p, off)
	m.read += int64(len(p))
	m.waited += time.Since(start)
	return n, err
}

func (m *meter) check(now time.Time) error {
	age := max(now.Sub(m.opened), 0)
	switch limit := maxRead + int64(age.Seconds()*bytesPerSecond); {
	case m.stalled != nil:
		return m.stalled
	case m.read > limit:
		return fmt.Errorf("%d MiB of it were read: %w", m.read>>20, ErrTooCostly)
	case m.waited > maxWait+age/waitShare:
		return fmt.Errorf("reading %d KiB of it took %v: %w", m.read>>10, m.waited.Round(time.Millisecond), ErrTooCostly)
	}
	return nil
}

// wait reads, for as long as m is patient.
func (m *meter) wait(p []byte, off int64) (int, error) {
	if m.patience == 0 {
		return m.r.ReadAt(p, off)
	}
	n, err := within(m.patience, func() (int, error) { return m.r.ReadAt(p, off) }, nil)
	if errors.Is(err, ErrTooCostly) {
		m.stalled = err
		m.refused = err
	}
	return n, err
}

// within runs f, but does not wait for it beyond limit: then f goes on alone (no system call can be taken back), late gets
// its result, and the error wraps ErrTooCostly. late may be nil.
func within[T any](limit time.Duration, f func() (T, error), late func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result)
	givenUp := make(chan struct{})
	go func() {
		v, err := f()
		select {
		case done <- result{v, err}:
		case <-givenUp:
			if late != nil && err == nil {
				late(v)
			}
		}
	}()
	timer := time.NewTimer(limit / waitSteps)
	defer timer.Stop()
	for range waitSteps {
		select {
		case r := <-done:
			return r.v, r.err
		case <-timer.C:
			timer.Reset(limit / waitSteps)
		}
	}
	close(givenUp)
	var none T
	return none, fmt.Errorf("no answer in %v: %w", limit, ErrTooCostly)
}

// waitSteps is in how many steps within waits: if we ourselves are not scheduled for long, on a machine that is overloaded,
// that counts as one.
const waitSteps = 10
