package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

const (
	maxAlive  = 200 // processes; where the machine does not keep up, starts are left out, and counted
	residents = 3
	freshUses = 15 // processes of one file that is deleted afterwards
)

// churn starts processes that live for a short time.
type churn struct {
	dir    string
	shared []string // programs
	execer string
	tell   func(how string, pid int, program string) error

	alive, started, skipped, killed, files atomic.Int64
	wg                                     sync.WaitGroup

	mu    sync.Mutex
	err   error // the first of a process
	fresh *freshFile
}

// freshFile is a program that few processes had before. It is deleted while they run: as soon as the last has begun to.
type freshFile struct {
	path    string
	uses    int
	pending int // uses that have not begun
}

func newChurn(dir string) (*churn, error) {
	c := &churn{dir: dir}
	for _, o := range []testprog.Options{{}, {PIE: true}, {Strip: true, Flags: []string{"-trimpath"}}} {
		path, err := testprog.BuildFile("churn", o)
		if err != nil {
			return nil, err
		}
		c.shared = append(c.shared, path)
	}
	var err error
	c.execer, err = testprog.BuildFile("execer", testprog.Options{})
	return c, err
}

// stay starts the processes that stay until ctx ends.
func (c *churn) stay(ctx context.Context) error {
	for i := range residents {
		cmd := exec.CommandContext(ctx, c.shared[i%len(c.shared)], "-resident", "45", "-ms", "2")
		if err := cmd.Start(); err != nil {
			return err
		}
		c.wg.Add(1)
		go func() {
			defer c.wg.Done()
			_ = cmd.Wait() // killed
		}()
		if err := c.tell("add", cmd.Process.Pid, ""); err != nil {
			return err
		}
	}
	return nil
}

// run starts rate processes a second for d. It makes up for starts that came late.
func (c *churn) run(ctx context.Context, rate int, d time.Duration) {
	var all sync.WaitGroup
	defer all.Wait()
	began := time.Now()
	for i := 0; ; i++ {
		at := time.Duration(i) * time.Second / time.Duration(rate)
		if sleep(ctx, time.Until(began.Add(at))); ctx.Err() != nil || at >= d {
			return
		}
		if c.alive.Load() >= maxAlive {
			c.skipped.Add(1)
			continue
		}
		c.alive.Add(1)
		all.Go(func() {
			defer c.alive.Add(-1)
			if err := c.one(i); err != nil {
				c.failed(err)
			}
		})
	}
}

func (c *churn) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// one is the life of process i.
func (c *churn) one(i int) error {
	program := c.shared[rand.IntN(len(c.shared))]
	life := 20 + rand.IntN(480)
	args := []string{"-ms", strconv.Itoa(1 + rand.IntN(15)), "-life", strconv.Itoa(life)}
	switch i % 10 {
	case 0, 1:
		return c.kill(exec.Command(program, args...), time.Duration(1+rand.IntN(life))*time.Millisecond)
	case 2, 3:
		return c.live(exec.Command(c.execer, append([]string{"-ms", strconv.Itoa(1 + rand.IntN(15)), program}, args...)...), nil)
	case 4:
		return c.waiting(program, args)
	}
	if i%2 == 0 {
		return c.live(exec.Command(program, args...), nil)
	}
	f, err := c.take(i)
	if err != nil {
		return err
	}
	return c.live(exec.Command(f.path, args...), f)
}

// start starts a process and tells of it.
func (c *churn) start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	c.started.Add(1)
	return c.tell("add", cmd.Process.Pid, "")
}

// live is of a process that ends by itself; f is its program where that is a fresh one.
func (c *churn) live(cmd *exec.Cmd, f *freshFile) error {
	err := c.start(cmd)
	if f != nil {
		err = errors.Join(err, c.begun(f))
	}
	if err != nil {
		return err
	}
	return cmd.Wait()
}

func (c *churn) kill(cmd *exec.Cmd, after time.Duration) error {
	if err := c.start(cmd); err != nil {
		return err
	}
	kill := time.AfterFunc(after, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	kill.Stop()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		c.killed.Add(1)
		return nil
	}
	return err
}

// waiting is of a process that is added before it executes the program.
func (c *churn) waiting(program string, args []string) error {
	cmd := exec.Command("/bin/sh", append([]string{"-c", `read go && exec "$0" "$@"`, program}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.started.Add(1)
	if err := c.tell("exec", cmd.Process.Pid, program); err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond)
	_, err = io.WriteString(in, "go\n")
	return errors.Join(err, cmd.Wait())
}

// take returns the fresh file for process i, a new one after some uses. cp makes it, since a file that we had open for
// writing our children could have open, too.
func (c *churn) take(i int) (*freshFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.fresh; f == nil || f.uses == freshUses {
		path := filepath.Join(c.dir, fmt.Sprintf("churn-%d", i))
		if out, err := exec.Command("cp", c.shared[rand.IntN(len(c.shared))], path).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("cp: %w: %s", err, out)
		}
		c.files.Add(1)
		c.fresh = &freshFile{path: path}
	}
	c.fresh.uses++
	c.fresh.pending++
	return c.fresh, nil
}

// begun deletes f after its last use.
func (c *churn) begun(f *freshFile) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.pending--; f.pending > 0 || f.uses < freshUses {
		return nil
	}
	return os.Remove(f.path)
}
