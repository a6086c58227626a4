package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/profiler"
)

// recordOptions are the flags of record, and the program behind --.
type recordOptions struct {
	pids             []int
	comms, exes      []string
	duration         time.Duration // 0: until the program exits
	frequency        int
	output, format   string
	kinds            []string
	event            string
	noKernel, merge  bool
	pgo, goid, tid   bool
	asRoot, quiet    bool
	unpublished      bool
	onOOM            bool
	allocSource      string
	allocInterval    int64
	allocBudget      float64
	wallFrequency    float64
	states, reasons  []string    // of goroutines, for wall
	maxOverhead      percentFlag // 0: no limit
	program          []string
	durationExplicit bool

	frequencyExplicit bool
	core              coreOptions
	send              sendOptions
}

const maxFrequency = 10000

// The words that flags take. Later kinds of profiles are added here.
func knownKinds() []string {
	return []string{kindCPU, profiler.KindHeap, profiler.KindAllocs, profiler.KindBlock, profiler.KindMutex, profiler.KindWall, profiler.KindGoroutine}
}

const kindCPU = profiler.KindCPU

// memoryKinds are those of the kinds asked for that the runtime's own records answer.
func (o *recordOptions) memoryKinds() []string {
	return slices.DeleteFunc(slices.Clone(o.kinds), func(kind string) bool {
		return kind == kindCPU || kind == profiler.KindWall || kind == profiler.KindAllocs && o.allocSource == sourceProbe
	})
}

// cpu: a CPU profile is asked for.
func (o *recordOptions) cpu() bool { return slices.Contains(o.kinds, kindCPU) }

// wall: what goroutines do is asked for.
func (o *recordOptions) wall() bool { return slices.Contains(o.kinds, profiler.KindWall) }

// allocs: allocations are asked for.
func (o *recordOptions) allocs() bool { return slices.Contains(o.kinds, profiler.KindAllocs) }

// The values of --alloc-source.
const (
	sourceAuto  = "auto"
	sourceRead  = "read"
	sourceProbe = "probe"
)

func knownSources() []string { return []string{sourceAuto, sourceRead, sourceProbe} }

// atOnce: there is nothing to wait for.
func (o *recordOptions) atOnce() bool {
	return !o.durationExplicit && !o.onOOM && !slices.ContainsFunc(o.kinds, func(kind string) bool {
		return !slices.Contains([]string{profiler.KindHeap, profiler.KindBlock, profiler.KindMutex, profiler.KindGoroutine}, kind)
	})
}

func knownFormats() []string {
	return []string{string(file.Pprof), string(file.Folded), string(file.Text)}
}
func knownEvents() []string { return []string{"auto", "cpu-clock", "cycles"} }

func newRecord() *cobra.Command {
	var o recordOptions
	c := &cobra.Command{
		Use:     "record [flags] {-p PID | --comm NAME | --exe GLOB | -- PROGRAM [ARG...]}",
		Short:   "Sample Go processes and write profiles",
		Long:    recordLong,
		Example: recordExample,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.arguments(args, c.ArgsLenAtDash()); err != nil {
				return err
			}
			o.durationExplicit, o.frequencyExplicit = c.Flags().Changed("duration"), c.Flags().Changed("frequency")
			if err := o.check(); err != nil {
				return err
			}
			return record(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), &o)
		},
	}
	o.flags(c)
	return c
}

