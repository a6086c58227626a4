// Command init is the first and only program of kerneltest's virtual machines: it mounts what tests expect, runs the jobs
// of the list one after the other, tells the console how each ended, and switches the machine off. With the argument "jobs" it
// is a service of a machine where systemd did the first part.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/kerneltest/job"
)

func main() {
	do := boot
	switch {
	case os.Getenv("INVOCATION_ID") != "" && len(os.Args) == 2 && os.Args[1] == "jobs": // systemd.exec(5)
		do = run
	case os.Getpid() != 1:
		fmt.Fprintln(os.Stderr, "init: this is the init of a virtual machine; run make test-kernels")
		os.Exit(2)
	}
	if err := do(); err != nil {
		fmt.Printf("init: %v\n", err)
	}
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Printf("init: power off: %v\n", err) // the kernel panics when we return, and qemu ends then, too
}

func boot() error {
	if err := prepare(); err != nil {
		return err
	}
	return run()
}

func run() error {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return fmt.Errorf("kernel release: %w", err)
	}
	tell(job.Booted, string(release))
	list, err := os.ReadFile(job.ListFile)
	if err != nil {
		return fmt.Errorf("list of tests: %w", err)
	}
	jobs, err := job.Decode(list)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		tell(job.Started, j.Name)
		tell(job.Ended, reason(start(j)))
	}
	tell(job.Done, "")
	return nil
}

// tell begins with a line break, because what a test wrote last may not have ended its line.
func tell(e job.Event, text string) { fmt.Print("\n" + job.Line(e, text)) }

func reason(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func start(j job.Job) error {
	ctx, cancel := context.WithTimeout(context.Background(), j.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, j.Path, j.Args...)
	cmd.Dir = j.Dir
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp"}, j.Env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("killed after %v: %w", j.Timeout, ctx.Err())
	}
	return err
}

type mount struct{ kind, dir string }

// mounts are what a running Debian has that the profiler or its tests may touch.
func mounts() []mount {
	return []mount{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"devpts", "/dev/pts"},
		{"tmpfs", "/dev/shm"},
		{"tmpfs", "/tmp"},
		{"tracefs", "/sys/kernel/tracing"},
		{"debugfs", "/sys/kernel/debug"},
		{"bpf", "/sys/fs/bpf"},
		{"cgroup2", "/sys/fs/cgroup"},
	}
}

func prepare() error {
	unix.Umask(0o022)
	for _, m := range mounts() {
		if err := os.MkdirAll(m.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("mount %s: %w", m.kind, err)
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
	}
	if err := os.Chmod("/tmp", 0o777|fs.ModeSticky); err != nil {
		return fmt.Errorf("open /tmp to all: %w", err)
	}
	return loopbackUp()
}

// loopbackUp lets tests use 127.0.0.1.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	return nil
}
