package profiler

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
)

// target is one process.
type target struct {
	process
	id   uint32 // in the aggregate table, from 1
	name name

	old     []*objfile.Space
	main    objfile.ImageID // of the Go program, the last one after an exec
	started bool            // by us: AddAtExec
	notGo   string          // what to tell if the program that runs now, which is not Go, is the last

	layout     goruntime.Layout
	bias       uint64
	known      bool      // layout is usable
	unverified bool      // the live process was too young to check the layout against
	fresh      time.Time // when we saw it execute its program

	throttled bpf.Loss // in this window, once it is being exported

	gone       bool // has exited or was removed, as far as the ring buffer has not been read
	nextReload time.Time

	alloc *allocTarget // in a Profiler of allocations, where t is a Go program
}

func (t *target) close() error {
	err := t.closeOld()
	if t.space != nil {
		err = errors.Join(err, t.space.Close())
	}
	t.space = nil
	return err
}

// closeOld closes the spaces from before the last exec.
func (t *target) closeOld() error {
	var errs []error
	for _, s := range t.old {
		errs = append(errs, s.Close())
	}
	t.old = nil
	return errors.Join(errs...)
}

// Add makes a running process a target. Errors are those of opener.open: they name the process and wrap os.ErrNotExist,
// os.ErrPermission, objfile.ErrNotGo, or what kept its files from being read.
func (p *Profiler) Add(pid int) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if t := p.targets[uint32(pid)]; t != nil {
		if p.alive(&t.process) {
			return p.addAgain(t)
		}
		p.exit(t)
	}
	if p.cfg.Discovery != nil && len(p.targets) >= p.cfg.MaxTargets {
		return fmt.Errorf("process %d: %w: %d", pid, ErrTooManyTargets, len(p.targets))
	}
	t, err := p.prepare(pid, time.Time{})
	if err != nil {
		return err
	}
	if err := p.register(t, false); err != nil {
		return err
	}
	return p.settle(t)
}

// prepare opens a process and learns what there is to know of it: fresh is when it was told of, if it may have executed its
// program just then. What it returns has no id yet.
func (p *Profiler) prepare(pid int, fresh time.Time) (*target, error) {
	proc, err := p.open(pid)
	if err != nil {
		return nil, err
	}
	t := &target{process: proc, main: proc.space.Main().Image.ID, fresh: fresh}
	p.findLayout(t)
	switch {
	case !t.known || p.layouts[t.main].proven:
	case !fresh.IsZero() && !t.layout.Unproven: // it has just executed its program: there is nothing to see yet
		t.unverified = true
	default:
		p.verify(t, t.young())
	}
	if err := p.findAllocs(t); err != nil {
		return nil, errors.Join(fmt.Errorf("process %d (%s): %w", t.pid, t.comm, err), t.close())
	}
	return t, nil
}

// AddAtExec makes pid a target from its next execve on. path is the program that it will execute, if known: what can be
// learned from the file is ready then before the first sample.
func (p *Profiler) AddAtExec(pid int, path string) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	proc, err := p.find(pid)
	if err != nil {
		return err
	}
	proc.stat = nil // of what it executes now
	t := &target{process: proc, started: true}
	t.comm = truncate(filepath.Base(path), 15)
	if f, err := openFile(path); err == nil {
		if !f.PIE() {
			p.useLayout(t, findLayout(f))
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := p.register(t, true); err != nil {
		return err
	}
	return p.settle(t)
}

func truncate(s string, n int) string { return s[:min(len(s), n)] }

func openFile(path string) (*objfile.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), f.Close())
	}
	return objfile.Open(f, st.Size())
}

func (p *Profiler) register(t *target, waitExec bool) error {
	b := t.probeTarget()
	b.WaitExec = waitExec
	if err := p.probes.SetTarget(t.pid, b); err != nil {
		return errors.Join(err, t.close())
	}
	p.targets[t.pid] = t
	p.all = append(p.all, t)
	t.id = uint32(len(p.all))
	p.expect()
	if t.unsettled() {
		p.changed = time.Now()
	}
	p.publish()
	return nil
}

// unsettled: something of t is to be looked up soon, while it runs: whether its runtime is as expected, or what it loads.
func (t *target) unsettled() bool {
	if t.space == nil || t.unverified {
		return true
	}
	m := t.space.Main()
	return m == nil || m.Image.File == nil || m.Image.File.Cgo()
}

// findLayout learns where the Go runtime of t keeps its state. Without it labels and goroutine ids are lost, stacks
// are joined across stack switches by frame pointer alone, and the user is told.
func (p *Profiler) findLayout(t *target) {
	t.known = false
	m := t.space.Main()
	if m == nil || m.Image.File == nil {
		return
	}
	t.bias = m.Bias
	p.useLayout(t, p.layouts.of(m.Image))
	if t.known && t.layout.TLSSlot != 0 {
		if err := t.layout.ResolveTLS(memory{t.space}, t.bias); err != nil {
			p.note("process %d (%s): %v; no labels, and stacks may miss frames", t.pid, t.comm, err)
			t.known = false
		}
	}
}

