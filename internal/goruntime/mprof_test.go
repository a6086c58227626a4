//go:build linux

package goruntime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/objfile"
)

// TestMemProfile: what is read from outside is what runtime.MemProfile says inside, bucket by bucket.
func TestMemProfile(t *testing.T) {
	for _, version := range testprog.Versions() {
		for name, o := range map[string]testprog.Options{
			"plain": {}, "stripped": {Strip: true}, "stripped PIE": {Strip: true, PIE: true}, "cgo": {Cgo: true},
		} {
			t.Run("go"+version+" "+name, func(t *testing.T) {
				o.Go = version
				path := testprog.Build(t, "heap", o)
				for _, gcs := range []string{"0", "1", "2"} {
					checkMemProfile(t, path, testprog.Start(t, path, "-gcs", gcs))
				}
			})
		}
	}
}

func checkMemProfile(t *testing.T, path string, proc *testprog.Proc) {
	t.Helper()
	f, version := openFile(t, path)
	m, err := FindMemProfile(f, version)
	if err != nil {
		t.Fatal(err)
	}
	mem, bias := openMemory(t, f, path, proc.PID)
	if rate, err := m.ReadRate(mem, bias); rate != 512 || err != nil {
		t.Errorf("rate %d, %v; want 512", rate, err)
	}
	var got []string
	moved, err := m.Read(mem, bias, Published, func(b *Bucket) error {
		got = append(got, bucketLine(b))
		return nil
	})
	if err != nil || moved {
		t.Fatal(moved, err)
	}
	want := slices.DeleteFunc(proc.Lines(), func(line string) bool {
		return !strings.HasPrefix(line, "bucket ") || strings.HasPrefix(line, "bucket 0 0 ")
	})
	slices.Sort(got)
	slices.Sort(want)
	if len(want) < 30 {
		t.Fatalf("the program knows %d allocation sites", len(want))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%d sites, want %d: %.2000s", len(got), len(want), d)
	}
}

// bucketLine is as the program prints it.
func bucketLine(b *Bucket) string {
	var pcs []string
	for _, pc := range b.Stack[:min(len(b.Stack), 32)] { // runtime.MemProfileRecord has no more
		pcs = append(pcs, strconv.FormatUint(pc, 16))
	}
	return fmt.Sprintf("bucket %d %d %d %d %s", b.Allocs, b.Frees, b.Allocs*b.Size, b.Frees*b.Size, strings.Join(pcs, ","))
}

// TestMemProfileLinkedOut: a program that nowhere reads its memory profile has none.
func TestMemProfileLinkedOut(t *testing.T) {
	f, version := openFile(t, testprog.Build(t, "spin", testprog.Options{}))
	if _, err := FindMemProfile(f, version); !errors.Is(err, ErrNoMemProfile) {
		t.Errorf("error %v", err)
	}
}

func openMemory(t *testing.T, f *objfile.File, path string, pid int) (*os.File, uint64) {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	return mem, loadBias(t, f, pid, path)
}

// loadBias: the lowest mapping of the program belongs to its lowest segment.
func loadBias(t *testing.T, f *objfile.File, pid int, path string) uint64 {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), path) {
			start, _, _ := strings.Cut(line, "-")
			addr, err := strconv.ParseUint(start, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return addr - f.Segments()[0].Vaddr&^0xFFF
		}
	}
	t.Fatalf("%s is not mapped", filepath.Base(path))
	return 0
}
