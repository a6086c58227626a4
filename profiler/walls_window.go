package profiler

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/pprofd/pprofd/export"
)

// wallBuild is a process's part of a window that has ended, of which a profile is to be built.
type wallBuild struct {
	*wallTarget
	of      *walled
	service string
	labels  []export.Label
	window  *cpuWindow // nil: it has no profiles of CPU time
	since   time.Time  // when the window ended
}

// turnIfDue ends the window where it has ended. over: that was the last one.
func (k *wallWorker) turnIfDue(ctx context.Context, now time.Time) (over bool) {
	if ctx.Err() != nil && k.ending.IsZero() {
		k.ending = now
	}
	window, runs := k.w.cfg.CPU.next()
	grace := time.Duration(0)
	if runs {
		grace = cpuGrace
	}
	switch {
	case window != nil:
		k.turn(window.ended, window)
	case !k.ending.IsZero() && (!runs || now.Sub(k.ending) > endGrace):
		k.turn(now, nil)
		return true
	case k.ending.IsZero() && now.Sub(k.end) >= grace:
		k.turn(now, nil)
	}
	return false
}

// turn ends the window at a moment, and begins the next one. window is that of CPU profiles that ended then; nil: there was none.
func (k *wallWorker) turn(at time.Time, window *cpuWindow) {
	if at.Before(k.began) {
		return
	}
	d := at.Sub(k.began)
	snapshots, n := 0, len(k.active)
	for _, t := range slices.Clone(k.active) {
		snapshots += t.snapshots
		k.freeze(t, at)
	}
	if early := k.began.Sub(windowStart(window)).Abs() > k.rates.Window/lateOpening; window != nil && !k.byCPU && early {
		window = nil // it is another time
	}
	for _, b := range k.frozen {
		b.window, b.blind, b.since = window, window == nil, at
	}
	k.building, k.frozen = append(k.building, k.frozen...), nil
	k.w.count(func(s *WallsStats) {
		s.Windows.Ended++
		s.Windows.Last = time.Now()
		s.Hz = 0
		if n > 0 && d > 0 {
			s.Hz = float64(snapshots) / float64(n) / d.Seconds()
		}
	})
	k.learn()
	k.begin(at, window != nil)
}

func windowStart(w *cpuWindow) time.Time {
	if w == nil {
		return time.Time{}
	}
	return w.began
}

// learn finds out what a process costs besides its snapshots.
func (k *wallWorker) learn() {
	used, _ := k.spent()
	if n := k.built; n > 0 {
		k.each = (k.each + max(used-k.snapped, 0)/time.Duration(n)) / 2
	}
	k.before += used
	k.built, k.snapped = 0, 0
	k.tell()
}

// begin begins a window.
func (k *wallWorker) begin(at time.Time, byCPU bool) {
	w := k.w
	w.mu.Lock()
	k.rates = w.rates
	woken := w.woken
	w.woken = nil
	w.mu.Unlock()
	for _, t := range woken {
		t.shut(w)
	}
	k.number++
	k.began, k.end, k.byCPU = at, at.Add(k.rates.Window), byCPU
	k.active, k.toOpen = k.active[:0], nil
	k.dropUnwanted()
	list, left := k.choose()
	var there []*walled
	for _, p := range list {
		if t := k.open[p]; t != nil {
			there = append(there, t)
		} else {
			k.toOpen = append(k.toOpen, p)
		}
	}
	k.base.cfg.Frequency = k.rates.Hz
	k.pace(there)
	for _, t := range there {
		k.sample(t)
	}
	k.sweep()
	w.count(func(s *WallsStats) { s.Left += uint64(left); s.Alive = time.Now() })
}

// dropUnwanted lets go of processes that have ended, or are not wanted any more. Those that are off take no memory.
func (k *wallWorker) dropUnwanted() {
	for p, t := range k.open {
		k.w.mu.Lock()
		wanted := k.w.wanted[p]
		k.w.mu.Unlock()
		if !wanted || k.rates.Off {
			k.leave(t)
		}
	}
}

