package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"
)

// agent is a profiler under measurement.
type agent struct {
	name    string
	program func(o sampling) string // the kernel's name of the BPF program that takes samples; nil: there is none
	command func(ctx context.Context, h *harness, o sampling) *exec.Cmd
	samples func(ctx context.Context, h *harness, output []byte) (int, error) // recorded, from what the agent left
}

// sampling is what an agent is asked to do.
type sampling struct {
	pid, hz int
	d       time.Duration
}

// The bpftrace program is the usual one: count by user and kernel stack. Its limit is 127 frames of each.
const bpftraceProgram = "profile:hz:%d /pid==%d/ { @[ustack(perf,127), kstack(perf,127)] = count(); } interval:ms:%d { exit(); }"

func agents() []agent {
	return []agent{
		{"pprofd", func(sampling) string { return "cpu_sample" },
			func(ctx context.Context, h *harness, o sampling) *exec.Cmd {
				return exec.CommandContext(ctx, h.pprofd, "record", "-p", strconv.Itoa(o.pid), "-F", strconv.Itoa(o.hz),
					"-d", o.d.String(), "--event", "cpu-clock", "-o", h.profile())
			},
			func(_ context.Context, h *harness, _ []byte) (int, error) { return pprofSamples(h.profile()) }},
		{"bpftrace", func(o sampling) string { return strconv.Itoa(o.hz) }, // of profile:hz:99
			func(ctx context.Context, _ *harness, o sampling) *exec.Cmd {
				return exec.CommandContext(ctx, "bpftrace", "-e", fmt.Sprintf(bpftraceProgram, o.hz, o.pid, o.d.Milliseconds()))
			},
			func(_ context.Context, _ *harness, output []byte) (int, error) { return bpftraceSamples(output) }},
		{"perf", nil,
			func(ctx context.Context, h *harness, o sampling) *exec.Cmd {
				return exec.CommandContext(ctx, "perf", "record", "-e", "cpu-clock", "--call-graph", "fp", "-k", "CLOCK_MONOTONIC",
					"-F", strconv.Itoa(o.hz), "-p", strconv.Itoa(o.pid), "-o", h.perfData(), "--", "sleep",
					strconv.FormatFloat(o.d.Seconds(), 'f', 3, 64))
			},
			perfSamples},
	}
}

func (h *harness) profile() string  { return filepath.Join(h.dir, "cpu.pb.gz") }
func (h *harness) perfData() string { return filepath.Join(h.dir, "perf.data") }

// agentRun is an agent at work.
type agentRun struct {
	cmd     *exec.Cmd
	started time.Duration // just before exec, by CLOCK_MONOTONIC
	output  bytes.Buffer
	done    chan struct{} // closed when it has ended
	err     error         // valid then, as output is
}

// run starts an agent.
func (h *harness) run(ctx context.Context, a agent, o sampling) (*agentRun, error) {
	r := &agentRun{cmd: a.command(ctx, h, o), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = &r.output, &r.output
	var err error
	if r.started, err = monotonic(); err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(r.done)
		r.err = r.cmd.Wait()
	}()
	return r, nil
}

func (r *agentRun) wait() error {
	<-r.done
	if r.err != nil {
		return fmt.Errorf("%s: %w\n%s", r.cmd.Path, r.err, r.output.Bytes())
	}
	return nil
}

func monotonic() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano()), err
}

// pprofSamples adds up the samples of a profile.
func pprofSamples(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for _, s := range p.Sample {
		n += s.Value[0]
	}
	return int(n), nil
}

var bpftraceCount = regexp.MustCompile(`(?m)\]: (\d+)$`)

// bpftraceSamples adds up the counts of all stacks that bpftrace printed.
func bpftraceSamples(output []byte) (int, error) {
	sum := 0
	for _, m := range bpftraceCount.FindAllSubmatch(output, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return 0, err
		}
		sum += n
	}
	if sum == 0 {
		return 0, fmt.Errorf("bpftrace counted no samples; it says: %.500s", output)
	}
	return sum, nil
}

// perfSamples counts the samples of perf.data, each of which perf script tells the time of.
func perfSamples(ctx context.Context, h *harness, _ []byte) (int, error) {
	times, err := h.perfTimes(ctx)
	return len(times), err
}

var perfTime = regexp.MustCompile(`(\d+)\.(\d{9}):`)

// perfTimes are the times of perf's samples, by CLOCK_MONOTONIC.
func (h *harness) perfTimes(ctx context.Context) ([]time.Duration, error) {
	out, err := command(ctx, "perf", "script", "--ns", "-F", "time", "-G", "-i", h.perfData())
	if err != nil {
		return nil, err
	}
	var times []time.Duration
	for _, m := range perfTime.FindAllStringSubmatch(out, -1) {
		sec, err1 := strconv.ParseInt(m[1], 10, 64)
		ns, err2 := strconv.ParseInt(m[2], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		times = append(times, time.Duration(sec)*time.Second+time.Duration(ns))
	}
	if len(times) == 0 {
		return nil, errors.New("perf recorded no samples")
	}
	return times, nil
}