func (p *Profiler) useLayout(t *target, l foundLayout) {
	if l.err != nil {
		p.note("process %d (%s): %v; no labels, and stacks may miss frames", t.pid, t.comm, l.err)
		return
	}
	t.layout = l.Layout
	t.known = l.GM != 0 && l.MCurg != 0 && l.GSchedSP != 0 && l.GSchedPC != 0
	if !t.known {
		p.note("process %d (%s), %s: the runtime's layout is unknown; no labels, and stacks may miss frames", t.pid, t.comm, l.version)
	} else if l.GLabels == 0 || l.Labels == goruntime.LabelsNone {
		p.note("process %d (%s), %s: where goroutines keep their labels is unknown", t.pid, t.comm, l.version)
	}
}

// verify checks the layout against the live process. A young process may not have started its runtime: then it is
// looked at again later.
func (p *Profiler) verify(t *target, young bool) {
	err := t.layout.Verify(memory{t.space}, t.bias)
	if err == nil {
		t.unverified = false
		p.layouts.prove(t.main)
		return
	}
	if young && !t.layout.Unproven {
		t.unverified = true
		return
	}
	if m := t.space.Main(); t.layout.UseDWARF(m.Image.File) == nil && t.layout.Verify(memory{t.space}, t.bias) == nil {
		t.unverified = false
		return
	}
	p.note("process %d (%s): %v; goroutine labels and ids are left out", t.pid, t.comm, err)
	t.unverified = false
	t.layout.Labels, t.layout.GLabels, t.layout.GGoid = goruntime.LabelsNone, 0, 0
}

// verifyLater verifies what was too young before.
func (p *Profiler) verifyLater(t *target) {
	if !t.unverified || t.space == nil {
		return
	}
	if p.layouts[t.main].proven {
		t.unverified = false
		return
	}
	before := t.layout.GLabels
	p.verify(t, t.young())
	if t.layout.GLabels != before {
		if err := p.probes.UpdateTarget(t.pid, t.probeTarget()); err != nil {
			p.note("process %d: %v", t.pid, err)
		}
	}
}

// young: the program may not have started its runtime.
func (t *target) young() bool { return t.age() < time.Second || time.Since(t.fresh) < time.Second }

// age of the process since its start; exec does not count.
func (p *process) age() time.Duration {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Hour
	}
	return time.Duration(up.Nano()) - time.Duration(p.start)*10*time.Millisecond
}

// probeTarget is what the kernel side must know of t.
func (t *target) probeTarget() *bpf.Target {
	b := &bpf.Target{StartTime: t.start}
	if t.alloc != nil {
		b.Alloc = t.alloc.wire()
	}
	if !t.known {
		return b
	}
	l := &t.layout
	b.HasLayout, b.HasTLS, b.TLS = true, l.HasTLS, l.TLS
	b.GM, b.GSchedSP, b.GSchedPC, b.GSchedBP = l.GM, l.GSchedSP, l.GSchedPC, l.GSchedBP
	b.GGoid, b.GLabels, b.MGsignal, b.MCurg = l.GGoid, l.GLabels, l.MGsignal, l.MCurg
	b.GStatus = l.GAtomicStatus
	b.LabelsMap, b.LabelsSlice = l.Labels == goruntime.LabelsMap, l.Labels == goruntime.LabelsSlice
	if t.space == nil {
		return b
	}
	m := t.space.Main()
	if m == nil || m.Image.File == nil {
		return b
	}
	b.Cgo = m.Image.File.Cgo()
	if mod, err := m.Image.File.GoModule(); err == nil {
		b.Text, b.EText = mod.Text+t.bias, mod.EText+t.bias
	}
	if l.SigtrampReturn != 0 {
		b.SigtrampReturn, b.SigtrampDelta = l.SigtrampReturn+t.bias, uint32(l.SigtrampDelta)
	}
	if l.RacecallReturn != 0 {
		b.RacecallRet = l.RacecallReturn + t.bias
	}
	for _, name := range []string{"runtime.sigreturn__sigaction", "runtime.sigreturn"} { // the latter up to Go 1.19
		if f, ok := l.Funcs[name]; ok {
			b.Restorer = f.Entry + t.bias
		}
	}
	if l.CgocallbackReturn != 0 {
		b.CgocallbackRet, b.CgocallbackDelta = l.CgocallbackReturn+t.bias, uint32(l.CgocallbackDelta)
		if m.Image.File.Machine() == elf.EM_X86_64 {
			b.CgocallbackDelta += 8 // over the return address
		}
		b.AsmcgocallFP = asmcgocallFP(l)
	}
	return b
}

// asmcgocallFP is the distance from the g.sched.sp that asmcgocall saves to the frame record that goes on: its own
// since Go 1.21; before, it had none, and the record is that of cgocall, its caller.
func asmcgocallFP(l *goruntime.Layout) int32 {
	if l.AsmcgocallDelta > 0 {
		return l.AsmcgocallDelta - 8
	}
	return 8 + l.CgocallDelta - 8
}
