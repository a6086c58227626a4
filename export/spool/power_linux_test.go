package spool

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestPowerFailure: what is offered is on the disk, whatever becomes of the acknowledgements. A file stands for the disk; its copy is what
// the disk has at the moment when the power fails.
func TestPowerFailure(t *testing.T) {
	needs.Root(t)
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	run(t, "truncate", "--size=16M", disk)
	run(t, "mkfs.ext4", "-q", disk)
	mount(t, disk, filepath.Join(dir, "before"))
	s := open(t, Options{Dir: filepath.Join(dir, "before", "spool")})
	defer s.Close()
	c := attach(t, s, "a")[0]
	for n := 1; n <= 50; n++ {
		fill(t, s, 10*n-9, 10*n)
		for range 3 {
			if err := c.Done(take(t, c, anything)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(t, "cp", disk, disk+"2")
	mount(t, disk+"2", filepath.Join(dir, "after"))
	again := open(t, Options{Dir: filepath.Join(dir, "after", "spool")})
	defer again.Close()
	a := attach(t, again, "a")[0]
	sent := drain(t, a)
	if d := cmp.Diff(numbers(151, 500), sent[max(0, len(sent)-350):]); d != "" {
		t.Error(d)
	}
	if st := a.Stats(); len(st.Dropped) > 0 {
		t.Errorf("%+v, %+v", st, again.Stats())
	}
	t.Logf("%d of 150 are sent again", len(sent)-350)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(needs.Tool(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// mount shows what is on a disk until the test ends.
func mount(t *testing.T, disk, at string) {
	t.Helper()
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(needs.Tool(t, "mount"), "-o", "loop", disk, at).CombinedOutput(); err != nil {
		needs.Missing(t, "mount", "a loop device: "+string(out))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
