package profiler

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/procfs"
)

// Discovery decides which of all processes are targets, and what they are called. (PID, start) names a process: start is in
// clock ticks since boot. Run asks between two records, so every method must return soon.
type Discovery interface {
	// Look says whether a process is to be profiled. It is asked whenever one executes a program.
	Look(pid int, start uint64) bool
	// Labels name a process; ok: it is still to be profiled. They are asked for at the end of each window, since it may take
	// a while until they are known. The slice is shared, and only read.
	Labels(pid int, start uint64) (service string, labels []export.Label, ok bool)
	// Forget is told of a process that has ended, once its last profile has been handed on.
	Forget(pid int, start uint64)
	// NotGo is the file that a process executes, if no process that executes it can be a Go program.
	NotGo(pid int) (procfs.FileID, bool)
}

// ignorer is a Source that can leave out processes that execute a file.
type ignorer interface {
	Ignore(e bpf.Executable) error
}

// ErrTooManyTargets is wrapped by errors of Add where there are Config.MaxTargets already.
var ErrTooManyTargets = errors.New("there are as many targets as there may be")

// name is what a target is called in a profile.
type name struct {
	service  string
	labels   []export.Label
	unwanted bool
	final    bool // the process runs another program by now
}

// Intervals of a Profiler with Discovery.
const (
	sweepInterval    = time.Minute // after which targets are looked for that are gone without an event
	cutSweepInterval = time.Second // the same where windows are cut as it comes, without Discovery
	notesInterval    = time.Hour   // after which what was told once may be told again
)

// maxRefused bounds how many processes are remembered as no targets while samples of them may come.
const maxRefused = 1 << 14

// maxIgnored bounds how many executables are remembered of which the kernel side was told. It may have forgotten one that comes
// nevertheless, or its file system may tell of files otherwise: then it is told again, not too often.
const (
	maxIgnored     = 1 << 12
	ignoreInterval = time.Minute
)

// discover returns the target that a record is of, nil where there is none: one that is new is judged here.
func (p *Profiler) discover(t *target, r *bpf.Record) *target {
	switch {
	case t != nil && t.start == r.StartTime && r.Type != bpf.TypeExec:
		return t
	case t != nil && t.start == r.StartTime && t.current(): // what was read of it is of the program that it has executed
		p.lookAgain(t)
		return t
	case t != nil && t.start == r.StartTime:
		p.endProgram(t)
	case t != nil && t.start > r.StartTime: // a process that had the PID before
		return nil
	case t != nil: // its exit was not told
		p.exit(t)
	}
	switch r.Type {
	case bpf.TypeSample:
		if p.refused[r.PID] == r.StartTime {
			return p.unwanted(r)
		}
		fallthrough
	case bpf.TypeExec:
		if t := p.newcomer(r.PID, r.StartTime); t != nil {
			return t
		}
	}
	return p.unwanted(r)
}

// endProgram ends a target whose process runs another program: what it did so far is the profile of the one before.
func (p *Profiler) endProgram(t *target) {
	p.name(t)
	t.name.final = true
	p.exit(t)
}

// lookAgain lets go of t if it is not wanted as it is now.
func (p *Profiler) lookAgain(t *target) {
	if p.cfg.Discovery.Look(int(t.pid), t.start) {
		return
	}
	if err := p.leave(t); err != nil {
		p.note("%v", err)
	}
}

// unwanted counts samples of processes that are no targets, or were gone before that was known.
func (p *Profiler) unwanted(r *bpf.Record) *target {
	if r.Type == bpf.TypeSample {
		p.past.unwanted++
	}
	return nil
}

// newcomer makes a target of a process that is to be one.
func (p *Profiler) newcomer(pid uint32, start uint64) *target {
	for range adoptions {
		if !p.cfg.Discovery.Look(int(pid), start) {
			p.ignore(pid)
			break
		}
		t, err := p.adopt(pid, start)
		if err == nil && p.stays(t) {
			return t
		}
		if err == nil {
			p.endProgram(t)
			continue
		}
		p.cfg.Log.Debug("process is not profiled", "pid", pid, "error", err)
		p.past.failed++
		p.cfg.Discovery.Forget(int(pid), start)
		break
	}
	if len(p.refused) < maxRefused {
		p.refused[pid] = start
	}
	if _, err := p.probes.RemoveTarget(pid); err != nil {
		p.note("%v", err)
	}
	return nil
}

