package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

const (
	exitNotExecutable = 126 // as sh(1), env(1) and nohup(1) have it
	exitNotFound      = 127
	exitSignal        = 128 // plus the signal
)

// child is the program behind --. It runs as a copy of pprofd that waits, in newExec, for a message that says what to
// execute: so that the profiler can know its PID before its first instruction. It stays in pprofd's process group and
// session and has its standard streams.
type child struct {
	path   string // of the program, absolute
	cmd    *exec.Cmd
	order  *os.File      // we write the order to the child here
	result *os.File      // the child tells here why it could not execute the program; end of file: it could
	exited chan struct{} // closed once the process has been reaped
}

// order is what the waiting child reads.
type order struct {
	Path string
	Args []string
	As   *identity `json:",omitempty"` // nil: whoever runs pprofd
}

// findProgram is the path of the program that a shell would run.
func findProgram(name string) (string, error) {
	p, err := exec.LookPath(name)
	switch {
	case errors.Is(err, exec.ErrDot), err == nil:
		return filepath.Abs(p)
	case errors.Is(err, os.ErrPermission):
		return "", exitError{exitNotExecutable, fmt.Errorf("cannot execute %s: %w", name, err)}
	}
	return "", exitError{exitNotFound, fmt.Errorf("cannot find the program behind --: %w", err)}
}

// spawn starts the waiting child. Until release it has done nothing; abandon ends it then.
func spawn(program string, as *identity) (*child, error) {
	orderR, orderW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start program: %w", err)
	}
	defer orderR.Close()
	resultR, resultW, err := os.Pipe()
	if err != nil {
		orderW.Close()
		return nil, fmt.Errorf("start program: %w", err)
	}
	defer resultW.Close()
	cmd := exec.Command("/proc/self/exe", execName)
	cmd.Args[0] = "pprofd"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{orderR, resultW} // orderFD, resultFD
	cmd.Env = as.environ(os.Environ())
	if err := cmd.Start(); err != nil {
		orderW.Close()
		resultR.Close()
		return nil, fmt.Errorf("start program: %w", err)
	}
	c := &child{path: program, cmd: cmd, order: orderW, result: resultR, exited: make(chan struct{})}
	go c.wait()
	return c, nil
}

// wait is the owner of the process; its end is the close of exited.
func (c *child) wait() {
	_ = c.cmd.Wait() // what it returns stands in ProcessState, too
	close(c.exited)
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// release lets the child execute its program and returns once it has, or could not.
func (c *child) release(args []string, as *identity) error {
	err := json.NewEncoder(c.order).Encode(order{Path: c.path, Args: args, As: as})
	c.order.Close()
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("start program: %w", err)
	}
	said, err := io.ReadAll(c.result)
	c.result.Close()
	switch {
	case err != nil:
		return fmt.Errorf("start program: %w", err)
	case len(said) > 0:
		<-c.exited
		return exitError{c.code(), errors.New(string(said))}
	}
	return nil
}

// abandon ends a child that was not released, and does nothing to one that was.
func (c *child) abandon() {
	c.order.Close() // the end of the file is its order to leave
	c.result.Close()
}

// code is the exit code that a shell would report; valid once exited is closed.
func (c *child) code() int {
	if ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitSignal + int(ws.Signal())
	}
	return c.cmd.ProcessState.ExitCode()
}

// signal passes sig on. A process that has ended is no error.
func (c *child) signal(sig os.Signal) {
	_ = c.cmd.Process.Signal(sig)
}
