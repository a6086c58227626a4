package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// agent is the measured process.
type agent struct {
	cmd  *exec.Cmd
	url  string // of its metrics
	log  bytes.Buffer
	done chan struct{} // closed when it has ended
	err  error         // valid then
}

const patience = 30 * time.Second

func startAgent(ctx context.Context, program, config, url string) (*agent, error) {
	a := &agent{cmd: exec.CommandContext(ctx, program, "agent", "--config", config), url: url, done: make(chan struct{})}
	a.cmd.Stderr = &a.log
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(a.done)
		a.err = a.cmd.Wait()
	}()
	return a, nil
}

// ended says why it has ended; nil: it runs.
func (a *agent) ended() error {
	select {
	case <-a.done:
		return fmt.Errorf("the agent ended: %w\n%s", a.err, a.log.Bytes())
	default:
		return nil
	}
}

// end asks the agent to end, waits for that, and leaves its log in a directory.
func (a *agent) end(keep string) error {
	err := a.ended()
	if err == nil {
		err = a.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-a.done:
		if err == nil && a.err != nil {
			err = fmt.Errorf("the agent: %w\n%s", a.err, a.log.Bytes())
		}
	case <-time.After(patience):
		a.cmd.Process.Kill()
		<-a.done
		err = errors.Join(err, errors.New("the agent did not end by itself"))
	}
	if keep != "" {
		err = errors.Join(err, os.WriteFile(filepath.Join(keep, "agent.log"), a.log.Bytes(), 0o600))
	}
	return err
}
