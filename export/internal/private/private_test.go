package private

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

func TestOpenMakesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	f, name, err := CreateTemp(d.Root)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Mode() != 0o600 || !IsTemp(name) || IsTemp("x"+name) {
		t.Errorf("%s: %v, %v", name, st, err)
	}
	if err := errors.Join(f.Close(), d.Sync()); err != nil {
		t.Error(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another pprofd") {
		t.Errorf("opened twice: %v", err)
	}
	d.Close()
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestOpenRefuses(t *testing.T) {
	needs.Root(t)
	dir := t.TempDir()
	for name, prepare := range map[string]func(path string) error{
		"is a symbolic link": func(path string) error {
			return errors.Join(os.Mkdir(path+"-", 0o700), os.Symlink(path+"-", path), os.Lchown(path, 1, 1))
		},
		"belongs to another user": func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, 1, 1)) },
		"others may write":        func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o720)) },
		"not a directory":         func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if d, err := Open(path); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "not-a-directory", "x")); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a file: %v", err)
	}
	own := filepath.Join(dir, "own")
	if err := errors.Join(os.Mkdir(own+"-", 0o700), os.Symlink(own+"-", own)); err != nil {
		t.Fatal(err)
	}
	d, err := Open(own)
	if err != nil {
		t.Fatalf("a link of our own: %v", err)
	}
	d.Close()
}
