package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/profiler"
)

// dumpOptions are the flags of dump.
type dumpOptions struct {
	pid                  int
	goids                []int64
	states, reasons      []string
	stuck, running       time.Duration
	labels, runtime, all bool
	asJSON               bool
	output               string
	core                 coreOptions
}

func newDump() *cobra.Command {
	var o dumpOptions
	c := &cobra.Command{
		Use:   "dump -p PID",
		Short: "Show what every goroutine of a process does and waits for, without stopping it",
		Long: `Dump reads the goroutines of a Go process from its memory: no signal, no ptrace, nothing stops. It prints those with the same
stack together, the most first: how many, what they do, for how long, and who started them. --each prints one after the other, and
--json one object a line.

The process goes on meanwhile. A goroutine that waits is shown as it was at one moment; another one as it was at another, some
milliseconds before or after. One that runs has no stack that could be read: once all is read, the BPF sampler looks where those
are that ran, for --running at most, and that is shown as of so much later. Where BPF is not permitted (CAP_BPF, CAP_PERFMON), or one
is not seen to run again, its first function is shown alone. If one changes whenever it is read, which is rare, it says so.

How long a goroutine has waited the runtime notes at garbage collections: "at least 3m0s" means that one three minutes ago was
the first to see it wait. So it may have waited for longer by the time between two of them, at most 2 minutes unless GOGC=off.
Of one that no garbage collection has seen wait yet nothing is said.

With --core it shows the goroutines of a process that has left a core file, as gcore and the kernel write them, also where those were
that ran; first that in which the process ended, and by which signal. How long they had waited is not known then.

Where reading ends early, by ^C or since the process ends, what was read is shown, as incomplete, and the exit code says so.

States: runnable, running, syscall, waiting, preempted, leaked. The reasons are those of the process's own runtime, such as
"chan receive", "select", "IO wait", "sync.Mutex.Lock". --stuck, --state, --reason and --goid must all agree; words of one flag are alternatives.`,
		Example: `  sudo pprofd dump -p 4242
  sudo pprofd dump -p 4242 --stuck 5m                     # deadlocks and leaks
  sudo pprofd dump -p 4242 --state waiting --reason 'chan receive' --labels
  sudo pprofd dump -p 4242 --json | jq -r 'select(.locked) | .goid'
  pprofd dump --core core.4242                            # of a core file
  sudo pprofd dump -p 4242 -o a.pb.gz; sleep 600; sudo pprofd dump -p 4242 -o b.pb.gz; pprofd diff a.pb.gz b.pb.gz`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usageError{err}
			}
			return dump(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), &o)
		},
	}
	o.flags(c)
	return c
}

func (o *dumpOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVarP(&o.pid, "pid", "p", 0, "process to look at")
	f.Int64SliceVar(&o.goids, "goid", nil, "only these goroutines; repeat or separate by commas")
	f.StringSliceVar(&o.states, "state", nil, "only goroutines in one of these states")
	f.StringArrayVar(&o.reasons, "reason", nil, "only goroutines that wait for this; repeatable")
	f.DurationVar(&o.stuck, "stuck", 0, "only goroutines that have waited for at least so long, such as 5m")
	f.DurationVar(&o.running, "running", 100*time.Millisecond, "look for the stacks of running goroutines with the BPF sampler, for so long at most; 0: do not")
	f.BoolVar(&o.labels, "labels", false, "with the labels of runtime/pprof; goroutines with different ones are not grouped")
	f.BoolVar(&o.runtime, "runtime", false, "the runtime's own functions and goroutines, too")
	f.BoolVar(&o.all, "each", false, "one goroutine after the other, in no order")
	f.BoolVar(&o.asJSON, "json", false, "one JSON object for each goroutine, one a line, in no order")
	f.StringVarP(&o.output, "output", "o", "", "write a goroutine profile (pprof) to this file, or - for standard output, and no text")
	o.core.flags(c)
	complete(c, "pid", completePIDs)
	complete(c, "state", words(goroutineStates()))
}

func goroutineStates() []string {
	var all []string
	for _, s := range []goruntime.State{goruntime.Runnable, goruntime.Running, goruntime.Syscall, goruntime.Waiting, goruntime.Preempted, goruntime.Leaked} {
		all = append(all, s.String())
	}
	return all
}

func (o *dumpOptions) check() error {
	if err := o.core.check(o.pid != 0); err != nil {
		return err
	}
	switch {
	case o.core.file != "" && o.stuck > 0:
		return errors.New("--stuck is for processes that run: of a core file it is not known how long goroutines had waited")
	case o.core.file == "" && o.pid == 0:
		return errors.New("nothing to look at: name a process by -p, or a core file by --core")
	case o.pid < 0:
		return fmt.Errorf("%d is no PID", o.pid)
	case o.stuck < 0:
		return fmt.Errorf("--stuck %v is negative", o.stuck)
	case o.running < 0 || o.running > time.Minute:
		return fmt.Errorf("--running %v: choose 0 to 1m", o.running)
	case o.output != "" && (o.asJSON || o.all):
		return errors.New("-o writes a profile: --json and --each are for text")
	case o.asJSON && o.all:
		return errors.New("--json and --each are two forms of the same: choose one")
	}
	for _, s := range o.states {
		if !slices.Contains(goroutineStates(), s) {
			return fmt.Errorf("unknown state %q; known are %s", s, strings.Join(goroutineStates(), ", "))
		}
	}
	return nil
}

