package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// measureStart takes the time from exec of each agent to its first sample of a target that keeps one CPU busy.
func measureStart(ctx context.Context, h *harness, r *report, c *config) error {
	t, err := h.start(ctx, "deep", "-depth", "10")
	if err != nil {
		return err
	}
	defer t.stop()
	for range c.rounds {
		for _, a := range agents() {
			d, err := firstSample(ctx, h, a, sampling{t.pid(), costHz, startWindow})
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			r.add("FirstSample/agent="+a.name, 1, value{float64(d.Microseconds()) / 1000, "ms"})
		}
	}
	return nil
}

const startWindow = time.Second

func firstSample(ctx context.Context, h *harness, a agent, o sampling) (d time.Duration, err error) {
	run, err := h.run(ctx, a, o)
	if err != nil {
		return 0, err
	}
	if a.program == nil {
		if err := run.wait(); err != nil {
			return 0, err
		}
		times, err := h.perfTimes(ctx)
		if err != nil {
			return 0, err
		}
		return times[0] - run.started, nil
	}
	prog, err := awaitProgram(run, a.program(o))
	if err != nil {
		return 0, errors.Join(err, run.wait())
	}
	defer prog.Close()
	first, err := firstRun(run, prog)
	return first - run.started, errors.Join(err, run.wait())
}

// firstRun waits for the program's first run, which is the first sample within one period: on each CPU it runs as often.
func firstRun(run *agentRun, prog *ebpf.Program) (time.Duration, error) {
	for {
		s, err := prog.Stats()
		if err != nil {
			return 0, err
		}
		if s.RunCount > 0 {
			return monotonic()
		}
		select {
		case <-run.done:
			return 0, errors.New("the program never ran")
		case <-time.After(programPoll):
		}
	}
}
