package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// goFrames are the frames of deep that are not main.recurse: main.burn, main.main, runtime.main, runtime.goexit.
const goFrames = 4

// measureBPF takes each agent's BPF time per recorded sample, by depth.
func measureBPF(ctx context.Context, h *harness, r *report, c *config) error {
	for _, frames := range c.depths {
		if err := measureDepth(ctx, h, r, c, frames); err != nil {
			return fmt.Errorf("%d frames: %w", frames, err)
		}
	}
	return nil
}

func measureDepth(ctx context.Context, h *harness, r *report, c *config, frames int) error {
	t, err := h.start(ctx, "deep", "-depth", strconv.Itoa(frames-goFrames))
	if err != nil {
		return err
	}
	defer t.stop()
	for range c.rounds {
		for _, a := range agents() {
			if a.program == nil {
				continue
			}
			m, err := bpfTime(ctx, h, a, sampling{t.pid(), c.hz, c.sampling})
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			if m.samples == 0 {
				return fmt.Errorf("%s recorded no samples", a.name)
			}
			r.add(fmt.Sprintf("BPFTime/frames=%d/agent=%s", frames, a.name), m.samples,
				value{m.nsPerSample(), "ns/sample"}, value{float64(m.runs) / float64(m.samples), "runs/sample"})
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
func bpfTime(ctx context.Context, h *harness, a agent, o sampling) (m programTime, err error) {
	run, err := h.run(ctx, a, o)
	if err != nil {
		return m, err
	}
	prog, err := awaitProgram(run, a.program(o))
	if err != nil {
		return m, errors.Join(err, run.wait())
	}
	defer prog.Close()
	if err := run.wait(); err != nil {
		return m, err
	}
	s, err := prog.Stats()
	if err != nil {
		return m, err
	}
	m.ns, m.runs = float64(s.Runtime.Nanoseconds()), s.RunCount
	m.samples, err = a.samples(ctx, h, run.output.Bytes())
	return m, err
}
