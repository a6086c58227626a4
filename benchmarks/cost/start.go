package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// measureStart takes the time from exec of each agent to its first sample of a target that keeps one CPU busy.
func measureStart(ctx context.Context, h *agents.Harness, r *board.Report, c *config) error {
	t, err := h.Start(ctx, "deep", "-depth", "10")
	if err != nil {
		return err
	}
	defer t.Stop()
	for range c.rounds {
		for _, a := range agents.All() {
			d, err := firstSample(ctx, h, a, agents.Sampling{PID: t.PID(), Hz: costHz, D: startWindow})
			if err != nil {
				return fmt.Errorf("%s: %w", a.Name, err)
			}
			r.Add("FirstSample/agent="+a.Name, 1, board.Value{V: float64(d.Microseconds()) / 1000, Unit: "ms"})
		}
	}
	return nil
}

const startWindow = time.Second

func firstSample(ctx context.Context, h *agents.Harness, a agents.Agent, o agents.Sampling) (d time.Duration, err error) {
	run, err := h.Run(ctx, a, o)
	if err != nil {
		return 0, err
	}
	if a.Program == nil {
		if err := run.Wait(); err != nil {
			return 0, err
		}
		times, err := h.PerfTimes(ctx)
		if err != nil {
			return 0, err
		}
		return times[0] - run.Started, nil
	}
	prog, err := agents.AwaitProgram(run, a.Program(o))
	if err != nil {
		return 0, errors.Join(err, run.Wait())
	}
	defer prog.Close()
	first, err := firstRun(run, prog)
	return first - run.Started, errors.Join(err, run.Wait())
}

// firstRun waits for the program's first run, which is the first sample within one period: on each CPU it runs as often.
func firstRun(run *agents.Run, prog *ebpf.Program) (time.Duration, error) {
	for {
		s, err := prog.Stats()
		if err != nil {
			return 0, err
		}
		if s.RunCount > 0 {
			return agents.Monotonic()
		}
		select {
		case <-run.Done:
			return 0, errors.New("the program never ran")
		case <-time.After(agents.ProgramPoll):
		}
	}
}
