package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// build builds the service, of which copies are made.
func (b *bench) build(ctx context.Context) error {
	root, err := board.Command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	path := filepath.Join(b.Dir, "service")
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-B 0x"+agents.BuildID, "-o", path, "./service")
	cmd.Dir = filepath.Join(strings.TrimSpace(root), "internal", "testprog", "targets")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	b.programs = []string{path}
	return nil
}

// program is the n-th distinct one.
func (b *bench) program(n int) (string, error) {
	for i := len(b.programs); i <= n; i++ {
		path := filepath.Join(b.Dir, fmt.Sprintf("service%03d", i))
		if err := agents.Copy(b.programs[0], path, i); err != nil {
			return "", err
		}
		b.programs = append(b.programs, path)
	}
	return b.programs[n], nil
}

// service is one target.
type service struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// ask sends a command and returns the answer.
func (s *service) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(s.in, command); err != nil {
		return "", err
	}
	if !s.out.Scan() {
		return "", fmt.Errorf("service %d does not answer: %w", s.cmd.Process.Pid, errors.Join(s.out.Err(), io.EOF))
	}
	return s.out.Text(), nil
}

// fleet is a number of services.
type fleet []*service

// load is what the services are to do.
type load struct {
	processes, binaries int
	idle                bool
}

func (l load) String() string {
	state := "busy"
	if l.idle {
		state = "idle"
	}
	return fmt.Sprintf("processes=%d/binaries=%d/load=%s", l.processes, l.binaries, state)
}

const (
	idlePause = "1s"
	settle    = 500 * time.Millisecond // of services that have just begun
)

// startFleet starts services. One alone may use two CPUs, many have one each.
func (b *bench) startFleet(l load) (f fleet, err error) {
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	args := []string{"-procs", "2", "-clients", "4"}
	if l.processes > 1 {
		args = []string{"-procs", "1", "-clients", "1"}
	}
	if l.idle {
		args = append(args, "-pause", idlePause)
	}
	for i := range l.processes {
		path, err := b.program(i % l.binaries)
		if err != nil {
			return f, err
		}
		s, err := startService(path, args)
		if err != nil {
			return f, err
		}
		f = append(f, s)
	}
	time.Sleep(settle)
	return f, nil
}

func startService(path string, args []string) (*service, error) {
	s := &service{cmd: exec.Command(path, args...)}
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
		s.stop()
		return nil, fmt.Errorf("%s did not get ready", path)
	}
	return s, nil
}

func (s *service) stop() {
	s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
}

func (f fleet) stop() {
	for _, s := range f {
		s.stop()
	}
}

func (f fleet) pids() (list []int) {
	for _, s := range f {
		list = append(list, s.cmd.Process.Pid)
	}
	return list
}

// sampling asks for all of the fleet.
func (f fleet) sampling(hz int, d time.Duration) agents.Sampling {
	o := agents.Sampling{PID: f[0].cmd.Process.Pid, Hz: hz, D: d}
	if len(f) > 1 {
		o.PIDs = f.pids()
	}
	return o
}

// all sends each service a command, by its number; each must answer "ok".
func (f fleet) all(command func(i int) string) error {
	for i, s := range f {
		if answer, err := s.ask(command(i)); err != nil || answer != "ok" {
			return fmt.Errorf("service %d: %q: %w", s.cmd.Process.Pid, answer, err)
		}
	}
	return nil
}

// rate is how many requests the services answer a second, over a window.
func (f fleet) rate(window time.Duration) (float64, error) {
	before, err := f.counts()
	if err != nil {
		return 0, err
	}
	time.Sleep(window)
	after, err := f.counts()
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for i := range f {
		sum += float64(after[i].requests-before[i].requests) / (after[i].at - before[i].at).Seconds()
	}
	return sum, nil
}

type count struct {
	requests int64
	at       time.Duration // since the service's start
}

func (f fleet) counts() ([]count, error) {
	list := make([]count, len(f))
	for i, s := range f {
		answer, err := s.ask("count")
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Sscanf(answer, "count %d %d", &list[i].requests, &list[i].at); err != nil {
			return nil, fmt.Errorf("service %d: %q: %w", s.cmd.Process.Pid, answer, err)
		}
	}
	return list, nil
}