// wants says, before its stack is read, whether a goroutine is asked for.
func (o *dumpOptions) wants(g *goruntime.Goroutine) bool {
	return (len(o.goids) == 0 || slices.Contains(o.goids, int64(g.ID))) &&
		(len(o.states) == 0 || slices.Contains(o.states, g.State.String())) &&
		(len(o.reasons) == 0 || g.State == goruntime.Waiting && slices.Contains(o.reasons, g.Reason)) &&
		(o.stuck == 0 || g.WaitSince != 0)
}

// filters are the flags by which goroutines are chosen, but for --stuck.
func (o *dumpOptions) filters() string {
	var flags []string
	for flag, n := range map[string]int{"--goid": len(o.goids), "--state": len(o.states), "--reason": len(o.reasons)} {
		if n > 0 {
			flags = append(flags, flag)
		}
	}
	slices.Sort(flags)
	return strings.Join(flags, " and ")
}

// takes says it once more, of what it was when its stack was read.
func (o *dumpOptions) takes(g *profiler.Goroutine) bool {
	return o.wants(g.Goroutine) && g.Waited >= o.stuck
}

// dump does what the checked options say.
func dump(ctx context.Context, stdout, stderr io.Writer, o *dumpOptions) error {
	var out *file.Exporter
	if o.output != "" {
		var err error
		if out, err = openOutput(stdout, o.output, string(file.Pprof)); err != nil {
			return err
		}
		defer out.Close()
	}
	reading, stop := untilSignal(ctx)
	defer stop()
	g, err := openGoroutines(reading, o)
	if err != nil {
		return err
	}
	defer g.Close()
	d := dumping{o: o, g: g, out: stdout, started: time.Now(), states: make(map[string]int)}
	d.progress = newDumpProgress(stdout, stderr, o)
	d.ended = d.read(reading)
	stop()
	d.progress.end()
	if d.ended != nil && len(d.states) == 0 {
		return explainGoroutines(d.ended)
	}
	if out != nil {
		err = d.write(ctx, out, stdout, stderr)
	} else {
		err = d.tell(stdout, stderr)
	}
	return cmp.Or(err, d.incomplete())
}

// explainGoroutines says what to do where goroutines cannot be read.
func explainGoroutines(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (%s)", err, whoMayLook())
	case errors.Is(err, goruntime.ErrNoGoroutines), errors.Is(err, goruntime.ErrUnverified):
		return fmt.Errorf("%w\n  what works all the same: pprofd record, its CPU profiles", err)
	case errors.Is(err, context.Canceled):
		return exitError{exitSignal + int(syscall.SIGINT), errors.New("interrupted before anything was read")}
	case errors.Is(err, objfile.ErrProcessGone):
		return toldError{fmt.Sprintf("the process ended, or executed another program, while it was read: %v", err), err}
	}
	return err
}

// dumping is one run of dump.
type dumping struct {
	o       *dumpOptions
	g       *profiler.Goroutines
	out     io.Writer
	started time.Time
	ended   error // why reading ended before all was read
	text    strings.Builder
	groups  profiler.GoroutineGroups
	counts  goruntime.GoroutineCounts
	states  map[string]int
	unseen  int // goroutines that wait, and that no garbage collection has seen
	waiting int

	progress *dumpProgress
}

// read reads the goroutines: into groups, or, one by one, to the output. That in which the process ended comes first.
func (d *dumping) read(ctx context.Context) (err error) {
	q := profiler.GoroutineQuery{
		Labels: d.o.labels || d.o.asJSON || d.o.output != "", System: d.o.runtime, Want: d.o.wants, Running: d.o.running,
	}
	if killed, _, _ := d.g.Killed(); killed != 0 {
		found, enough := context.WithCancel(ctx)
		defer enough()
		q.Want = func(g *goruntime.Goroutine) bool {
			if g.ID != killed {
				return false
			}
			enough()
			return d.o.wants(g)
		}
		if _, err := d.g.Read(found, q, d.visit); err != nil && (found.Err() == nil || ctx.Err() != nil) {
			return err
		}
		q.Want = func(g *goruntime.Goroutine) bool { return g.ID != killed && d.o.wants(g) }
	}
	want := q.Want
	q.Want = func(g *goruntime.Goroutine) bool { d.progress.add(); return want(g) }
	d.counts, err = d.g.Read(ctx, q, d.visit)
	return err
}

