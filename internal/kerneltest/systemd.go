package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pprofd/pprofd/internal/kerneltest/job"
)

// filesOf is the release of Debian whose packages machines have files of: that of the base kernel.
const filesOf = "bookworm"

// systemd returns a directory with systemd and what it depends on. The unit reloads by procps' kill.
func (s *store) systemd(ctx context.Context) (string, error) {
	return s.files(ctx, "systemd", "systemd", "procps")
}

// libc returns a directory with the C library and the loader, which position-independent executables want.
func (s *store) libc(ctx context.Context) (string, error) { return s.files(ctx, "libc", "libc6") }

// files returns a directory with the files of packages and of what they depend on.
func (s *store) files(ctx context.Context, name string, packages ...string) (string, error) {
	dir := filepath.Join(s.dir, name+"-"+filesOf)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := s.open(ctx); err != nil {
		return "", err
	}
	tmp := dir + ".tmp" // renamed, so that dir is never half there
	defer os.RemoveAll(tmp)
	if err := s.apt.unpackAll(ctx, tmp, filesOf, packages); err != nil {
		return "", fmt.Errorf("packages %q: %w", packages, err)
	}
	return dir, os.Rename(tmp, dir)
}

// jobsUnit runs init, which then only runs the jobs.
const jobsUnit = `[Unit]
Description=Jobs of kerneltest
[Service]
ExecStart=` + job.InitFile + ` jobs
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
TimeoutStartSec=infinity
`

// jobsTarget is what the machine boots to: all that services may expect, and the jobs.
const jobsTarget = `[Unit]
Description=Machine of kerneltest
Requires=basic.target
After=basic.target
Wants=kerneltest.service
`

// addSystemd makes systemd, which is unpacked in dir, the machine's init.
func (t *tree) addSystemd(dir string) error {
	for _, top := range []string{"bin", "sbin", "lib", "lib64"} { // as Debian's usrmerge does it
		if err := t.addTree("/usr/"+top, filepath.Join(dir, top)); err != nil {
			return err
		}
		t.addDir("/usr/" + top)
		t.addLink("/"+top, "usr/"+top)
	}
	for _, sub := range []string{"etc", "usr/bin", "usr/sbin", "usr/lib", "usr/share/dbus-1"} {
		if err := t.addTree("/"+sub, filepath.Join(dir, filepath.FromSlash(sub))); err != nil {
			return err
		}
	}
	for _, name := range []string{"/dev", "/proc", "/run", "/sys", "/tmp", "/root", "/home", "/var/lib", "/var/log", "/var/tmp"} {
		t.addDir(name)
	}
	t.addLink("/init", "/usr/lib/systemd/systemd")
	t.addData("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"))
	t.addData("/etc/group", []byte("root:x:0:\nnogroup:x:65534:\n"))
	t.addData("/etc/hostname", []byte("kerneltest\n"))
	t.addData("/etc/machine-id", nil)
	t.addData("/etc/systemd/system/kerneltest.service", []byte(jobsUnit))
	t.addData("/etc/systemd/system/default.target", []byte(jobsTarget))
	return nil
}