func (o *recordOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntSliceVarP(&o.pids, "pid", "p", nil, "process to sample; repeat or separate by commas")
	f.StringArrayVar(&o.comms, "comm", nil, "sample Go processes whose name (comm) matches this pattern; repeatable")
	f.StringArrayVar(&o.exes, "exe", nil, "sample Go processes whose executable's path matches this pattern; repeatable")
	f.DurationVarP(&o.duration, "duration", "d", 10*time.Second, "how long, such as 30s; a program behind -- is sampled until it exits unless this is given, heap, block, mutex and goroutine are read at once")
	f.IntVarP(&o.frequency, "frequency", "F", 99, "samples per second and CPU, 1 to 10000")
	f.StringVarP(&o.output, "output", "o", "", "file, directory for several profiles, or - for standard output")
	f.StringVar(&o.format, "format", "pprof", strings.Join(knownFormats(), ", "))
	f.StringSliceVarP(&o.kinds, "type", "t", []string{"cpu"}, "kinds of profiles: "+strings.Join(knownKinds(), ", "))
	f.StringVar(&o.event, "event", "auto", "what triggers samples: cycles (hardware), cpu-clock (software), auto (cycles where there are any)")
	f.BoolVar(&o.noKernel, "no-kernel", false, "leave kernel functions out")
	f.BoolVar(&o.merge, "merge", false, "one profile for all processes")
	f.BoolVar(&o.pgo, "pgo", false, "a profile for go build -pgo: no kernel functions, default output default.pgo")
	f.BoolVar(&o.goid, "goid", false, "label samples with the goroutine's number")
	f.BoolVar(&o.tid, "tid", false, "label samples with the thread's number")
	f.BoolVar(&o.unpublished, "include-unpublished", false, "heap, allocs: also what happened since the garbage collection before the last")
	f.BoolVar(&o.onOOM, "on-oom", false, "heap: wait until the kernel kills a process for lack of memory, and write its heap of then")
	f.StringVar(&o.allocSource, "alloc-source", sourceAuto, "where allocs comes from: read (the runtime's records), probe (its code), auto (probe where there are no records)")
	f.Int64Var(&o.allocInterval, "alloc-interval", bpf.DefaultAllocInterval, "allocs by probes: bytes of allocation for each sample, on average")
	f.Float64Var(&o.allocBudget, "alloc-budget", 0.7, "allocs by probes: percent of one CPU that they may cost a process; above, they are there for a part of the time; 0: no limit")
	f.Float64Var(&o.wallFrequency, "wall-frequency", 19, "wall: snapshots per second of a process with up to 1,000 goroutines, 0.01 to 1000")
	f.StringSliceVar(&o.states, "state", nil, "wall: only goroutines in one of these states")
	f.StringArrayVar(&o.reasons, "reason", nil, "wall: only goroutines that wait for this; repeatable")
	f.Var(&o.maxOverhead, "max-overhead", "what all of this may cost, such as 2%, of the time of the machine's CPUs: the rates of cpu and allocs adapt to it each second, "+
		"cpu's up to -F, without it up to 999 Hz")
	f.BoolVar(&o.asRoot, "as-root", false, "under sudo, run the program behind -- as root all the same")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress and no table of hot functions; errors and lost samples are still told")
	o.core.flags(c)
	o.send.flags(c)
	complete(c, "type", words(knownKinds()))
	complete(c, "format", words(knownFormats()))
	complete(c, "event", words(knownEvents()))
	complete(c, "alloc-source", words(knownSources()))
	complete(c, "state", words(goroutineStates()))
	complete(c, "pid", completePIDs)
}

func complete(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // the flag does not exist, or has a function: a mistake in this file
	}
}

func words(words []string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// arguments takes what is behind --; dash is how many arguments stand before it, -1 where there is none.
func (o *recordOptions) arguments(args []string, dash int) error {
	switch {
	case dash < 0 && len(args) > 0, dash > 0:
		return usagef("unexpected argument %q; processes are chosen by -p, --comm or --exe, a program to run stands behind --", args[0])
	case dash == 0 && len(args) == 0:
		return usagef("no program behind --")
	}
	o.program = args
	return nil
}

// check refuses values that make no sense and fills defaults in. All its errors are usage errors.
func (o *recordOptions) check() error {
	for _, f := range []func() error{o.checkTargets, o.checkSampling, o.checkKinds, o.checkCore, o.checkFormat, o.send.check} {
		if err := f(); err != nil {
			return usageError{err}
		}
	}
	return nil
}

func (o *recordOptions) checkTargets() error {
	chosen := len(o.pids) + len(o.comms) + len(o.exes)
	if err := o.core.check(chosen+len(o.program) > 0); err != nil || o.core.file != "" {
		return err
	}
	switch {
	case chosen > 0 && len(o.program) > 0:
		return errors.New("choose either running processes or a program behind --, not both")
	case chosen == 0 && len(o.program) == 0:
		return errors.New("nothing to record: name processes by -p, --comm or --exe, or a program behind --")
	case o.asRoot && len(o.program) == 0:
		return errors.New("--as-root is for a program behind --")
	}
	for _, pid := range o.pids {
		if pid <= 0 {
			return fmt.Errorf("%d is no PID", pid)
		}
	}
	for _, pattern := range slices.Concat(o.comms, o.exes) {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("bad pattern %q", pattern)
		}
	}
	slices.Sort(o.pids)
	o.pids = slices.Compact(o.pids)
	return nil
}

