// Package disk has disks for tests whose power can fail. A file stands for the disk; its copy is what the disk has at the moment when the
// power fails, and what would be found after that: what was written but not synced may be missing, or be there in part.
package disk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// Disk is an ext4 file system of 16 MiB, which is there until the test ends.
type Disk struct {
	Dir   string // what is on it
	file  string
	fails int
}

// New makes an empty one. The test is skipped, or fails, where it is not run as root or where there are no loop devices.
func New(t testing.TB) *Disk {
	t.Helper()
	needs.Root(t)
	dir := t.TempDir()
	d := &Disk{Dir: filepath.Join(dir, "mounted"), file: filepath.Join(dir, "disk")}
	run(t, "truncate", "--size=16M", d.file)
	run(t, "mkfs.ext4", "-q", d.file)
	mount(t, d.file, d.Dir)
	return d
}

// AfterFailure returns a directory with what would be found if the power failed now. The disk itself goes on.
func (d *Disk) AfterFailure(t testing.TB) string {
	t.Helper()
	d.fails++
	copied := fmt.Sprintf("%s-%d", d.file, d.fails)
	run(t, "cp", d.file, copied)
	mount(t, copied, copied+"-mounted")
	return copied + "-mounted"
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(needs.Tool(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// mount shows what is on a disk until the test ends.
func mount(t testing.TB, disk, at string) {
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
