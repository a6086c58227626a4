package main

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pprofd/pprofd/benchmarks/agents"
)

// host is what runs beside the agent.
type host struct {
	services []*agents.Service
	sleepers []*exec.Cmd
}

func (b *bench) populate(s *situation) (h *host, err error) {
	h = &host{}
	defer func() {
		if err != nil {
			h.stop()
		}
	}()
	for i := range s.services {
		path, err := b.services.Program(i % s.binaries)
		if err != nil {
			return h, err
		}
		service, err := agents.StartService(path, []string{"-procs", "1", "-clients", "1", "-pause", s.pause.String()})
		if err != nil {
			return h, err
		}
		h.services = append(h.services, service)
	}
	for range s.sleepers {
		cmd := exec.Command("sleep", "3600")
		if err := cmd.Start(); err != nil {
			return h, err
		}
		h.sleepers = append(h.sleepers, cmd)
	}
	return h, nil
}

// stop ends all of them.
func (h *host) stop() {
	for _, cmd := range h.sleepers {
		cmd.Process.Kill()
	}
	for _, s := range h.services {
		s.Stop()
	}
	for _, cmd := range h.sleepers {
		_ = cmd.Wait() // it was killed
	}
	h.services, h.sleepers = nil, nil
}

// pids of the services.
func (h *host) pids() (list []int) {
	for _, s := range h.services {
		list = append(list, s.PID())
	}
	return list
}

// crowd are processes that live for a short time.
type crowd struct {
	mu   sync.Mutex
	cpu  map[int]time.Duration // of the Go processes, by PID
	rest int                   // those that are not Go
	err  error
	wg   sync.WaitGroup
}

const goEvery = 5 // one in so many starts is Go

// churn starts rate processes a second for d, those that are Go of a program. It makes up for starts that came late.
func churn(ctx context.Context, program string, rate int, d time.Duration) (*crowd, error) {
	c := &crowd{cpu: map[int]time.Duration{}}
	began := time.Now()
	for i := 0; ; i++ {
		at := time.Duration(i) * time.Second / time.Duration(rate)
		if err := sleep(ctx, time.Until(began.Add(at))); err != nil || at >= d {
			c.wg.Wait()
			return c, errors.Join(err, c.err)
		}
		if i%goEvery == 0 {
			c.start(true, program, "-ms", "10", "-life", "50")
		} else {
			c.start(false, "true")
		}
	}
}

// short runs n Go processes, two at a time.
func (b *bench) short(n int) (*crowd, error) {
	c := &crowd{cpu: map[int]time.Duration{}}
	for i := range n {
		c.start(true, b.churner, "-ms", "45", "-life", "50")
		if i%2 == 1 {
			c.wg.Wait()
		}
	}
	c.wg.Wait()
	return c, c.err
}

func (c *crowd) start(goes bool, program string, args ...string) {
	cmd := exec.Command(program, args...)
	c.wg.Go(func() {
		err := cmd.Run()
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case err != nil:
			c.err = errors.Join(c.err, err)
		case goes:
			c.cpu[cmd.ProcessState.Pid()] += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		default:
			c.rest++
		}
	})
}

// used is the CPU time of the Go processes.
func (c *crowd) used() (sum time.Duration) {
	for _, d := range c.cpu {
		sum += d
	}
	return sum
}

// sleep until d has passed or ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func window(s *situation) time.Duration {
	if s.window != 0 {
		return s.window
	}
	return defaultWindow
}

// configure is what the agent is to do otherwise than by default.
func configure(s *situation) string {
	text := ""
	if !strings.Contains(s.with, "overhead:") {
		text = "overhead: {cpu: 0%}\n" // it keeps to its rates, whatever that costs
	}
	if s.heap != 0 {
		text += "heap: {interval: " + strconv.FormatInt(s.heap.Milliseconds(), 10) + "ms}\n"
	}
	return text + s.with + "\n"
}

// dropAll is configuration that has the agent find and name all processes, and profile none: relabeling comes last, when all that
// names a process is known.
const dropAll = "relabel_configs: [{source_labels: [exe], regex: '.*', action: drop}]\n"
