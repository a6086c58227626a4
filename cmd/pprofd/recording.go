package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/spend"
	"github.com/pprofd/pprofd/profiler"
)

// recording is one run of record: made by newRecording, run once, closed.
type recording struct {
	o              *recordOptions
	stdout, stderr io.Writer // of people: where the table goes, and notes
	out            output
	sink           *sink
	sending        *sending // nil: no server is named
	log            *slog.Logger
	profiler       *profiler.Profiler // nil: nothing was asked for that is sampled on CPUs
	allocs         *profiler.Profiler // nil: nothing is probed for allocations
	memory         *profiler.Memory   // nil: no kind that is read
	contention     []contention       // block and mutex, each read by itself
	estimated      []estimated        // what is estimated, and why
	wall           *profiler.Wall     // nil: nothing is asked for that is seen in what goroutines do
	oom            *profiler.OOMWatch // nil: --on-oom was not given
	keeper         *spend.Keeper      // nil: --max-overhead was not given
	began          time.Time          // when sampling did
	program        string             // the path of the program behind --, or ""
	as             *identity          // whom it runs as
	child          *child             // from attach on, where there is a program
	aborted        bool
}

var errAborted = errors.New("aborted; nothing was written")

// newRecording checks the output, then loads the BPF programs. Nothing is sampled yet.
func newRecording(stdout, stderr io.Writer, o *recordOptions, targets []*discover.Process) (*recording, error) {
	beModest()
	r := &recording{o: o, stdout: stdout, stderr: stderr}
	var err error
	if len(o.program) > 0 {
		if err := r.findProgram(); err != nil {
			return nil, err
		}
	}
	if r.out, err = planOutput(o, max(len(targets), 1), isTerminal(stdout), time.Now()); err != nil {
		return nil, err
	}
	if r.sink, err = newSink(r.out, o, stdout); err != nil {
		return nil, err
	}
	if r.sending, err = newSending(o, targets); err != nil {
		r.sink.Close()
		return nil, err
	}
	r.sink.sending = r.sending
	if r.out.standard() || len(o.program) > 0 {
		r.stdout = stderr // standard output is the profile's, or the program's
	}
	if err := r.open(); err != nil {
		r.sending.close()
		r.sink.Close()
		return nil, err
	}
	return r, nil
}

