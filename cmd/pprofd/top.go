package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/pprofd/pprofd/cmd/pprofd/top"
	"github.com/pprofd/pprofd/internal/discover"
)

// topOptions are the flags of top.
type topOptions struct {
	pid        int
	comm       string
	interval   time.Duration
	frequency  int
	once       bool
	noColor    bool
	cum, lines bool
	goroutines bool
}

func newTop() *cobra.Command {
	var o topOptions
	c := &cobra.Command{
		Use:   "top {-p PID | --comm NAME}",
		Short: "Watch a process live: hottest functions, goroutines by what they wait for, heap, GC",
		Long: `Top shows on one screen, refreshed each second, where the CPU time of a Go process goes, what its goroutines do and wait for, and
what watching costs. Nothing in the process is stopped or written.

Keys: q quits, c and f sort by cum or flat, l shows lines of code, g goroutines, space pauses, arrows scroll, ? explains the rest.

Percents are of one CPU: 200% is two CPUs' time. Those of functions are of the last 5 refreshes; flat and cum in seconds are all that
was sampled since top began. Goroutines are counted each second, the less often the more there are: reading takes at most 2 % of a CPU.

Where standard output is no terminal, or with --once, it samples for one --interval, prints one screen as text, and ends.`,
		Example: `  sudo pprofd top -p 4242
  sudo pprofd top --comm api                            # the only process of that name
  sudo pprofd top -p 4242 --once --interval 10s > now.txt`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usageError{err}
			}
			return watchTop(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), &o)
		},
	}
	o.flags(c)
	return c
}

func (o *topOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVarP(&o.pid, "pid", "p", 0, "process to watch")
	f.StringVar(&o.comm, "comm", "", "watch the Go process whose name (comm) matches this pattern: there must be exactly one")
	f.DurationVar(&o.interval, "interval", time.Second, "between two refreshes, from 200ms")
	f.IntVarP(&o.frequency, "frequency", "F", 99, "samples per second and CPU, 1 to 10000")
	f.BoolVar(&o.once, "once", false, "print one screen as text and end")
	f.BoolVar(&o.noColor, "no-color", false, "no colours; so does NO_COLOR in the environment")
	f.BoolVar(&o.cum, "cum", false, "begin sorted by cum")
	f.BoolVar(&o.lines, "lines", false, "begin with lines of code")
	f.BoolVar(&o.goroutines, "goroutines", false, "begin with goroutines")
	complete(c, "pid", completePIDs)
}

const leastInterval = 200 * time.Millisecond

func (o *topOptions) check() error {
	targets := recordOptions{}
	switch {
	case o.pid < 0:
		return fmt.Errorf("%d is no PID", o.pid)
	case o.pid == 0 && o.comm == "":
		return errors.New("nothing to watch: name a process by -p or --comm")
	case o.pid != 0 && o.comm != "":
		return errors.New("choose a process by -p or by --comm, not both")
	case o.interval < leastInterval || o.interval > time.Hour:
		return fmt.Errorf("--interval %v is not in %v to 1h", o.interval, leastInterval)
	case o.frequency < 1 || o.frequency > maxFrequency:
		return fmt.Errorf("frequency %d is not in 1 to %d", o.frequency, maxFrequency)
	case o.comm != "":
		targets.comms = []string{o.comm}
	default:
		targets.pids = []int{o.pid}
	}
	return targets.checkTargets()
}

// target is the one process that is asked for.
func (o *topOptions) target(ctx context.Context, stderr io.Writer) (*discover.Process, error) {
	targets := &recordOptions{}
	if o.comm != "" {
		targets.comms = []string{o.comm}
	} else {
		targets.pids = []int{o.pid}
	}
	found, err := chooseTargets(ctx, stderr, targets)
	if err != nil {
		return nil, err
	}
	if len(found) == 1 {
		return found[0], nil
	}
	pids := make([]string, 0, len(found))
	for _, p := range found {
		pids = append(pids, fmt.Sprint(p.PID))
	}
	return nil, fmt.Errorf("--comm %q matches %d processes: %s; choose one by -p", o.comm, len(found), strings.Join(pids, ", "))
}

