package profiler

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/objfile"
)

// fromCore reads profiles of a core file.
func fromCore(t *testing.T, path, exe string, kinds ...string) (map[string]*profile.Profile, []string) {
	t.Helper()
	k := &keep{}
	m := NewMemory(MemoryConfig{Kinds: kinds, Exporter: k})
	defer m.Close()
	if err := m.AddCore(path, exe); err != nil {
		t.Fatal(err)
	}
	if err := m.Export(t.Context()); err != nil {
		t.Fatal(err)
	}
	return kept(k), m.Notes()
}

// TestHeapOfCore: the heap of a core file that gcore has written is what the process said of itself.
func TestHeapOfCore(t *testing.T) {
	for _, o := range []testprog.Options{{}, {Go: "1.18.10", Strip: true}, {Strip: true, PIE: true}, {Cgo: true, PIE: true, LDFlags: "-linkmode=external"}} {
		t.Run(o.String(), func(t *testing.T) {
			own := filepath.Join(t.TempDir(), "own")
			proc := testprog.Start(t, testprog.Build(t, "heap", o), "-profile", own)
			core := testprog.GCore(t, proc.PID)
			proc.Stop()
			got, notes := fromCore(t, core, "", KindHeap)
			if d := cmp.Diff(flatten(readProfile(t, own)), flatten(got[KindHeap])); d != "" || len(notes) > 0 {
				t.Errorf("%q %.3000s", notes, d)
			}
			if err := os.Remove(core); err != nil { // soon: it is large
				t.Error(err)
			}
		})
	}
}

// TestContentionOfCore: so are block and mutex; the program's file may be elsewhere by then.
func TestContentionOfCore(t *testing.T) {
	path, dir := copyOf(t, testprog.Build(t, "contend", testprog.Options{})), t.TempDir()
	proc := testprog.Start(t, path, "-dir", dir, "-life", "5m")
	core := testprog.GCore(t, proc.PID)
	proc.Stop()
	moved := path + ".moved"
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	m := NewMemory(MemoryConfig{Kinds: []string{KindBlock}})
	defer m.Close()
	if err := m.AddCore(core, ""); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "--core-exe") {
		t.Errorf("without its program: %v", err)
	}
	if err := m.AddCore(core, testprog.Build(t, "heap", testprog.Options{})); err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("with another program: %v", err)
	}
	if err := m.AddCore(path+".none", moved); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a core file: %v", err)
	}
	if err := m.AddCore(moved, moved); !errors.Is(err, objfile.ErrCore) {
		t.Errorf("a program for a core file: %v", err)
	}
	got, _ := fromCore(t, core, moved, KindBlock, KindMutex)
	for _, kind := range []string{KindBlock, KindMutex} {
		want := flatten(readProfile(t, filepath.Join(dir, kind)))
		have := flatten(got[kind])
		for stack, values := range want {
			if strings.Contains(stack, "main.") && have[stack] != values {
				t.Errorf("%s: %s, want %s of %s", kind, have[stack], values, stack)
			}
		}
		if len(want) < 5 {
			t.Errorf("%s: %d stacks", kind, len(want))
		}
	}
}
