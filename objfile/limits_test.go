package objfile

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowReader takes its time for each read.
type slowReader struct {
	io.ReaderAt
	delay time.Duration
	reads int
}

func (s *slowReader) ReadAt(p []byte, off int64) (int, error) {
	s.reads++
	time.Sleep(s.delay)
	return s.ReaderAt.ReadAt(p, off)
}

func (*slowReader) Close() error { return nil }

// remoteReader is one that may keep others waiting.
type remoteReader struct{ *slowReader }

func (remoteReader) patience() time.Duration { return maxStall }

// A file whose every read is slow costs maxWait, and not more; later it may cost a little again.
func TestSlowFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sectioned(t)
		r := &slowReader{ReaderAt: bytes.NewReader(b), delay: 6 * time.Second}
		start := time.Now()
		f, err := Open(r, int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.GoModule()
		if !errors.Is(err, ErrTooCostly) || errors.Is(err, ErrNotGo) || !strings.Contains(err.Error(), "took 12s") {
			t.Errorf("error %v after %v, want that it took too long", err, time.Since(start))
		}
		if _, err := f.Pclntab(); !errors.Is(err, ErrTooCostly) {
			t.Errorf("table: %v", err)
		}
		whole := make([]byte, 0x2000) // past the page cache
		if n, err := f.ReadAt(whole, 0x400000); n != 0 || !errors.Is(err, ErrTooCostly) {
			t.Errorf("%d, %v", n, err)
		}
		if d := time.Since(start); d > maxWait+r.delay || r.reads > 2 {
			t.Errorf("took %v, %d reads", d, r.reads)
		}
		if err := f.Refused(); !errors.Is(err, ErrTooCostly) {
			t.Errorf("refused: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if n, err := f.ReadAt(whole, 0x400000); n != len(whole) || err != nil {
			t.Errorf("ten minutes later: %d, %v", n, err)
		}
	})
}

// A read that does not come back is given up; the file is not asked again.
func TestStalledFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sectioned(t)
		r := remoteReader{&slowReader{ReaderAt: bytes.NewReader(b)}}
		f, err := Open(r, int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		r.delay = time.Hour
		reads, start := r.reads, time.Now()
		_, err = f.GoModule()
		if !errors.Is(err, ErrTooCostly) || time.Since(start) != maxStall {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		_, _ = f.BuildInfo()
		f.Symbol(0x400100)
		if r.reads != reads+1 || time.Since(start) != maxStall {
			t.Errorf("%d more reads, after %v", r.reads-reads-1, time.Since(start))
		}
		time.Sleep(2 * time.Hour) // the read comes back
	})
}

// zeros is a file of any size, at no cost.
type zeros struct{ read int64 }

func (z *zeros) ReadAt(p []byte, _ int64) (int, error) {
	z.read += int64(len(p))
	return len(p), nil
}

// Whatever is asked of an image, and however often, so many bytes are read of it.
func TestBytesOfOneImage(t *testing.T) {
	z := &zeros{}
	m := newMeter(z)
	b := make([]byte, 64<<20)
	for range 2 * maxRead / len(b) {
		if _, err := m.ReadAt(b, 0); err != nil {
			break
		}
	}
	_, err := m.ReadAt(b[:1], 0)
	if limit := int64(maxRead + len(b) + 10*bytesPerSecond); z.read > limit || !errors.Is(err, ErrTooCostly) {
		t.Errorf("%d bytes were read, limit %d; %v", z.read, limit, err)
	}
}

// What comes too late is given back.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := 0
		take := func(d time.Duration) (int, error) {
			return within(time.Second, func() (int, error) { time.Sleep(d); return 7, nil }, func(v int) { late += v })
		}
		if v, err := take(time.Millisecond); v != 7 || err != nil {
			t.Errorf("%d, %v", v, err)
		}
		if v, err := take(time.Minute); v != 0 || !errors.Is(err, ErrTooCostly) {
			t.Errorf("%d, %v", v, err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if late != 7 {
			t.Errorf("late result %d", late)
		}
	})
}