// watchTop does what the checked options say.
func watchTop(ctx context.Context, stdout, stderr io.Writer, o *topOptions) error {
	dropCode()
	p, err := o.target(ctx, stderr)
	if err != nil {
		return err
	}
	sigs := watchSignals(false)
	defer sigs.close()
	terminal, _ := stdout.(*os.File)
	once := o.once || !isTerminal(stdout)
	var screen *top.Screen
	cfg := top.Config{PID: p.PID, ProcRoot: procRoot, GoVersion: p.GoVersion, Interval: o.interval, Frequency: o.frequency, Version: version()}
	if once { // what happens a second is the difference of two readings
		cfg.Reading = o.interval / 2
	}
	w, err := top.Open(cfg)
	if err != nil {
		return explainWatch(p.PID, err)
	}
	defer w.Close()
	w.Stacks(o.goroutines)
	view := top.View{Cum: o.cum, ByLine: o.lines, Goroutines: o.goroutines}
	if once {
		return printOnce(ctx, stdout, w, sigs, view)
	}
	if screen, err = top.OpenScreen(terminal, !o.noColor && os.Getenv("NO_COLOR") == ""); err != nil {
		return err
	}
	defer screen.Close()
	screen.View = view
	ended, sig, err := showAll(ctx, w, screen, sigs)
	screen.Close()
	return finishTop(stdout, stderr, w, end{ended, sig, err})
}

// explainWatch names the process where the error is about it, and else says what the kernel wants.
func explainWatch(pid int, err error) error {
	if discover.Gone(err) {
		return explainPID(pid, err)
	}
	return without(explainLoad(err), fmt.Sprintf("pprofd dump -p %d shows goroutines", pid))
}

// end is how watching ended.
type end struct {
	process bool      // it has ended
	sig     os.Signal // nil: none
	err     error
}

// showAll shows snapshots until one of the ends.
func showAll(ctx context.Context, w *top.Watch, screen *top.Screen, sigs *signals) (ended bool, sig os.Signal, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	snapshots := make(chan *top.Snapshot)
	var g errgroup.Group
	g.Go(func() (err error) {
		defer cancel()
		ended, err = w.Run(ctx, func(s *top.Snapshot) {
			select {
			case snapshots <- s:
			case <-ctx.Done():
			}
		})
		return err
	})
	sig = screen.Run(ctx, w, snapshots, sigs.c)
	cancel()
	err = g.Wait()
	return ended, sig, err
}

// finishTop says on the normal screen what was seen.
func finishTop(stdout, stderr io.Writer, w *top.Watch, e end) error {
	for _, note := range w.Notes() {
		fmt.Fprintf(stderr, "pprofd: note: %s\n", discover.Printable(note))
	}
	if e.err == nil {
		_, e.err = fmt.Fprintln(stdout, discover.Printable(w.Summary(e.process)))
	}
	return e.result()
}

func (e end) result() error {
	if e.sig == nil {
		return e.err
	}
	s := signals{}
	s.react(e.sig)
	return exitError{s.code(), e.err}
}

// printOnce prints one screen.
func printOnce(ctx context.Context, stdout io.Writer, w *top.Watch, sigs *signals, view top.View) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var shot *top.Snapshot
	n := 0
	done := make(chan error, 1)
	var ended bool
	go func() {
		var err error
		ended, err = w.Run(ctx, func(s *top.Snapshot) {
			if n++; n == 2 {
				shot = s
				cancel()
			}
		})
		done <- err
	}()
	var e end
	select {
	case e.err = <-done:
	case e.sig = <-sigs.c:
		cancel()
		e.err = <-done
		return e.result()
	}
	switch {
	case e.err != nil:
		return e.err
	case shot == nil && ended:
		return errors.New(w.Summary(true))
	case shot == nil:
		return ctx.Err()
	}
	const wide = 1 << 12
	var text strings.Builder
	for _, line := range view.Lines(shot, wide, 0) {
		fmt.Fprintln(&text, line.String())
	}
	_, err := io.WriteString(stdout, text.String())
	return err
}
