package profiler

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/unwind"
)

// event takes one record of any kind.
func (p *Profiler) event(one []pending) {
	r := &one[0].record
	known := p.targets[r.PID]
	t := known
	if p.cfg.Discovery != nil {
		t = p.discover(t, r)
	}
	if t == nil || (t.start != 0 && t.start != r.StartTime) {
		return // an event of a process that ended; its samples came before
	}
	switch r.Type {
	case bpf.TypeSample:
		one[0].target = t
		p.count(one)
	case bpf.TypeExec:
		if t == known { // else it was made of what runs now
			p.exec(t, r.StartTime)
		}
	case bpf.TypeExit:
		p.exit(t)
	}
}

// exit ends a target. That a program ends that was started to be profiled is no news; nor is it where they come and go.
func (p *Profiler) exit(t *target) {
	p.forget(t)
	if !t.started && p.cfg.Window == 0 {
		p.note("process %d (%s) has exited", t.pid, t.comm)
	}
}

// exec follows a target into another program.
func (p *Profiler) exec(t *target, start uint64) {
	// A quick exec: what was read of the program before it is of this one already.
	if !t.current() && !p.replace(t, start) {
		return
	}
	p.changed = time.Now()
	t.fresh = p.changed
	t.known, t.unverified, t.notGo = false, false, ""
	p.endAllocs(t)
	m := t.space.Main()
	if m == nil {
		t.notGo = fmt.Sprintf("%v; its C functions are named by symbol", p.notGo(&t.process))
		return
	}
	t.main = m.Image.ID
	p.findLayout(t)
	if t.known && !p.layouts[t.main].proven {
		p.verify(t, true)
	}
	p.followAllocs(t)
	if err := p.probes.UpdateTarget(t.pid, t.probeTarget()); err != nil {
		p.note("%v", err)
	}
}

// replace gives t the address space of its new program. That a wrapper such as env(1) executes it is no news.
func (p *Profiler) replace(t *target, start uint64) bool {
	if t.space != nil {
		if t.space.Main() != nil && p.cfg.Discovery == nil {
			p.note("process %d (%s) has executed another program", t.pid, t.comm)
		}
		t.old = append(t.old, t.space)
		t.space = nil
	}
	t.start = start
	if stat, err := p.procs.Proc(int(t.pid)).Stat(); err == nil && stat.StartTime == start {
		t.comm = stat.Comm
	}
	err := p.openSpace(&t.process)
	// That it is gone already its exit tells, and its samples are counted as lost.
	if err != nil && !errors.Is(err, objfile.ErrProcessGone) && !errors.Is(err, os.ErrNotExist) {
		p.note("%v", err)
	}
	return err == nil
}

const reloadInterval = 100 * time.Millisecond

// complete finds out what a sample counts for. ok is false where its stack cannot be completed: it is counted as lost.
func (p *Profiler) complete(q *pending) (_ aggregate.Sample, ok bool) {
	t, s := q.target, &q.record.Sample
	key := aggregate.Key{Target: t.id, Kind: uint8(s.Kind), Labels: p.labelID(s)}
	var weight int64
	key.Size, weight = p.weigh(t, s)
	if t.space == nil {
		p.table.Lost(t.id, key.Kind, "process ended before its memory map was read", 1, weight)
		return aggregate.Sample{}, false
	}
	q.stack = q.stack[:0]
	for i, pc := range s.Kernel {
		if i > 0 {
			pc-- // a return address
		}
		q.stack = append(q.stack, objfile.Addr{Image: objfile.KernelImage, Off: pc})
	}
	toInput(&p.input, s)
	kernel := len(q.stack)
	var status unwind.Status
	q.stack, status = p.unwinder.Complete(q.stack, t.space, &p.input)
	if unresolved(q.stack[kernel:], status) && p.reload(t) {
		q.stack, status = p.unwinder.Complete(q.stack[:kernel], t.space, &p.input)
	}
	switch status {
	case unwind.Truncated:
		key.Status = aggregate.Truncated
	case unwind.Broken:
		key.Status = aggregate.Broken
	}
	return aggregate.Sample{Key: key, Stack: q.stack, Weight: weight}, true
}

// unresolved reports whether the stack met an address that no known mapping covers.
func unresolved(user []objfile.Addr, status unwind.Status) bool {
	return status == unwind.Broken || len(user) > 0 && user[0].Image == 0
}

// reload reads a target's memory map again, not too often: a library was loaded since.
func (p *Profiler) reload(t *target) bool {
	now := time.Now()
	if now.Before(t.nextReload) {
		return false
	}
	t.nextReload = now.Add(reloadInterval)
	return t.space.Reload() == nil
}

// toInput hands the user part of a sample to the unwinder's types.
func toInput(in *unwind.Input, s *bpf.Sample) {
	in.Truncated = s.Flags&bpf.FlagDepth != 0
	in.Segments = in.Segments[:0]
	for i := range s.Segments {
		g := &s.Segments[i]
		in.Segments = append(in.Segments, unwind.Segment{
			Kind: unwind.SegmentKind(g.Kind), End: unwind.End(g.End), Stack: unwind.Stack(g.Stack), Scanned: g.Scanned,
			PC: g.PC, SP: g.SP, FP: g.FP, LR: g.LR, Window: g.Window, Frames: g.Frames,
		})
	}
}

// labelIDs are the label sets of this window by the bytes of bpf.Sample.Labels. Targets share them: those of one program
// mostly have the same, and what is common stays in the CPU's caches.
type labelIDs struct {
	ids   map[string]aggregate.LabelID
	bytes int
}

const maxLabelIDBytes = 4 << 20

func (l *labelIDs) put(b []byte, id aggregate.LabelID) {
	const overhead = 64
	if l.bytes += len(b) + overhead; l.ids == nil || l.bytes > maxLabelIDBytes {
		*l = labelIDs{make(map[string]aggregate.LabelID), len(b) + overhead}
	}
	l.ids[string(b)] = id
}

// labelID names the labels of a sample. Known ones cost no allocation.
func (p *Profiler) labelID(s *bpf.Sample) aggregate.LabelID {
	var num aggregate.Numbers
	if p.cfg.Goid {
		num.Goid = s.Goid
	}
	if p.cfg.TID {
		num.TID = s.TID
	}
	if s.NumLabels == 0 {
		return p.table.Labels(nil, num)
	}
	plain := num == aggregate.Numbers{}
	if id, ok := p.labelIDs.ids[string(s.Labels)]; ok && plain {
		return id
	}
	id := p.table.Labels(p.decodeLabels(s), num)
	if plain {
		p.labelIDs.put(s.Labels, id)
	}
	return id
}

// cutMark ends keys and values that were longer than what is recorded; cutLabel stands for labels beyond the limit.
const (
	cutMark  = "…"
	cutLabel = "pprofd_labels_truncated"
)

func (p *Profiler) decodeLabels(s *bpf.Sample) []aggregate.Label {
	list, err := s.AppendLabels(p.labels[:0])
	p.labels = list
	out := make([]aggregate.Label, 0, len(list)+1)
	cut := false
	for _, l := range list {
		if l.KeyCut {
			l.Key += cutMark
		}
		if l.ValueCut {
			l.Value += cutMark
		}
		cut = cut || l.KeyCut || l.ValueCut
		out = append(out, aggregate.Label{Key: l.Key, Value: l.Value})
	}
	if err != nil || s.Flags&bpf.FlagLabelError != 0 || (s.Flags&bpf.FlagLabels != 0 && !cut) {
		out = append(out, aggregate.Label{Key: cutLabel, Value: "true"})
	}
	return out
}
