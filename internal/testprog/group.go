package testprog

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// StartLimited is Start in a memory control group of its own with a limit, in bytes, beyond which the kernel kills. What the
// program uses until it is ready does not count.
func StartLimited(t testing.TB, limit int, path string, args ...string) *Proc {
	t.Helper()
	needs.Root(t)
	group := memoryGroup(t, limit)
	p := Start(t, path, args...)
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(fmt.Sprint(p.PID)), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// memoryGroup makes a control group with a memory limit and no swap, of whichever version the machine has.
func memoryGroup(t testing.TB, limit int) string {
	t.Helper()
	for _, v := range []struct{ root, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"},
	} {
		_ = os.WriteFile(filepath.Join(v.root, "cgroup.subtree_control"), []byte("+memory"), 0o600) // version 2; where init has not done it
		dir := filepath.Join(v.root, fmt.Sprintf("pprofd-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { removeGroup(t, dir) })
		if os.WriteFile(filepath.Join(dir, v.limit), []byte(fmt.Sprint(limit)), 0o600) == nil {
			_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0o600) // version 2; where there is swap
			return dir
		}
	}
	needs.Missing(t, "memory cgroup", "the memory controller, version 1 at /sys/fs/cgroup/memory or version 2 at /sys/fs/cgroup, writable")
	return ""
}

// removeGroup can do so once the last process has been reaped.
func removeGroup(t testing.TB, dir string) {
	var err error
	for range 100 {
		if err = os.Remove(dir); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("control group is left: %v", err)
}
