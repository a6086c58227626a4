package agents

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// Services makes distinct programs of internal/testprog/targets/service in Dir.
type Services struct {
	Dir      string
	programs []string
}

// Build builds the service, of which copies are made.
func (s *Services) Build(ctx context.Context) error {
	root, err := board.Command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	path := filepath.Join(s.Dir, "service")
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-B 0x"+BuildID, "-o", path, "./service")
	cmd.Dir = filepath.Join(strings.TrimSpace(root), "internal", "testprog", "targets")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	s.programs = []string{path}
	return nil
}

// Program is the n-th distinct one, from 0.
func (s *Services) Program(n int) (string, error) {
	for i := len(s.programs); i <= n; i++ {
		path := filepath.Join(s.Dir, fmt.Sprintf("service%03d", i))
		if err := Copy(s.programs[0], path, i); err != nil {
			return "", err
		}
		s.programs = append(s.programs, path)
	}
	return s.programs[n], nil
}

// Service is one process of a program of Services.
type Service struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// StartService starts one and waits until it is ready.
func StartService(path string, args []string) (*Service, error) {
	s := &Service{cmd: exec.Command(path, args...)}
	s.cmd.Stderr = io.Discard // runtime.SetCPUProfileRate complains
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.out = bufio.NewScanner(out)
	if !s.out.Scan() || !strings.HasPrefix(s.out.Text(), "ready") {
		s.Stop()
		return nil, fmt.Errorf("%s did not get ready", path)
	}
	return s, nil
}

// PID of the service.
func (s *Service) PID() int { return s.cmd.Process.Pid }

// Pause stops the service until it gets SIGCONT, and sets the niceness of all its threads.
func (s *Service) Pause(nice int) error {
	if err := unix.Kill(s.PID(), unix.SIGSTOP); err != nil {
		return fmt.Errorf("stop service %d: %w", s.PID(), err)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.PID()))
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, tid, nice)
		}
		if err != nil {
			return fmt.Errorf("niceness of service %d: %w", s.PID(), err)
		}
	}
	return nil
}

// Ask sends a command and returns the answer.
func (s *Service) Ask(command string) (string, error) {
	if _, err := fmt.Fprintln(s.in, command); err != nil {
		return "", err
	}
	if !s.out.Scan() {
		return "", fmt.Errorf("service %d does not answer: %w", s.PID(), errors.Join(s.out.Err(), io.EOF))
	}
	return s.out.Text(), nil
}

// Stop ends the service.
func (s *Service) Stop() {
	s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
}
