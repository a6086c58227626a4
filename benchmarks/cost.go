package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	costHz      = 99
	costThreads = "2"
	memoryPoll  = 5 * time.Millisecond
)

// measureCost takes what each agent costs while it profiles two saturated threads.
func measureCost(ctx context.Context, h *harness, r *report, c *config) error {
	t, err := h.start(ctx, "spin", "-threads", costThreads)
	if err != nil {
		return err
	}
	defer t.stop()
	for range c.rounds {
		for _, a := range agents() {
			m, err := agentCost(ctx, h, a, sampling{t.pid(), costHz, c.window})
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			r.add("AgentCost/agent="+a.name, 1,
				value{m.cpu.Seconds() * 60 / c.window.Seconds(), "cpu-s/60s"}, value{float64(m.peakRSS), "peak-RSS-B"},
				value{float64(m.maps), "BPF-maps-B"}, value{float64(m.samples), "samples"})
		}
	}
	return nil
}

type agentUse struct {
	cpu           time.Duration // of its process, from start to end, children included
	peakRSS, maps int64         // bytes
	samples       int
}

func agentCost(ctx context.Context, h *harness, a agent, o sampling) (m agentUse, err error) {
	run, err := h.run(ctx, a, o)
	if err != nil {
		return m, err
	}
	err = watchMemory(run, &m)
	if err := errors.Join(err, run.wait()); err != nil {
		return m, err
	}
	m.cpu = run.cmd.ProcessState.UserTime() + run.cmd.ProcessState.SystemTime()
	m.samples, err = a.samples(ctx, h, run.output.Bytes())
	return m, err
}

// watchMemory follows the peak of an agent's memory until it ends. The kernel's rusage would not do: a child's maximum
// starts with that of the process that it was forked from.
func watchMemory(run *agentRun, m *agentUse) error {
	pid := run.cmd.Process.Pid
	for {
		select {
		case <-run.done:
			return nil
		case <-time.After(memoryPoll):
		}
		peak, err := peakRSS(pid)
		if err != nil {
			return err
		}
		if peak == 0 {
			continue // it is about to be reaped
		}
		m.peakRSS = peak
		maps, err := mapBytes(pid)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return err
		}
		m.maps = max(m.maps, maps)
	}
}

// peakRSS is VmHWM of a process in bytes; 0: it has no memory any more.
func peakRSS(pid int) (int64, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		return 0, err
	}
	hwm, ok := parseFields(b)["VmHWM"]
	if !ok {
		return 0, nil
	}
	kb, err := strconv.ParseInt(strings.TrimSuffix(hwm, " kB"), 10, 64)
	return kb << 10, err
}
