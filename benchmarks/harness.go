package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// harness holds what all measurements need: built programs and the kernel's statistics, switched on.
type harness struct {
	dir    string
	pprofd string
	stats  io.Closer
}

func newHarness(ctx context.Context) (*harness, error) {
	for _, tool := range []string{"bpftrace", "perf"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: on Debian, apt-get install bpftrace linux-perf", err)
		}
	}
	dir, err := os.MkdirTemp("", "pprofd-bench-*")
	if err != nil {
		return nil, err
	}
	h := &harness{dir: dir, pprofd: filepath.Join(dir, "pprofd")}
	if err := h.build(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if h.stats, err = ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME)); err != nil {
		return nil, errors.Join(fmt.Errorf("enable the kernel's BPF statistics (as root, Linux 5.8 or newer): %w", err), os.RemoveAll(dir))
	}
	return h, nil
}

func (h *harness) close() {
	h.stats.Close()
	os.RemoveAll(h.dir)
}

func (h *harness) build(ctx context.Context) error {
	root, err := command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	root = strings.TrimSpace(root)
	for dir, args := range map[string][]string{
		root: {"build", "-trimpath", "-o", h.pprofd, "./cmd/pprofd"},
		filepath.Join(root, "internal", "testprog", "targets"): {"build", "-o", h.dir + "/", "./deep", "./spin"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	return nil
}

// command returns the standard output of a program.
func command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(out), nil
}

// target is a program to be profiled; it lives until stop.
type target struct{ cmd *exec.Cmd }

const targetLife = "3600" // seconds; stop ends it before

// start runs one of internal/testprog/targets and waits until it says that it is ready.
func (h *harness) start(ctx context.Context, name string, args ...string) (*target, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(h.dir, name), append(args, "-seconds", targetLife)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t := &target{cmd}
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.stop()
		return nil, fmt.Errorf("%s did not get ready: %w", name, err)
	}
	time.Sleep(100 * time.Millisecond)
	return t, nil
}

func (t *target) pid() int { return t.cmd.Process.Pid }

func (t *target) stop() {
	t.cmd.Process.Kill()
	_ = t.cmd.Wait() // it was killed
}
