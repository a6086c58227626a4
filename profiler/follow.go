package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pprofd/pprofd/objfile"
)

// settle looks what t's process did between the reading of its map and the moment from when on events tell of it.
func (p *Profiler) settle(t *target) error {
	if p.alive(&t.process) {
		if t.space != nil && !t.current() {
			p.exec(t, t.start)
			return nil
		}
		if err := p.attachAllocs(t); err != nil {
			_, errRemove := p.probes.RemoveTarget(t.pid)
			p.drop(t)
			return errors.Join(fmt.Errorf("process %d (%s): %w", t.pid, t.comm, err), errRemove, t.close())
		}
		return nil
	}
	was, err := p.probes.RemoveTarget(t.pid)
	if err == nil && !was {
		return nil // it was sampled until its exit, whose record is on the way
	}
	p.drop(t)
	return errors.Join(fmt.Errorf("process %d (%s): %w", t.pid, t.comm, os.ErrNotExist), err, t.close())
}

// drop forgets the target that was registered last.
func (p *Profiler) drop(t *target) {
	delete(p.targets, t.pid)
	p.all = p.all[:len(p.all)-1]
}

// addAgain keeps a target, also one that Remove has just removed.
func (p *Profiler) addAgain(t *target) error {
	if !t.gone {
		return nil
	}
	t.gone = false
	return errors.Join(p.probes.SetTarget(t.pid, t.probeTarget()), p.attachAllocs(t))
}

// Remove ends the sampling of a target; what was sampled is in its next profile.
func (p *Profiler) Remove(pid int) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	t := p.targets[uint32(pid)]
	if t == nil {
		return fmt.Errorf("process %d is no target: %w", pid, os.ErrNotExist)
	}
	return p.leave(t)
}

// leave ends the sampling of t. Samples of it may still be in the ring buffer, so it stays a target until endGone.
func (p *Profiler) leave(t *target) error {
	t.gone = true
	p.detachAllocs(t)
	_, err := p.probes.RemoveTarget(t.pid)
	return err
}

// endGone ends the targets that were gone before the ring buffer was read to its end.
func (p *Profiler) endGone() {
	clear(p.refused)
	for _, t := range p.targets {
		if t.gone {
			p.exit(t)
		}
	}
}

// forget drops what only a running target needs. Its space names its samples until the end of the window.
func (p *Profiler) forget(t *target) {
	p.endAllocs(t)
	delete(p.targets, t.pid)
	if t.space == nil {
		return
	}
	if err := t.space.Exited(); err != nil {
		p.note("process %d: %v", t.pid, err)
	}
}

// catchUp looks which targets have exited or called exec without an event: it found no room in the ring buffer, or came
// before they were targets.
func (p *Profiler) catchUp() {
	for _, t := range p.targets {
		switch {
		case !p.alive(&t.process):
			if err := p.leave(t); err != nil {
				p.note("%v", err)
			}
		case t.space == nil || t.current():
		case p.cfg.Discovery != nil:
			p.endProgram(t)
			p.newcomer(t.pid, t.start)
		default:
			p.exec(t, t.start)
		}
	}
}

// trim forgets what t's process has unmapped.
func (t *target) trim() error {
	if t.space == nil {
		return nil
	}
	return t.space.Trim()
}

// endWindow exports and begins the next window. What an exporter cannot take is lost, and the next window is tried again.
func (p *Profiler) endWindow(ctx context.Context) {
	if err := p.export(context.WithoutCancel(ctx)); err != nil {
		p.cfg.Log.Error("export", "error", err)
	}
	if err := p.nextWindow(); err != nil {
		p.note("%v", err)
	}
	p.freshNotes()
	p.sweep()
}

// maxKept bounds how many programs are kept that nobody runs any more.
const maxKept = 64

// keep keeps what is known of t's program until the end of the next window: processes that live shortly come in numbers.
func (p *Profiler) keep(t *target) {
	if t.space == nil || t.main == 0 || p.kept[t.main] || len(p.kept) >= maxKept {
		return
	}
	if p.kept == nil {
		p.kept = make(map[objfile.ImageID]bool)
	}
	p.kept[t.main] = true
	p.images.Retain(t.main)
}

// nextWindow forgets what the profiles just exported were made of, and the targets that have ended.
func (p *Profiler) nextWindow() error {
	var errs []error
	p.table.Reset()
	p.labelIDs = labelIDs{}
	before := p.kept
	p.kept = nil
	live := p.all[:0]
	for _, t := range p.all {
		if p.targets[t.pid] != t {
			p.past.targets++
			p.forgotten(t)
			p.keep(t)
			errs = append(errs, t.close())
			continue
		}
		errs = append(errs, t.closeOld(), t.trim())
		if t.alloc != nil {
			t.alloc.restart(t)
		}
		live = append(live, t)
		t.id = uint32(len(live))
	}
	clear(p.all[len(live):])
	p.all = live
	p.expect()
	for id := range before {
		errs = append(errs, p.images.Release(id))
	}
	p.layouts.forget(p.images)
	p.unwinder.Forget()
	p.started = time.Now()
	p.rate.restart(p.started)
	return errors.Join(errs...)
}
