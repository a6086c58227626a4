package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// machine is a virtual machine of one architecture.
type machine struct {
	qemu    string
	board   string
	console string
	kernel  string
	initrd  string
}

func machineFor(arch string) (*machine, error) {
	m := &machine{}
	switch arch {
	case "amd64":
		m.qemu, m.board, m.console = "qemu-system-x86_64", "q35", "ttyS0"
	case "arm64":
		m.qemu, m.board, m.console = "qemu-system-aarch64", "virt", "ttyAMA0"
	default:
		return nil, fmt.Errorf("no virtual machine for architecture %q; there are amd64 and arm64", arch)
	}
	if _, err := exec.LookPath(m.qemu); err != nil {
		return nil, fmt.Errorf("%w: apt-get install qemu-system-x86 qemu-system-arm", err)
	}
	return m, nil
}

// args ask for TCG even where there is KVM: a nested KVM may lack model-specific registers, on which qemu 7.2 aborts.
func (m *machine) args() []string {
	return []string{
		"-machine", m.board + ",accel=tcg", "-cpu", "max", "-smp", "2", "-m", "2G",
		"-nographic", "-no-reboot", "-nic", "none", "-monitor", "none", "-serial", "stdio",
		"-kernel", m.kernel, "-initrd", m.initrd,
		// Only a dying kernel may write between the tests' lines; a panic ends the machine at once.
		"-append", "console=" + m.console + " loglevel=1 panic=-1",
	}
}

// boot runs the machine until it is off and gives the report every line of its console.
func (m *machine) boot(ctx context.Context, r *report) error {
	cmd := exec.CommandContext(ctx, m.qemu, m.args()...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	console, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	readErr := eachLine(console, r.line)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("the machine did not end in time: %w", ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", m.qemu, err, strings.TrimSpace(stderr.String()))
	}
	return readErr
}

// eachLine calls f for each line, without its end. A line longer than 64 KiB comes in pieces.
func eachLine(r io.Reader, f func(string)) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			f(strings.TrimRight(string(line), "\r\n"))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("console: %w", err)
		}
	}
}
