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

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

const (
	costHz      = 99
	costThreads = "2"
	memoryPoll  = 5 * time.Millisecond
)

// measureCost takes what each agent costs while it profiles two saturated threads.
func measureCost(ctx context.Context, h *agents.Harness, r *board.Report, c *config) error {
	t, err := h.Start(ctx, "spin", "-threads", costThreads)
	if err != nil {
		return err
	}
	defer t.Stop()
	for range c.rounds {
		for _, a := range agents.All() {
			m, err := agentCost(ctx, h, a, agents.Sampling{PID: t.PID(), Hz: costHz, D: c.window})
			if err != nil {
				return fmt.Errorf("%s: %w", a.Name, err)
			}
			r.Add("AgentCost/agent="+a.Name, 1,
				board.Value{V: m.cpu.Seconds() * 60 / c.window.Seconds(), Unit: "cpu-s/60s"}, board.Value{V: float64(m.peakRSS), Unit: "peak-RSS-B"},
				board.Value{V: float64(m.maps), Unit: "BPF-maps-B"}, board.Value{V: float64(m.samples), Unit: "samples"})
		}
	}
	return nil
}

type agentUse struct {
	cpu           time.Duration // of its process, from start to end, children included
	peakRSS, maps int64         // bytes
	samples       int
}

func agentCost(ctx context.Context, h *agents.Harness, a agents.Agent, o agents.Sampling) (m agentUse, err error) {
	run, err := h.Run(ctx, a, o)
	if err != nil {
		return m, err
	}
	err = watchMemory(run, &m)
	if err := errors.Join(err, run.Wait()); err != nil {
		return m, err
	}
	m.cpu = run.Cmd.ProcessState.UserTime() + run.Cmd.ProcessState.SystemTime()
	m.samples, err = a.Samples(ctx, h, run.Output.Bytes())
	return m, err
}

// watchMemory follows the peak of an agent's memory until it ends. The kernel's rusage would not do: a child's maximum
// starts with that of the process that it was forked from.
func watchMemory(run *agents.Run, m *agentUse) error {
	pid := run.Cmd.Process.Pid
	for {
		select {
		case <-run.Done:
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
		maps, err := agents.MapBytes(pid)
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
	hwm, ok := agents.ParseFields(b)["VmHWM"]
	if !ok {
		return 0, nil
	}
	kb, err := strconv.ParseInt(strings.TrimSuffix(hwm, " kB"), 10, 64)
	return kb << 10, err
}
