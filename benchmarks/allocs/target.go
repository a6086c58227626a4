package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// target is a running allocload.
type target struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// start starts a target that allocates so much, and waits until it has found its pace.
func (b *bench) start(mbps int) (*target, error) {
	t := &target{cmd: exec.Command(b.path("allocload"), "-mbps", strconv.Itoa(mbps))}
	t.cmd.Stderr = os.Stderr
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	t.out = bufio.NewScanner(out)
	if !t.out.Scan() || t.out.Text() != "ready" {
		return nil, errors.Join(fmt.Errorf("%s did not get ready", t.cmd), t.stop())
	}
	return t, nil
}

func (b *bench) path(program string) string { return filepath.Join(b.dir, program) }

func (t *target) pid() int { return t.cmd.Process.Pid }

// stop ends the target by the end of its input.
func (t *target) stop() error { return errors.Join(t.in.Close(), t.cmd.Wait()) }

func (t *target) ask(question string) (string, error) {
	if _, err := fmt.Fprintln(t.in, question); err != nil {
		return "", err
	}
	if !t.out.Scan() {
		return "", fmt.Errorf("the target does not answer %q: %w", question, errors.Join(t.out.Err(), io.EOF))
	}
	return t.out.Text(), nil
}

// memProfileRate sets the target's own.
func (t *target) memProfileRate(n int) error {
	answer, err := t.ask(fmt.Sprintf("rate %d", n))
	if err == nil && answer != "ok" {
		err = fmt.Errorf("the target answers %q", answer)
	}
	return err
}

// pace is how many MB the target allocates in a second, and in a second of its CPU time: what others take of the CPU is not
// in that.
type pace struct{ mbps, perCPU float64 }

// pace measures over a window.
func (t *target) pace(window time.Duration) (pace, error) {
	before, err := t.count()
	if err != nil {
		return pace{}, err
	}
	time.Sleep(window)
	after, err := t.count()
	if err != nil {
		return pace{}, err
	}
	mb := float64(after.bytes-before.bytes) / (1 << 20)
	return pace{mb / (after.at - before.at).Seconds(), mb / (after.cpu - before.cpu).Seconds()}, nil
}

// count is what the target has done since its start.
type count struct {
	bytes   int64
	at, cpu time.Duration
}

func (t *target) count() (c count, err error) {
	answer, err := t.ask("count")
	if err != nil {
		return c, err
	}
	if _, err := fmt.Fscan(strings.NewReader(answer), &c.bytes, (*int64)(&c.at), (*int64)(&c.cpu)); err != nil {
		return c, fmt.Errorf("the target answers %q: %w", answer, err)
	}
	return c, nil
}
