// Package agents runs the profilers that benchmarks compare: pprofd, perf, bpftrace, and any other.
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
	"strings"
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
	PIDs    []int // more than one, instead of PID
	D       time.Duration
}

// list is the processes as most agents want them, separated by commas.
func (o *Sampling) list() string {
	if len(o.PIDs) == 0 {
		return strconv.Itoa(o.PID)
	}
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(o.PIDs)), ","), "[]")
}

// The bpftrace program is the usual one: count by user and kernel stack. Its limit is 127 frames of each.
const bpftraceProgram = "%sprofile:hz:%d /%s/ { @[ustack(perf,127), kstack(perf,127)] = count(); } interval:ms:%d { exit(); }"

func (o *Sampling) bpftrace() string {
	begin, filter := "", fmt.Sprintf("pid==%d", o.PID)
	if len(o.PIDs) > 0 {
		filter = "@wanted[pid]"
		for _, pid := range o.PIDs {
			begin += fmt.Sprintf("@wanted[%d] = 1; ", pid)
		}
		begin = "BEGIN { " + begin + "} END { clear(@wanted); } "
	}
	return fmt.Sprintf(bpftraceProgram, begin, o.Hz, filter, o.D.Milliseconds())
}

// All are the agents that every benchmark compares.
func All() []Agent {
	return []Agent{
		{"pprofd", func(Sampling) string { return "cpu_sample" },
			func(ctx context.Context, h *Harness, o Sampling) *exec.Cmd {
				return exec.CommandContext(ctx, h.PProfd, "record", "-p", o.list(), "-F", strconv.Itoa(o.Hz),
					"-d", o.D.String(), "--event", "cpu-clock", "-o", h.output(len(o.PIDs) > 0))
			},
			func(_ context.Context, h *Harness, _ []byte) (int, error) {
				stacks, err := h.Profiled()
				return stacks.Samples, err
			}},
		{"bpftrace", func(o Sampling) string { return strconv.Itoa(o.Hz) }, // of profile:hz:99
			func(ctx context.Context, _ *Harness, o Sampling) *exec.Cmd {
				cmd := exec.CommandContext(ctx, "bpftrace", "-e", o.bpftrace())
				// Without it bpftrace reads the symbols of a program anew for each stack: a minute of CPU time for one of 10 s.
				cmd.Env = append(os.Environ(), "BPFTRACE_CACHE_USER_SYMBOLS=1")
				return cmd
			},
			func(_ context.Context, _ *Harness, output []byte) (int, error) { return bpftraceSamples(output) }},
		{"perf", nil,
			func(ctx context.Context, h *Harness, o Sampling) *exec.Cmd {
				return exec.CommandContext(ctx, "perf", "record", "-e", "cpu-clock", "--call-graph", "fp", "-k", "CLOCK_MONOTONIC",
					"-F", strconv.Itoa(o.Hz), "-p", o.list(), "-o", h.perfData(), "--", "sleep",
					strconv.FormatFloat(o.D.Seconds(), 'f', 3, 64))
			},
			perfSamples},
	}
}

func (h *Harness) perfData() string { return filepath.Join(h.Dir, "perf.data") }

// output is where pprofd writes the profile, or the profiles.
func (h *Harness) output(several bool) string {
	if several {
		return filepath.Join(h.Dir, "profiles")
	}
	return filepath.Join(h.Dir, "cpu.pb.gz")
}

// Run is an agent at work.
type Run struct {
	Cmd     *exec.Cmd
	Started time.Duration // just before exec, by CLOCK_MONOTONIC
	Output  bytes.Buffer
	Done    chan struct{} // closed when it has ended
	Err     error         // valid then, as output is
}

// urgent is how an agent runs beside many processes: among 200 that want the CPU its start would take half a minute.
const urgent = "-10"

// Run starts an agent. What pprofd wrote in an earlier run is gone then.
func (h *Harness) Run(ctx context.Context, a Agent, o Sampling) (*Run, error) {
	r := &Run{Cmd: a.Command(ctx, h, o), Done: make(chan struct{})}
	if len(o.PIDs) > 0 && r.Cmd.Err == nil {
		nice := exec.CommandContext(ctx, "nice", append([]string{"-n", urgent, r.Cmd.Path}, r.Cmd.Args[1:]...)...)
		nice.Env, nice.Dir = r.Cmd.Env, r.Cmd.Dir
		r.Cmd = nice
	}
	r.Cmd.Stdout, r.Cmd.Stderr = &r.Output, &r.Output
	err := errors.Join(os.RemoveAll(h.output(true)), os.RemoveAll(h.output(false)))
	if err != nil {
		return nil, err
	}
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

// Wait waits for the end. An agent that failed says why.
func (r *Run) Wait() error {
	<-r.Done
	if r.Err != nil {
		return fmt.Errorf("%s: %w\n%s", r.Cmd.Path, r.Err, r.Output.Bytes())
	}
	return nil
}

// Monotonic is CLOCK_MONOTONIC.
func Monotonic() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano()), err
}

// Profiled is what is in pprofd's profiles.
type Profiled struct {
	Profiles, Samples, Stacks int
	Bytes                     int64 // of the files
}

// Profiled reads what pprofd's last run has written.
func (h *Harness) Profiled() (sum Profiled, err error) {
	paths, err := filepath.Glob(filepath.Join(h.output(true), "*"))
	if err != nil {
		return sum, err
	}
	if len(paths) == 0 {
		paths = []string{h.output(false)}
	}
	for _, path := range paths {
		if err := sum.add(path); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func (sum *Profiled) add(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	p, err := profile.ParseData(b)
	if err != nil {
		return err
	}
	for _, s := range p.Sample {
		sum.Samples += int(s.Value[0])
	}
	sum.Profiles++
	sum.Stacks += len(p.Sample)
	sum.Bytes += int64(len(b))
	return nil
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
