package spool

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/export/internal/private"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// small mounts a file system of size.
func small(t *testing.T, size string) string {
	t.Helper()
	needs.Root(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		needs.Missing(t, "mount", "CAP_SYS_ADMIN, to mount a small tmpfs: "+err.Error())
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// occupy fills the disk of dir with a file of somebody else.
func occupy(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "of somebody else"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !private.IsFull(err) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}
}

// big commits a batch of one profile of 20 KB.
func big(s *Spool, n int) error {
	wall, _ := s.opt.Clock()
	p := numbered(n, wall, int64(n))
	p.Encoded.Gzip = bytes.Repeat([]byte{byte(n)}, 20<<10)
	if err := s.Append(p); err != nil {
		return err
	}
	return s.Commit()
}

// TestDiskFull: the oldest batches make room for the newest; where there are none, memory has to do.
func TestDiskFull(t *testing.T) {
	dir := small(t, "512k")
	clock := newClock()
	s := open(t, Options{Dir: dir, Clock: clock.now, MaxMemory: 100 << 10})
	c := attach(t, s, "a", "b")
	for n := 1; n <= 50; n++ {
		if err := big(s, n); err != nil {
			t.Fatal(err)
		}
	}
	drain(t, c[0])
	st := c[1].Stats()
	if lost := st.Dropped[DiskFull]; lost.Profiles < 20 || lost.Profiles > 45 || st.Pending.Profiles+lost.Profiles != 50 || st.Pending.Samples+lost.Samples != 1275 {
		t.Errorf("%+v", st)
	}
	if st := s.Stats(); st.RemovedFull != c[1].Stats().Dropped[DiskFull].Profiles || st.Failures > 0 || st.Memory > 0 {
		t.Errorf("%+v", st)
	}
	drain(t, c[1])

	free := occupy(t, dir)
	var failed error
	for n := 51; n <= 60; n++ {
		failed = big(s, n)
	}
	if !errors.Is(failed, syscall.ENOSPC) {
		t.Errorf("%v", failed)
	}
	if st := s.Stats(); st.Memory > 100<<10 || st.Memory < 80<<10 || st.Failures < 10 || st.Batches != 4 {
		t.Errorf("%+v", st)
	}
	for _, c := range c {
		r := take(t, c, anything)
		if r.Profile.PID != 57 || r.Profile.Encoded.Gzip[0] != 57 {
			t.Errorf("%+v", r.Profile)
		}
		if err := c.Done(r); err != nil { // there is room reserved for that
			t.Error(err)
		}
	}
	free()
	if err := s.Commit(); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Memory != 0 || len(files(t, dir, suffix)) != 3 {
		t.Errorf("%+v", st)
	}
	s.Close()
	s = open(t, Options{Dir: dir, Clock: clock.now})
	for i, c := range attach(t, s, "a", "b") {
		if d := cmp.Diff([]int{58, 59, 60}, drain(t, c)); d != "" {
			t.Error(d)
		}
		st := c.Stats()
		if lost := sumDropped(st); st.Delivered.Profiles+lost.Profiles != 60 || st.Delivered.Samples+lost.Samples != 1830 {
			t.Errorf("%d: %+v", i, st)
		}
	}
}

// TestDiskFullFromTheStart: it works in memory, and what is lost at the end is counted, if it can be.
func TestDiskFullFromTheStart(t *testing.T) {
	dir := small(t, "128k")
	free := occupy(t, dir)
	clock := newClock()
	s := open(t, Options{Dir: dir, Clock: clock.now})
	c := attach(t, s, "a")[0]
	if err := big(s, 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	_ = big(s, 2)
	if err := c.Done(take(t, c, anything)); err == nil {
		t.Error("acknowledged where there was no room")
	}
	if st := c.Stats(); st.Delivered != (Count{1, 1}) || st.Pending.Profiles != 1 {
		t.Errorf("%+v", st)
	}
	free()
	clock.pass(2 * ackRetry)
	if err := s.Commit(); err != nil {
		t.Error(err)
	}
	_ = big(s, 3)
	if err := c.Done(take(t, c, anything)); err != nil {
		t.Error(err)
	}
	s.Close()
	s = open(t, Options{Dir: dir, Clock: clock.now})
	c = attach(t, s, "a")[0]
	if st := c.Stats(); st.Delivered != (Count{2, 3}) || st.Pending != (Count{1, 3}) {
		t.Errorf("%+v", st)
	}
}

// TestDirectoryGone: a spool that cannot write at all still delivers.
func TestDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	clock := newClock()
	s := open(t, Options{Dir: dir, Clock: clock.now})
	c := attach(t, s, "a")[0]
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	clock.pass(time.Second)
	if err := big(s, 1); err == nil {
		t.Error("written to where there is nothing")
	}
	if d := cmp.Diff([]int{1}, drain(t, c)); d != "" {
		t.Error(d)
	}
}
