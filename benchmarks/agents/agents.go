package agents

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

	"github.com/pprofd/pprofd/benchmarks/board"
)

// Agent is a profiler under measurement.
type Agent struct {
	Name    string
	Program func(o Sampling) string // the kernel's name of the BPF program that takes samples; nil: there is none
	Command func(ctx context.Context, h *Harness, o Sampling) *exec.Cmd
	Samples func(ctx context.Context, h *Harness, output []byte) (int, error) // recorded, from what the agent left
}

// Sampling is what an agent is asked to do.
type Sampling struct {
	PID, Hz int
	D       time.Duration
}

// The bpftrace program is the usual one: count by user and kernel stack. Its limit is 127 frames of each.
const bpftraceProgram = "profile:hz:%d /pid==%d/ { @[ustack(perf,127), kstack(perf,127)] = count(); } interval:ms:%d { exit(); }"

func All() []Agent {
	return []Agent{
		{"pprofd", func(Sampling) string { return "cpu_sample" },
			func(ctx context.Context, h *Harness, o Sampling) *exec.Cmd {
				return exec.CommandContext(ctx, h.PProfd, "record", "-p", strconv.Itoa(o.PID), "-F", strconv.Itoa(o.Hz),
					"-d", o.D.String(), "--event", "cpu-clock", "-o", h.profile())
			},
			func(_ context.Context, h *Harness, _ []byte) (int, error) { return pprofSamples(h.profile()) }},
		{"bpftrace", func(o Sampling) string { return strconv.Itoa(o.Hz) }, // of profile:hz:99
			func(ctx context.Context, _ *Harness, o Sampling) *exec.Cmd {
				return exec.CommandContext(ctx, "bpftrace", "-e", fmt.Sprintf(bpftraceProgram, o.Hz, o.PID, o.D.Milliseconds()))
			},
			func(_ context.Context, _ *Harness, output []byte) (int, error) { return bpftraceSamples(output) }},
		{"perf", nil,
			func(ctx context.Context, h *Harness, o Sampling) *exec.Cmd {
				return exec.CommandContext(ctx, "perf", "record", "-e", "cpu-clock", "--call-graph", "fp", "-k", "CLOCK_MONOTONIC",
					"-F", strconv.Itoa(o.Hz), "-p", strconv.Itoa(o.PID), "-o", h.perfData(), "--", "sleep",
					strconv.FormatFloat(o.D.Seconds(), 'f', 3, 64))
			},
			perfSamples},
	}
}

func (h *Harness) profile() string  { return filepath.Join(h.Dir, "cpu.pb.gz") }
func (h *Harness) perfData() string { return filepath.Join(h.Dir, "perf.data") }

// Run is an agent at work.
type Run struct {
	Cmd     *exec.Cmd
	Started time.Duration // just before exec, by CLOCK_MONOTONIC
	Output  bytes.Buffer
	Done    chan struct{} // closed when it has ended
	Err     error         // valid then, as output is
}

// Run starts an agent.
func (h *Harness) Run(ctx context.Context, a Agent, o Sampling) (*Run, error) {
	r := &Run{Cmd: a.Command(ctx, h, o), Done: make(chan struct{})}
	r.Cmd.Stdout, r.Cmd.Stderr = &r.Output, &r.Output
	var err error
	if r.Started, err = Monotonic(); err != nil {
		return nil, err
	}
	if err := r.Cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(r.Done)
		r.Err = r.Cmd.Wait()
	}()
	return r, nil
}

func (r *Run) Wait() error {
	<-r.Done
	if r.Err != nil {
		return fmt.Errorf("%s: %w\n%s", r.Cmd.Path, r.Err, r.Output.Bytes())
	}
	return nil
}

func Monotonic() (time.Duration, error) {
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
func perfSamples(ctx context.Context, h *Harness, _ []byte) (int, error) {
	times, err := h.PerfTimes(ctx)
	return len(times), err
}

var perfTime = regexp.MustCompile(`(\d+)\.(\d{9}):`)

// PerfTimes are the times of perf's samples, by CLOCK_MONOTONIC.
func (h *Harness) PerfTimes(ctx context.Context) ([]time.Duration, error) {
	out, err := board.Command(ctx, "perf", "script", "--ns", "-F", "time", "-G", "-i", h.perfData())
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