// adoptions is how often a process may execute another program while it becomes a target; one that does so more often is found by
// the next event, or scan.
const adoptions = 3

// ignore has the kernel side tell no more of processes that execute what this one does, where that is no Go program.
func (p *Profiler) ignore(pid uint32) {
	source, can := p.probes.(ignorer)
	if !can {
		return
	}
	f, ok := p.cfg.Discovery.NotGo(int(pid))
	now := time.Now()
	if !ok || now.Sub(p.ignored[f]) < ignoreInterval {
		return
	}
	if len(p.ignored) >= maxIgnored {
		clear(p.ignored)
	}
	p.ignored[f] = now
	err := source.Ignore(bpf.Executable{Major: f.Dev.Major, Minor: f.Dev.Minor, Inode: f.Inode, Size: f.Size, Changed: f.Changed})
	if err != nil {
		p.note("%v", err)
	}
}

// adopt makes a target of a process of which the kernel side has told. If it has ended meanwhile, what was sampled of it is on the
// way; its exit need not be (see stays).
func (p *Profiler) adopt(pid uint32, start uint64) (*target, error) {
	if len(p.targets) >= p.cfg.MaxTargets {
		return nil, fmt.Errorf("%w: %d", ErrTooManyTargets, len(p.targets))
	}
	t, err := p.prepare(int(pid), time.Now())
	if err != nil {
		return nil, err
	}
	if t.start != start {
		return nil, errors.Join(fmt.Errorf("process %d has exited: %w", pid, os.ErrNotExist), t.close())
	}
	if err := p.register(t, false); err != nil {
		return nil, err
	}
	if p.allocs == nil || !p.alive(&t.process) {
		return t, nil
	}
	if err := p.attachAllocs(t); err != nil { // newcomer removes it from the kernel's targets
		p.drop(t)
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// stays reports whether t, which has just been registered, still runs the program that was read of it: of a child that executes a
// stranger before, the kernel side does not tell. One that has ended leaves once what was sampled of it has been read.
func (p *Profiler) stays(t *target) bool {
	if t.current() {
		return true // what it does from now on is told
	}
	if _, err := p.procs.Proc(int(t.pid)).Exe(); err == nil && p.alive(&t.process) {
		return false
	}
	if err := p.leave(t); err != nil {
		p.note("%v", err)
	}
	return true
}

// name asks what t is called.
func (p *Profiler) name(t *target) {
	if p.cfg.Discovery == nil || t.name.final {
		return
	}
	var ok bool
	t.name.service, t.name.labels, ok = p.cfg.Discovery.Labels(int(t.pid), t.start)
	t.name.unwanted = !ok
}

// nameAll asks what the targets are called, and lets go of those that are not wanted any more.
func (p *Profiler) nameAll() {
	for _, t := range p.all {
		p.name(t)
		if !t.name.unwanted || t.gone || p.targets[t.pid] != t {
			continue
		}
		if err := p.leave(t); err != nil {
			p.note("%v", err)
		}
	}
}

// forgotten tells Discovery of t, which has ended, unless the process lives on in another program.
func (p *Profiler) forgotten(t *target) {
	if p.cfg.Discovery == nil || t.name.final {
		return
	}
	if now := p.targets[t.pid]; now == nil || now.start != t.start {
		p.cfg.Discovery.Forget(int(t.pid), t.start)
	}
}

// Missing are those of procs that are no targets: processes that ran before the Profiler did, or whose exec was not told.
func (p *Profiler) Missing(procs []Process) (missing []Process) {
	p.turn.Lock()
	defer p.turn.Unlock()
	for _, proc := range procs {
		if t := p.targets[uint32(proc.PID)]; t == nil || t.start != proc.Start || t.gone {
			missing = append(missing, proc)
		}
	}
	return missing
}

// sweep looks for what no event told, each window or, where the processes of the host are many, now and then.
func (p *Profiler) sweep() {
	now := time.Now()
	since := now.Sub(p.swept)
	if p.cfg.Discovery != nil && since < sweepInterval || p.cutting.Load() && since < cutSweepInterval {
		return
	}
	p.swept = now
	p.catchUp()
}

// freshNotes lets notes be told again.
func (p *Profiler) freshNotes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.noted) > notesInterval {
		p.noted, p.stats.Notes = now, nil
	}
}
