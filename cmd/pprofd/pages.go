package main

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
)

// dropCode gives back the pages of this program's code that were needed to initialize it: with all that the agent links (grpc,
// Prometheus) that is a quarter of what `pprofd record` would hold. What is needed again the kernel maps again from the file, whose
// pages nobody has written to. Where that fails, more memory is held.
func dropCode() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for m, err := range procfs.New(procRoot).Proc(os.Getpid()).Maps() {
		if err != nil {
			return
		}
		if m.Path == exe && m.Perm&procfs.PermExec != 0 && m.Perm&procfs.PermWrite == 0 {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(m.Start), uintptr(m.End-m.Start), unix.MADV_DONTNEED)
		}
	}
}
