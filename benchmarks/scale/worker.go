package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/profiler"
)

// workerCommand makes this program be the profiler of a row.
const workerCommand = "worker"

// usage is what a process has used up to a moment.
type usage struct {
	CPU, Wall time.Duration
	RSS, Peak int64 // bytes
}

// result is what a worker tells, as JSON.
type result struct {
	Began, Added          usage // before Add, after Add
	Half, Read, Written   usage // after half of the samples, after the last one, after the last profile
	Samples, Lost, Broken uint64
	Stacks                int // in the profiles: distinct ones of each process
	Profiles              int
	Bytes                 int64 // of the profiles' files
	Notes                 []string
}

// worker profiles the processes of a simulated /proc by what in gives.
func worker(in io.Reader, out io.Writer, args []string) error {
	var o workerOptions
	flags := flag.NewFlagSet(workerCommand, flag.ContinueOnError)
	flags.StringVar(&o.root, "proc", "", "simulated /proc")
	flags.StringVar(&o.to, "to", "", "directory for the profiles")
	flags.IntVar(&o.processes, "processes", 0, "number of processes")
	flags.IntVar(&o.cpus, "cpus", 0, "simulated CPUs")
	flags.IntVar(&o.rate, "rate", 0, "samples a simulated second")
	flags.IntVar(&o.samples, "samples", 0, "samples in all")
	flags.BoolVar(&o.readOnly, "read-only", false, "read the samples and do nothing with them")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var r result
	var err error
	if o.readOnly {
		err = r.read(in)
	} else {
		err = r.profile(in, &o)
	}
	return errors.Join(err, json.NewEncoder(out).Encode(&r))
}

type workerOptions struct {
	root, to                       string
	processes, rate, cpus, samples int
	readOnly                       bool
}

// read is the share of the replay itself.
func (r *result) read(in io.Reader) error {
	r.Added = used()
	replay := bpf.NewReplay(in)
	var rec bpf.Record
	for {
		if err := replay.Read(&rec, time.Time{}); errors.Is(err, bpf.ErrFlushed) {
			break
		} else if err != nil {
			return err
		}
		r.Samples++
	}
	r.Read = used()
	return nil
}

func (r *result) profile(in io.Reader, o *workerOptions) error {
	r.Began = used()
	dir, err := file.OpenDir(o.to, nil)
	if err != nil {
		return err
	}
	s := &source{Replay: bpf.NewReplay(in), r: r, perTick: max(o.rate/ticksPerSecond, 1), half: o.samples / 2}
	p, err := profiler.New(profiler.Config{Source: s, CPUs: o.cpus, TuneGC: true, ProcRoot: o.root, Exporter: &counter{dir, r}})
	if err != nil {
		return err
	}
	for i := range o.processes {
		if err := p.Add(firstPID + i); err != nil {
			return errors.Join(err, p.Close())
		}
	}
	r.Added = used()
	err = p.Run(context.Background())
	r.Written = used()
	stats := p.Stats()
	r.Samples, r.Lost, r.Broken, r.Notes = stats.Recorded, stats.Lost, stats.Broken, stats.Notes
	if err := errors.Join(err, dir.Close(), p.Close()); err != nil {
		return err
	}
	r.Bytes, err = sizeOf(o.to)
	return err
}

// ticksPerSecond is how often the profiler looks around while the kernel gives nothing; the replay never does, so
// that it is made to, by simulated time.
const ticksPerSecond = 5

// source tells when half of the samples were read, and when the last.
type source struct {
	*bpf.Replay
	r          *result
	perTick, n int
	half       int // samples to come until then
}

func (s *source) Read(rec *bpf.Record, deadline time.Time) error {
	if s.n++; s.n%s.perTick == 0 {
		return os.ErrDeadlineExceeded
	}
	err := s.Replay.Read(rec, deadline)
	if s.half--; s.half == 0 {
		s.r.Half = used()
	}
	if errors.Is(err, bpf.ErrFlushed) {
		s.r.Read = used()
	}
	return err
}

// counter counts what is in the profiles.
type counter struct {
	*file.Exporter
	r *result
}

func (c *counter) Export(ctx context.Context, p *export.Profile) error {
	c.r.Profiles++
	c.r.Stacks += len(p.Data.Sample)
	return c.Exporter.Export(ctx, p)
}

// used is what this process has used so far. Fields that the kernel does not tell are 0, which it does.
func used() (u usage) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err == nil {
		u.CPU = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	u.Wall, _ = agents.Monotonic()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return u
	}
	fields := agents.ParseFields(b)
	u.RSS, u.Peak = kilobytes(fields["VmRSS"]), kilobytes(fields["VmHWM"])
	return u
}

func kilobytes(s string) int64 {
	kb, err := strconv.ParseInt(strings.TrimSuffix(s, " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}

func sizeOf(dir string) (sum int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			return 0, fmt.Errorf("size of a profile: %w", err)
		}
		sum += info.Size()
	}
	return sum, nil
}
