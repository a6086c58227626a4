package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/internal/private"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestStoreDiskFull(t *testing.T) {
	needs.Root(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k,mode=0700"); err != nil {
		needs.Missing(t, "mount", "CAP_SYS_ADMIN, to mount a small tmpfs: "+err.Error())
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	s := indexedStore(t, StoreOptions{Dir: dir, MaxSize: 1 << 30})
	defer s.Close()
	at := time.Now().Add(-time.Hour)
	var newest string
	for i := range 100 {
		save(t, s, storeProfile("api", 1+i, at.Add(time.Duration(i)*time.Second)))
		newest = fmt.Sprintf("api/%d-%d0/", 1+i, 1+i)
	}
	st := s.Stats()
	if all := paths(t, dir); !slices.Contains(all, newest) || st.RemovedFull < 60 || st.Failed != 0 || strings.Contains(strings.Join(all, " "), private.TempPrefix) {
		t.Errorf("%+v, %q", st, all)
	}
	agrees(t, s)
	if err := os.WriteFile(filepath.Join(dir, "of somebody else"), make([]byte, 128<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	large := storeProfile("api", 1, at)
	large.Labels = []export.Label{{Name: "x", Value: noise(1 << 20)}}
	if err := s.Export(t.Context(), large); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "not saved") {
		t.Errorf("a file larger than the disk: %v", err)
	}
	if all := files(t, dir); len(all) != 1 || s.Stats().Failed != 1 {
		t.Errorf("%q %+v", all, s.Stats())
	}
	if err := os.Remove(filepath.Join(dir, "of somebody else")); err != nil {
		t.Fatal(err)
	}
	save(t, s, storeProfile("api", 1, at))
	agrees(t, s)
}
