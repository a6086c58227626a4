package file

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Somebody removes the directory while profiles are written: it is made again, and the limits count what is there now.
func TestStoreDirectoryRemoved(t *testing.T) {
	h := newHands()
	dir := filepath.Join(t.TempDir(), "data")
	s := indexedStore(t, StoreOptions{Dir: dir, clock: h.read})
	for pid := range 3 {
		save(t, s, storeProfile("shop", pid+1, h.wall))
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(); err != nil {
		t.Error(err)
	}
	save(t, s, storeProfile("shop", 7, h.wall))
	if st := s.Stats(); st.Files != 1 || st.Written != 4 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
	if err := s.Sync(); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st, err)
	}
	if got := paths(t, dir); len(got) != 3 || !strings.HasPrefix(got[2], "shop/7-") {
		t.Errorf("%q", got)
	}
}

// As long as it cannot be made again each profile says why; then it goes on.
func TestStoreDirectoryCannotBeMadeAgain(t *testing.T) {
	h := newHands()
	dir := filepath.Join(t.TempDir(), "data")
	s := indexedStore(t, StoreOptions{Dir: dir, clock: h.read})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Export(t.Context(), storeProfile("shop", 1, h.wall)); err == nil || !strings.Contains(err.Error(), "cannot be made again") {
			t.Errorf("%v", err)
		}
	}
	s.Expire()
	if err := s.Sync(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	save(t, s, storeProfile("shop", 1, h.wall))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Export(t.Context(), storeProfile("shop", 1, h.wall)); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}