// pace stretches the time between snapshots so that they take no more than they may; each process has one in a window all the same.
func (k *wallWorker) pace(list []*walled) {
	k.paced = time.Now()
	limit := k.rates.CPUs / 2
	if limit == 0 {
		limit = 1. / 2 // it is one thread
	}
	k.base.stretch = 1
	sum := 0.0
	for _, t := range list {
		sum += float64(cmp.Or(t.cost.next, firstTook)) / float64(t.interval())
	}
	k.base.stretch = max(1, sum/limit)
}

// sweep forgets now and then what is known of programs that nobody runs any more.
func (k *wallWorker) sweep() {
	now := time.Now()
	if now.Sub(k.swept) < wallsSweep {
		return
	}
	k.swept = now
	for _, t := range k.open {
		if known := k.reader.layouts[t.g.space.Main().Image.ID]; known != nil {
			known.used = true
		}
	}
	some, err := k.reader.layouts.sweep(k.images)
	if err != nil {
		k.w.cfg.Log.Warn("close executables", "error", err)
	}
	if some || k.reader.sym.Overflowed() {
		k.reader.sym.Reset()
	}
	k.reader.forget(maxIdleBuffer)
}

// freeze takes what was seen of t in this window; what comes counts anew.
func (k *wallWorker) freeze(t *walled, at time.Time) {
	f := t.freeze(at)
	if f.snapshots == 0 {
		return
	}
	b := &wallBuild{wallTarget: f, of: t}
	var ok bool
	b.service, b.labels, ok = k.w.cfg.Discovery.Labels(t.proc.PID, t.proc.Start)
	if !ok {
		k.w.count(func(s *WallsStats) { s.Windows.Dropped++ })
		return
	}
	t.pending++
	k.frozen = append(k.frozen, b)
}

// freeze returns what was seen since it began; from now on it begins anew.
func (t *wallTarget) freeze(now time.Time) *wallTarget {
	p := t.wallProgram
	p.groups.end(now)
	p.settle()
	f := *t
	f.ended = now
	f.wallProgram = &wallProgram{g: p.g, groups: p.groups.freeze(), running: *p.running.freeze(), began: p.began, wants: p.wants}
	f.programs = []*wallProgram{f.wallProgram}
	t.began, p.began = now, now
	t.snapshots, t.failed, t.failure, t.sum, t.spent, t.ran, t.squares = 0, 0, nil, 0, 0, 0, 0
	p.sweep()
	return &f
}

// ready is a profile that can be built, and is taken from the list; nil: there is none.
func (k *wallWorker) ready(now time.Time) *wallBuild {
	if len(k.building) == 0 {
		return nil
	}
	b := k.building[0]
	if !k.w.cfg.CPU.whole(b.window) && now.Sub(b.since) < cpuPatience {
		return nil
	}
	k.building = k.building[1:]
	return b
}

// build builds a profile and hands it on. It is encoded here, so that this is counted as what it costs, and limited.
func (k *wallWorker) build(ctx context.Context, b *wallBuild) {
	began := time.Now()
	err := k.deliver(context.WithoutCancel(ctx), b)
	if err != nil {
		k.w.cfg.Log.Error("export", "kind", KindWall, "pid", b.of.proc.PID, "error", err)
	}
	k.built++
	k.w.count(func(s *WallsStats) {
		s.Windows.Profiles++
		s.Windows.Building += time.Since(began)
		s.Lost += uint64(b.groups.lost.count)
		if err != nil {
			s.Windows.Failures++
		}
	})
	t := b.of
	if t.pending--; t.left && t.pending == 0 {
		t.shut(k.w)
	}
}

func (k *wallWorker) deliver(ctx context.Context, b *wallBuild) error {
	if !k.w.cfg.CPU.whole(b.window) {
		b.window, b.blind = nil, true
	}
	b.cpu = b.window.of(b.of.proc)
	p, err := b.profile()
	if err != nil {
		return err
	}
	p.Service, p.Labels = b.service, b.labels
	if k.w.cfg.Comments != nil {
		p.Data.Comments = append(p.Data.Comments, k.w.cfg.Comments()...)
	}
	if _, err := p.Encode(); err != nil {
		return err
	}
	return k.w.cfg.Exporter.Export(ctx, p)
}
