package render

import (
	"errors"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// confine makes cmd a process group of its own, so that dot ends with it, of a user who owns nothing.
func confine(cmd *exec.Cmd, asNobody bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if asNobody && os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// limit bounds what this process, and dot, may use up. Where memory is short, it is the first to go.
func limit() error {
	debug.SetMemoryLimit(maxMemory * 3 / 4)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) // a kernel may not have it
	limits := map[int]uint64{unix.RLIMIT_DATA: maxMemory, unix.RLIMIT_CPU: maxCPU, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 64}
	if raced {
		delete(limits, unix.RLIMIT_DATA)
	}
	var errs []error
	for what, most := range limits {
		var now syscall.Rlimit
		errs = append(errs, syscall.Getrlimit(what, &now))
		most = min(most, now.Max) // it may have been bounded by more
		errs = append(errs, syscall.Setrlimit(what, &syscall.Rlimit{Cur: most, Max: most}))
	}
	return errors.Join(errs...)
}

// openNothing: from now on there is no number left for a file descriptor.
func openNothing() error {
	return syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{})
}
