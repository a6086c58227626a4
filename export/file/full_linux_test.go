package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// A file system of 64 KB that is full.
func TestDiskFullIsReportedAndOldFileStays(t *testing.T) {
	needs.Root(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		needs.Missing(t, "mount", "CAP_SYS_ADMIN, to mount a small tmpfs: "+err.Error())
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	name := filepath.Join(dir, "cpu.pb.gz")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 60<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	e, err := Open(name, &Options{Format: Folded})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	p := cpuProfile(1)
	for i := range 500 {
		p.Data.Sample = append(p.Data.Sample, randomProfile(uint64(i)).Sample...)
	}
	err = e.Export(t.Context(), p)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "not saved") {
		t.Errorf("Export: %v", err)
	}
	if d := cmp.Diff([]string{"cpu.pb.gz"}, listing(t, dir)); d != "" {
		t.Error(d)
	}
	if b, _ := os.ReadFile(name); len(b) != 60<<10 {
		t.Errorf("the old file has %d bytes", len(b))
	}
}
