package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// TestAfterFailure: what was synced is found, in each copy of its own time; what was not synced may be missing.
func TestAfterFailure(t *testing.T) {
	d := New(t)
	write := func(name string) {
		t.Helper()
		f, err := os.Create(filepath.Join(d.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(name); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	first := d.AfterFailure(t)
	write("b")
	if err := os.WriteFile(filepath.Join(d.Dir, "lost"), []byte("lost"), 0o600); err != nil {
		t.Fatal(err)
	}
	second := d.AfterFailure(t)
	for path, want := range map[string]string{filepath.Join(first, "a"): "a", filepath.Join(second, "a"): "a", filepath.Join(second, "b"): "b"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", filepath.Base(path), got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(first, "b")); !os.IsNotExist(err) {
		t.Errorf("b was written after the failure: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(second, "lost")); err == nil && bytes.Equal(got, []byte("lost")) {
		t.Error("what was not synced is there: then nothing is shown by what is")
	}
}