// visit takes a goroutine.
func (d *dumping) visit(g *profiler.Goroutine) error {
	if !d.o.takes(g) {
		return nil
	}
	d.count(g)
	if !d.o.asJSON && !d.o.all {
		d.groups.Add(g)
		return nil
	}
	d.text.Reset()
	if !d.o.asJSON {
		d.single(&d.text, g)
	} else if err := d.object(&d.text, g); err != nil {
		return err
	}
	_, err := io.WriteString(d.out, d.text.String())
	return err
}

func (d *dumping) count(g *profiler.Goroutine) {
	d.states[g.State.String()]++
	if g.State == goruntime.Waiting || g.State == goruntime.Syscall {
		d.waiting++
		if g.Waited == 0 {
			d.unseen++
		}
	}
}

// write writes the profile.
func (d *dumping) write(ctx context.Context, out *file.Exporter, stdout, stderr io.Writer) error {
	p := d.g.Profile(&d.groups, d.started, version())
	if d.ended != nil {
		p.Data.Comments = append(p.Data.Comments, "incomplete: not all goroutines were read")
	}
	if err := errors.Join(out.Export(ctx, p), out.Close()); err != nil {
		return err
	}
	people := stdout
	if d.o.output == "-" {
		people = stderr
	}
	d.summary(people)
	tellFiles(people, out, string(file.Pprof))
	d.notes(stderr)
	return nil
}

// tell prints the groups.
func (d *dumping) tell(stdout, stderr io.Writer) error {
	defer d.notes(stderr)
	if d.o.asJSON {
		return nil
	}
	var text strings.Builder
	d.summary(&text)
	if !d.o.all {
		for _, group := range d.groups.Sorted() {
			fmt.Fprintln(&text)
			d.group(&text, group)
			if text.Len() > 1<<16 {
				if _, err := io.WriteString(stdout, text.String()); err != nil {
					return err
				}
				text.Reset()
			}
		}
	}
	_, err := io.WriteString(stdout, text.String())
	return err
}

// summary is what there is in all.
func (d *dumping) summary(w io.Writer) {
	total := 0
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(d.states)) {
		total += d.states[state]
		parts = append(parts, fmt.Sprintf("%d %s", d.states[state], state))
	}
	fmt.Fprintf(w, "process %d (%s), %s: ", d.g.PID(), discover.Printable(d.g.Comm()), discover.Printable(d.g.Version()))
	if d.ended != nil {
		fmt.Fprint(w, "incomplete, ")
	}
	fmt.Fprintf(w, "%d goroutines", total)
	if len(parts) > 0 {
		fmt.Fprintf(w, " (%s)", strings.Join(parts, ", "))
	}
	fmt.Fprintf(w, ", read in %v\n", d.g.Took().Round(100*time.Microsecond))
	d.killed(w)
}

// killed says how a process ended that has left a core file.
func (d *dumping) killed(w io.Writer) {
	goid, by, interrupted := d.g.Killed()
	if by.Number == 0 {
		return
	}
	fmt.Fprintf(w, "ended by %v", by)
	switch {
	case by.Raised():
		fmt.Fprintf(w, " at address %#x", by.Addr)
	case by.Sender == d.g.PID():
		fmt.Fprint(w, ", which it sent itself")
	case by.Sender > 0:
		fmt.Fprintf(w, ", sent by process %d", by.Sender)
	}
	if goid != 0 {
		fmt.Fprintf(w, ", in goroutine %d", goid)
	}
	switch {
	case interrupted.Raised():
		fmt.Fprintf(w, ", after %v at address %#x", interrupted, interrupted.Addr)
	case interrupted.Sender > 0 && interrupted.Sender != d.g.PID():
		fmt.Fprintf(w, ", after %v by process %d", interrupted, interrupted.Sender)
	}
	fmt.Fprintln(w)
}

// notes tell what the user should know of how right it is.
func (d *dumping) notes(w io.Writer) {
	if n := d.counts.Inconsistent; n > 0 {
		fmt.Fprintf(w, "pprofd: note: %d goroutines changed whenever they were read: their stacks are not known\n", n)
	}
	if n := d.groups.Left; n > 0 {
		fmt.Fprintf(w, "pprofd: note: %d goroutines are left out: there are too many different stacks\n", n)
	}
	if d.o.stuck > 0 && d.counts.All > 0 && len(d.states) == 0 {
		fmt.Fprintln(w, "pprofd: note: no goroutine is known to have waited for so long; how long they wait is known from garbage collections only")
	}
	if f := d.o.filters(); f != "" && d.ended == nil && len(d.states) == 0 {
		fmt.Fprintf(w, "pprofd: note: there is no goroutine that %s would choose\n", f)
	}
	for _, note := range d.g.Notes() {
		fmt.Fprintf(w, "pprofd: note: %s\n", discover.Printable(note))
	}
}
