package agents

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

	"github.com/pprofd/pprofd/benchmarks/board"
)

// Harness holds what all measurements need: built programs and the kernel's statistics, switched on.
type Harness struct {
	Dir    string
	PProfd string
	stats  io.Closer
}

// New builds pprofd and the targets, and switches the kernel's BPF statistics on.
func New(ctx context.Context) (*Harness, error) {
	for _, tool := range []string{"bpftrace", "perf"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: on Debian, apt-get install bpftrace linux-perf", err)
		}
	}
	dir, err := os.MkdirTemp("", "pprofd-bench-*")
	if err != nil {
		return nil, err
	}
	h := &Harness{Dir: dir, PProfd: filepath.Join(dir, "pprofd")}
	if err := h.build(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if h.stats, err = ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME)); err != nil {
		return nil, errors.Join(fmt.Errorf("enable the kernel's BPF statistics (as root, Linux 5.8 or newer): %w", err), os.RemoveAll(dir))
	}
	return h, nil
}

// Close switches the statistics off and removes what was built.
func (h *Harness) Close() {
	h.stats.Close()
	os.RemoveAll(h.Dir)
}

func (h *Harness) build(ctx context.Context) error {
	if err := BuildPprofd(ctx, h.PProfd); err != nil {
		return err
	}
	root, err := board.Command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", h.Dir+"/", "./deep", "./spin")
	cmd.Dir = filepath.Join(strings.TrimSpace(root), "internal", "testprog", "targets")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// BuildPprofd builds the program that is measured, as releases are built.
func BuildPprofd(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "github.com/pprofd/pprofd/cmd/pprofd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// Target is a program to be profiled; it lives until stop.
type Target struct{ cmd *exec.Cmd }

const targetLife = "3600" // seconds; Stop ends it before

// Start runs one of internal/testprog/targets and waits until it says that it is ready.
func (h *Harness) Start(ctx context.Context, name string, args ...string) (*Target, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(h.Dir, name), append(args, "-seconds", targetLife)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t := &Target{cmd}
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.Stop()
		return nil, fmt.Errorf("%s did not get ready: %w", name, err)
	}
	time.Sleep(100 * time.Millisecond)
	return t, nil
}

// PID of the target.
func (t *Target) PID() int { return t.cmd.Process.Pid }

// Stop ends the target.
func (t *Target) Stop() {
	t.cmd.Process.Kill()
	_ = t.cmd.Wait() // it was killed
}
