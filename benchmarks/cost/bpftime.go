package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// goFrames are the frames of deep that are not main.recurse: main.burn, main.main, runtime.main, runtime.goexit.
const goFrames = 4

// measureBPF takes each agent's BPF time per recorded sample, by depth.
func measureBPF(ctx context.Context, h *agents.Harness, r *board.Report, c *config) error {
	for _, frames := range c.depths {
		if err := measureDepth(ctx, h, r, c, frames); err != nil {
			return fmt.Errorf("%d frames: %w", frames, err)
		}
	}
	return nil
}

func measureDepth(ctx context.Context, h *agents.Harness, r *board.Report, c *config, frames int) error {
	t, err := h.Start(ctx, "deep", "-depth", strconv.Itoa(frames-goFrames))
	if err != nil {
		return err
	}
	defer t.Stop()
	for range c.rounds {
		for _, a := range agents.All() {
			if a.Program == nil {
				continue
			}
			m, err := bpfTime(ctx, h, a, agents.Sampling{PID: t.PID(), Hz: c.hz, D: c.sampling})
			if err != nil {
				return fmt.Errorf("%s: %w", a.Name, err)
			}
			if m.samples == 0 {
				return fmt.Errorf("%s recorded no samples", a.Name)
			}
			r.Add(fmt.Sprintf("BPFTime/frames=%d/agent=%s", frames, a.Name), m.samples,
				board.Value{V: m.nsPerSample(), Unit: "ns/sample"}, board.Value{V: float64(m.runs) / float64(m.samples), Unit: "runs/sample"})
		}
	}
	return nil
}

// programTime is what the kernel counted of one agent's program.
type programTime struct {
	samples int
	ns      float64
	runs    uint64
}

func (m programTime) nsPerSample() float64 { return m.ns / float64(m.samples) }

// bpfTime runs an agent and reads the statistics of its program after its end.
func bpfTime(ctx context.Context, h *agents.Harness, a agents.Agent, o agents.Sampling) (m programTime, err error) {
	run, err := h.Run(ctx, a, o)
	if err != nil {
		return m, err
	}
	prog, err := agents.AwaitProgram(run, a.Program(o))
	if err != nil {
		return m, errors.Join(err, run.Wait())
	}
	defer prog.Close()
	if err := run.Wait(); err != nil {
		return m, err
	}
	s, err := prog.Stats()
	if err != nil {
		return m, err
	}
	m.ns, m.runs = float64(s.Runtime.Nanoseconds()), s.RunCount
	m.samples, err = a.Samples(ctx, h, run.Output.Bytes())
	return m, err
}