// open prepares what makes the profiles: the BPF programs only where something is to be sampled.
func (r *recording) open() (err error) {
	r.log = slog.New(slog.NewTextHandler(r.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r.openMemory()
	if r.o.allocs() && r.o.allocSource == sourceProbe {
		if err := r.openAllocs(); err != nil {
			return err
		}
	}
	if r.o.wall() {
		r.openWall()
	}
	if r.o.cpu() || r.wall != nil && r.wall.Running() {
		if r.profiler, err = r.newProfiler(profiler.KindCPU); err != nil {
			if slices.Equal(r.o.kinds, []string{profiler.KindWall}) {
				err = without(err, "--state runnable,syscall,waiting, which leaves running goroutines out")
			}
			return err
		}
	}
	r.keeper, err = r.newKeeper()
	return err
}

// openAllocs loads what probes allocations, unless that was done.
func (r *recording) openAllocs() (err error) {
	if r.allocs == nil {
		r.allocs, err = r.newProfiler(profiler.KindAllocs)
	}
	return err
}

func (r *recording) newProfiler(kind string) (*profiler.Profiler, error) {
	p, err := profiler.New(profiler.Config{
		TuneGC:        true,
		Log:           r.log,
		Kind:          kind,
		Frequency:     r.o.frequency,
		Event:         eventName(r.o.event),
		NoKernel:      r.o.noKernel,
		Goid:          r.o.goid,
		TID:           r.o.tid,
		Merge:         r.o.merge,
		Exporter:      r.exporter(kind),
		ProcRoot:      procRoot,
		Version:       version(),
		AllocInterval: r.o.allocInterval,
		AllocBudget:   cmp.Or(r.o.allocBudget/100, -1),
		Comments:      r.comments,
	})
	if err != nil {
		return nil, explainLoad(err)
	}
	return p, nil
}

// exporter takes the profiles of a kind that is sampled. Those of CPU time are a part of wall, too.
func (r *recording) exporter(kind string) export.Exporter {
	switch {
	case kind != profiler.KindCPU || r.wall == nil:
		return r.sink
	case r.o.cpu():
		return r.wall.CPU(r.sink)
	}
	return r.wall.CPU(nil)
}

// profilers are those that sample.
func (r *recording) profilers() (all []*profiler.Profiler) {
	for _, p := range []*profiler.Profiler{r.profiler, r.allocs} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

func eventName(event string) string {
	if event == "auto" {
		return ""
	}
	return event
}

func (r *recording) findProgram() (err error) {
	if r.program, err = findProgram(r.o.program[0]); err != nil || r.o.asRoot {
		return err
	}
	r.as, err = sudoUser(os.Geteuid(), os.Getenv)
	return err
}

// explainLoad adds the way out to errors of the kernel.
func explainLoad(err error) error {
	h, hostErr := thisHost()
	if hostErr != nil {
		return err
	}
	if fix := fixOf(err, h); fix != "" {
		return fmt.Errorf("%w\n  fix: %s", err, strings.ReplaceAll(fix, "; or ", "\n  or "))
	}
	return err
}

// without adds what else can be done where err says that the right is missing to load BPF programs.
func without(err error, what string) error {
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w\n  without that: %s", err, what)
}

// fixOf is what to do about an error of loading, attaching or probing; "" where nothing is known.
func fixOf(err error, h *host) string {
	if errors.Is(err, os.ErrPermission) {
		return h.perfFix(os.ErrPermission)
	}
	return ""
}

// run samples from attach to the end that signals, the duration or the targets set, and tells the result.
func (r *recording) run(ctx context.Context, targets []*discover.Process, sigs *signals) error {
	if err := r.attach(targets); err != nil {
		return err
	}
	if sigs.early() {
		return exitError{sigs.code(), errAborted}
	}
	sigs.child = r.child
	err := r.sample(ctx, sigs)
	if errors.Is(err, errAborted) {
		r.aborted = true
		return exitError{sigs.code(), err}
	}
	if err == nil || len(r.sink.Names()) > 0 { // what is written is told of, whatever is not
		err = errors.Join(err, r.tell(r.stats()))
	}
	err = errors.Join(err, r.finishSending(sigs))
	if r.child == nil {
		return err
	}
	return r.childResult(err, r.awaitChild(sigs))
}

// attach makes the processes targets, or starts the program's process, which waits.
func (r *recording) attach(targets []*discover.Process) (err error) {
	if r.o.core.file != "" {
		for _, m := range r.memories() {
			if err := m.AddCore(r.o.core.file, r.o.core.exe); err != nil {
				return err
			}
		}
		return nil
	}
	for _, p := range targets {
		if err := r.add(p.PID); err != nil {
			return explainPID(p.PID, err)
		}
	}
	if r.o.onOOM {
		return r.watchOOM(len(targets))
	}
	if r.program == "" {
		return nil
	}
	if r.child, err = spawn(r.program, r.as); err != nil {
		return err
	}
	for _, p := range r.profilers() {
		if err := p.AddAtExec(r.child.pid(), r.program); err != nil {
			return err
		}
	}
	if r.wall != nil {
		return r.wall.AddAtExec(r.child.pid())
	}
	return nil
}

// add makes a running process a target.
func (r *recording) add(pid int) error {
	if r.profiler != nil {
		if err := r.profiler.Add(pid); err != nil {
			return err
		}
	}
	if r.wall != nil {
		if err := r.wall.Add(pid); err != nil {
			return explainGoroutines(err)
		}
	}
	if err := r.addContention(pid); err != nil {
		return err
	}
	if r.memory != nil {
		if err := r.memory.Add(pid); err != nil {
			return r.addUnread(pid, err)
		}
		if r.o.merge && r.allocs != nil && r.o.allocSource == sourceAuto {
			return errMixed
		}
	}
	if r.allocs != nil && r.o.allocSource == sourceProbe {
		return r.allocs.Add(pid)
	}
	return nil
}

var errMixed = errors.New("--merge cannot join what is read with what is probed: --alloc-source probe probes all")

// addUnread probes a process whose runtime keeps no memory profile, which is what err says, where that helps.
func (r *recording) addUnread(pid int, err error) error {
	if !profiler.NotRead(err) || r.o.allocSource != sourceAuto || !slices.Equal(r.o.memoryKinds(), []string{profiler.KindAllocs}) {
		return err
	}
	if r.o.merge && r.memory.Targets() > 0 {
		return fmt.Errorf("%w; %w", err, errMixed)
	}
	if errOpen := r.openAllocs(); errOpen != nil {
		return errors.Join(err, errOpen)
	}
	return r.allocs.Add(pid)
}

// watchOOM begins to wait for the kernel to kill one of n processes.
func (r *recording) watchOOM(n int) (err error) {
	if r.oom, err = r.memory.WatchOOM(); err != nil {
		return explainLoad(err)
	}
	if !r.o.quiet {
		fmt.Fprintf(r.stderr, "waiting for the kernel to kill one of %d processes for lack of memory; Ctrl-C ends this\n", n)
	}
	return nil
}

// awaitOOM writes the heaps of processes that are killed until ctx ends, or the last of them does.
func (r *recording) awaitOOM(ctx context.Context) error {
	killed, err := r.oom.Await(ctx)
	if killed > 0 || err != nil {
		return err
	}
	for _, note := range r.memory.Notes() {
		fmt.Fprintf(r.stderr, "pprofd: note: %s\n", discover.Printable(note))
	}
	return exitError{exitNoOOM, errors.New("no process was killed for lack of memory; nothing was written")}
}

// collect makes the profiles and hands them on: what is sampled until ctx ends, what is read then.
func (r *recording) collect(ctx context.Context) (err error) {
	if r.oom != nil {
		return r.awaitOOM(ctx)
	}
	err = r.sampleAll(ctx)
	if r.wall != nil && !r.sink.discard.Load() {
		err = errors.Join(err, r.wall.Export(context.WithoutCancel(ctx)))
	}
	all := r.memories()
	if r.profiler == nil {
		awaitEnd(ctx, all)
	}
	if r.sink.discard.Load() {
		return err
	}
	for _, m := range all {
		if err := errors.Join(err, r.addChild(m)); err != nil {
			return err
		}
	}
	for _, m := range all {
		err = errors.Join(err, m.Export(context.WithoutCancel(ctx)))
	}
	return err
}

// awaitEnd waits until ctx ends, or the processes of all have, so that there is nothing left to read.
func awaitEnd(ctx context.Context, all []*profiler.Memory) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(all, (*profiler.Memory).Alive) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// addChild adds the program behind -- to what reads it: its records began with it.
func (r *recording) addChild(m *profiler.Memory) error {
	if r.child == nil {
		return nil
	}
	err := m.AddFromStart(r.child.pid())
	switch {
	case err == nil:
		return nil
	case discover.Gone(err):
		return toldError{fmt.Sprintf("the program ended before -d %v was over, and %s with it: give a shorter -d", r.o.duration, r.o.memoryKinds()[0]), os.ErrNotExist}
	}
	return explainPID(r.child.pid(), err)
}

// sampleAll runs what samples, until ctx ends or there is nothing left to sample.
func (r *recording) sampleAll(ctx context.Context) error {
	if len(r.profilers()) == 0 && r.wall == nil {
		if r.child != nil {
			<-ctx.Done()
		}
		return nil
	}
	kept := make(chan struct{})
	keeping, cancel := context.WithCancel(ctx)
	go func() {
		defer close(kept)
		r.keepBudget(keeping)
	}()
	var g errgroup.Group
	if r.wall != nil {
		g.Go(func() error { return r.wall.Run(ctx) })
	}
	for _, p := range r.profilers() {
		g.Go(func() error { return p.Run(ctx) })
	}
	err := g.Wait()
	cancel()
	<-kept
	return err
}

// stats are of what is sampled.
func (r *recording) stats() (sum profiler.Stats) {
	for _, p := range r.profilers() {
		s := p.Stats()
		sum.Recorded, sum.Lost = sum.Recorded+s.Recorded, sum.Lost+s.Lost
		sum.Truncated, sum.Broken = sum.Truncated+s.Truncated, sum.Broken+s.Broken
		sum.Targets, sum.Exited = max(sum.Targets, s.Targets), max(sum.Exited, s.Exited)
		for _, note := range s.Notes {
			if !slices.Contains(sum.Notes, note) {
				sum.Notes = append(sum.Notes, note)
			}
		}
	}
	return sum
}

// startTime is after which a recording has begun, and needs little of its code.
const startTime = time.Second

// sample runs the profiler, which writes the profiles at its end.
func (r *recording) sample(ctx context.Context, sigs *signals) error {
	ctx, cancel := r.timeout(ctx)
	defer cancel()
	r.began = time.Now()
	done := make(chan error, 1)
	go func() { done <- r.collect(ctx) }()
	var exited <-chan struct{}
	if r.child != nil {
		exited = r.child.exited
		if err := r.child.release(r.o.program, r.as); err != nil {
			r.sink.discard.Store(true)
			cancel()
			return errors.Join(err, <-done)
		}
	}
	progress := newProgress(r)
	defer progress.end()
	defer context.AfterFunc(ctx, dropCode)() // what sampling needed is not what making profiles needs
	begun := time.After(startTime)
	for {
		select {
		case <-begun:
			dropCode()
		case err := <-done:
			return err
		case <-exited:
			exited = nil
			cancel()
		case <-progress.tick:
			progress.show(r.stats())
		case sig := <-sigs.c:
			switch sigs.react(sig) {
			case stop:
				progress.note("ending; once more to abort")
				cancel()
			case abort:
				return errAborted
			}
		}
	}
}

func (r *recording) timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.atOnce() {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx, cancel
	}
	if r.o.duration > 0 {
		return context.WithTimeout(ctx, r.o.duration)
	}
	return context.WithCancel(ctx)
}

// awaitChild waits for the program's end and returns its exit code, or that of the signals that ended our patience.
func (r *recording) awaitChild(sigs *signals) int {
	select {
	case <-r.child.exited:
		return r.child.code()
	default:
	}
	if sigs.asked > 1 {
		return sigs.code()
	}
	for {
		select {
		case <-r.child.exited:
			return r.child.code()
		case sig := <-sigs.c:
			if sigs.react(sig) != goOn {
				return sigs.code()
			}
		}
	}
}

// childResult: the program's failure is the exit code, but ours must not be hidden by its success.
func (r *recording) childResult(err error, code int) error {
	if err == nil && code == 0 {
		return nil
	}
	var exit exitError
	if errors.As(err, &exit) {
		return exit
	}
	return exitError{cmp.Or(code, exitFailure), err}
}

// close ends what is left: a waiting child, the output, the profiler. An aborted recording leaves the profiler to the
// kernel, since it may be at work.
func (r *recording) close() {
	if r.child != nil {
		r.child.abandon()
	}
	r.sending.close()
	if r.aborted {
		r.sink.closeSoon()
		return
	}
	for _, p := range r.profilers() {
		p.Close()
	}
	if r.oom != nil {
		r.oom.Close()
	}
	if r.wall != nil {
		r.wall.Close()
	}
	for _, m := range r.memories() {
		m.Close()
	}
	r.sink.Close()
}