func (o *recordOptions) checkSampling() error {
	if o.frequency < 1 || o.frequency > maxFrequency {
		return fmt.Errorf("frequency %d is not in 1 to %d", o.frequency, maxFrequency)
	}
	if o.duration <= 0 {
		return fmt.Errorf("duration %v is not positive", o.duration)
	}
	if !slices.Contains(knownEvents(), o.event) {
		return fmt.Errorf("unknown event %q; known are %s", o.event, strings.Join(knownEvents(), ", "))
	}
	if o.maxOverhead > 0 && !o.cpu() && !o.wall() && !o.allocs() {
		return errors.New("--max-overhead is for what is sampled, cpu, allocs and wall: what is read takes but a moment")
	}
	if !o.durationExplicit && (len(o.program) > 0 || o.onOOM) {
		o.duration = 0
	}
	return nil
}

func (o *recordOptions) checkKinds() error {
	if len(o.kinds) == 0 {
		return errors.New("no kind of profile given to --type")
	}
	for _, kind := range o.kinds {
		if !slices.Contains(knownKinds(), kind) {
			return fmt.Errorf("unknown kind of profile %q; known are %s", kind, strings.Join(knownKinds(), ", "))
		}
	}
	slices.Sort(o.kinds)
	o.kinds = slices.Compact(o.kinds)
	if err := o.checkWall(); err != nil {
		return err
	}
	if o.onOOM {
		return o.checkOnOOM()
	}
	memory := o.memoryKinds()
	switch {
	case !slices.Contains(knownSources(), o.allocSource):
		return fmt.Errorf("unknown source of allocs %q; known are %s", o.allocSource, strings.Join(knownSources(), ", "))
	case o.allocInterval < 1 || o.allocInterval > bpf.MaxAllocInterval:
		return fmt.Errorf("--alloc-interval %d is not in 1 to %d", o.allocInterval, bpf.MaxAllocInterval)
	case !(o.allocBudget >= 0 && o.allocBudget <= 100):
		return fmt.Errorf("--alloc-budget %v is not in 0 to 100", o.allocBudget)
	case len(memory) > 0 && len(o.program) > 0 && !o.durationExplicit:
		return fmt.Errorf("%s is read from a process that runs: say with -d when, or start the program by itself and use -p", memory[0])
	case o.unpublished && !slices.Contains(memory, profiler.KindHeap) && !slices.Contains(memory, profiler.KindAllocs):
		return errors.New("--include-unpublished is for heap and allocs")
	}
	return nil
}

func (o *recordOptions) checkWall() error {
	for _, s := range o.states {
		if !slices.Contains(goroutineStates(), s) {
			return fmt.Errorf("unknown state %q; known are %s", s, strings.Join(goroutineStates(), ", "))
		}
	}
	switch {
	case !(o.wallFrequency >= 0.01 && o.wallFrequency <= 1000):
		return fmt.Errorf("--wall-frequency %v is not in 0.01 to 1000", o.wallFrequency)
	case !o.wall() && len(o.states)+len(o.reasons) > 0:
		return errors.New("--state and --reason are for wall")
	}
	return nil
}

func (o *recordOptions) checkOnOOM() error {
	switch {
	case !slices.Equal(o.kinds, []string{profiler.KindHeap}):
		return errors.New("--on-oom is for -t heap, and for nothing else at the same time")
	case len(o.program) > 0:
		return errors.New("--on-oom is for processes that run: start the program by itself and use -p")
	case o.merge:
		return errors.New("--on-oom writes the heap of each process as it is killed: there is nothing to --merge")
	}
	return nil
}

func (o *recordOptions) checkFormat() error {
	if !slices.Contains(knownFormats(), o.format) {
		return fmt.Errorf("unknown format %q; known are %s", o.format, strings.Join(knownFormats(), ", "))
	}
	if !o.pgo {
		return nil
	}
	if o.format != "pprof" {
		return fmt.Errorf("--pgo writes pprof, not %s: go build -pgo reads nothing else", o.format)
	}
	if !slices.Equal(o.kinds, []string{"cpu"}) {
		return errors.New("--pgo wants CPU profiles only")
	}
	o.noKernel = true
	return nil
}

// completePIDs offers the Go processes that can be read.
func completePIDs(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var words []string
	all, err := discover.NewInspector(procRoot).All(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, p := range all.Found {
		words = append(words, fmt.Sprintf("%d\t%s", p.PID, discover.Printable(p.Comm)))
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// record does what the checked options say. Everything that can be refused is refused before the first sample, the
// cheapest first: processes, output, the kernel's consent.
func record(ctx context.Context, stdout, stderr io.Writer, o *recordOptions) error {
	dropCode()
	targets, err := chooseTargets(ctx, stderr, o)
	if err != nil {
		return err
	}
	sigs := watchSignals(len(o.program) > 0) // from here on there is something to clean up
	defer sigs.close()
	r, err := newRecording(stdout, stderr, o, targets)
	if err != nil {
		return err
	}
	defer r.close()
	return r.run(ctx, targets, sigs)
}
