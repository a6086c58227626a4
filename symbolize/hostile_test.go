package symbolize

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pprofd/pprofd/objfile"
)

// slowFile takes its time for each read.
type slowFile struct {
	io.ReaderAt
	delay time.Duration
}

func (s *slowFile) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(s.delay)
	return s.ReaderAt.ReadAt(p, off)
}

func (*slowFile) Close() error { return nil }

// selfImage is this test binary, read through r.
func selfImage(t *testing.T) (look Images, r *slowFile, text uint64) {
	t.Helper()
	b := self(t)
	r = &slowFile{ReaderAt: bytes.NewReader(b)}
	f, err := objfile.Open(r, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := f.GoModule()
	if err != nil {
		t.Fatal(err)
	}
	im := &objfile.Image{ID: testImage, Path: "/nfs/app", File: f}
	return func(objfile.ImageID) *objfile.Image { return im }, r, mod.Text
}

// A file on slow storage costs ten seconds of waiting. What is not named by then is module+0xoffset, and a note says why.
func TestSlowFileIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		look, r, text := selfImage(t)
		s := New(look, nil)
		r.delay = time.Second
		start := time.Now()
		named, unnamed := 0, 0
		for i := range uint64(2000) {
			f := s.Frames(objfile.Addr{Image: testImage, Off: text + 0x333*i})
			if strings.HasPrefix(f[0].Func, "app+0x") {
				unnamed++
			} else {
				named++
			}
		}
		if d := time.Since(start); d > 15*time.Second || named == 0 || unnamed == 0 {
			t.Errorf("%d named, %d not, after %v", named, unnamed, d)
		}
		if n := strings.Join(s.Notes(), "\n"); !strings.Contains(n, "/nfs/app") || !strings.Contains(n, objfile.ErrTooCostly.Error()) {
			t.Errorf("notes %q", n)
		}
	})
}

// Names and inlined calls of one image are bounded, however many there are at each address.
func TestNamesOfOneImageAreBounded(t *testing.T) {
	look, _, text := selfImage(t)
	s := New(look, nil)
	s.bytes[testImage] = maxImageBytes
	first := s.Frames(objfile.Addr{Image: testImage, Off: text + 0x40})
	if s.bytes[testImage] <= maxImageBytes {
		t.Fatalf("%+v costs nothing", first)
	}
	if f := s.Frames(objfile.Addr{Image: testImage, Off: text + 0x1000}); len(f) != 1 || !strings.HasPrefix(f[0].Func, "app+0x") {
		t.Errorf("beyond the limit: %+v", f)
	}
	if n := strings.Join(s.Notes(), "\n"); !strings.Contains(n, "more than 32 MiB") {
		t.Errorf("notes %q", n)
	}
	if s.Reset(); s.bytes[testImage] != 0 {
		t.Error("the next window starts with the costs of this one")
	}
}

// self is the content of this test binary.
func self(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return b
}
