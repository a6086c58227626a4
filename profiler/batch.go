package profiler

import (
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/objfile"
)

// batchSize is how many samples are taken at once. With thousands of processes what a sample needs is in none of the CPU's
// caches, and the CPU fetches about ten lines of memory at a time: so each step is done for all samples of a batch before
// the next step, and the batch's records and stacks still fit into the caches themselves.
const batchSize = 16

// batch holds what is read and counted at once: samples, and last a record of another kind, maybe.
type batch struct {
	list   [batchSize]pending
	leaves [batchSize]objfile.Addr
	table  [batchSize]aggregate.Sample
}

// pending is a record that was read, and what has been found out about it.
type pending struct {
	record bpf.Record
	target *target
	stack  []objfile.Addr
}

// read waits for a record, and reads up to the first one that is no sample of those that are there already. What it has read
// before an error is returned, too.
func (b *batch) read(s Source, deadline time.Time) ([]pending, error) {
	for n := range b.list {
		r := &b.list[n].record
		if err := s.Read(r, deadline); err != nil {
			return b.list[:n], err
		}
		if r.Type != bpf.TypeSample || !r.More {
			return b.list[:n+1], nil
		}
	}
	return b.list[:], nil
}

// handle takes records, in order.
func (p *Profiler) handle(list []pending) {
	for len(list) > 0 {
		n := p.known(list)
		p.count(list[:n])
		if list = list[n:]; len(list) > 0 {
			p.event(list[:1])
			list = list[1:]
		}
	}
}

// known finds the targets of the samples that list begins with, up to the first record that is none, or not of a target.
func (p *Profiler) known(list []pending) (n int) {
	for n < len(list) && list[n].record.Type == bpf.TypeSample {
		if list[n].target = p.targets[list[n].record.PID]; list[n].target == nil {
			break
		}
		n++
	}
	for i := range list[:n] {
		if list[i].target.start != list[i].record.StartTime {
			return i
		}
	}
	return n
}

// count counts samples.
func (p *Profiler) count(list []pending) {
	if len(list) > 1 && len(p.targets) >= coldTargets {
		p.fetch(list)
	}
	add := p.batch.table[:0]
	for i := range list {
		if s, ok := p.complete(&list[i]); ok {
			add = append(add, s)
		}
	}
	p.table.AddAll(add)
}

// With fewer targets than coldTargets most of what is needed is in the CPU's caches anyway.
const coldTargets = 32

// fetch touches what is needed to complete the stacks. To see to the callers near the leaf as well costs more than it saves.
func (p *Profiler) fetch(list []pending) {
	leaves := p.batch.leaves[:0]
	for i := range list {
		t, s := list[i].target, &list[i].record.Sample
		if t.space == nil || len(s.Segments) == 0 {
			continue
		}
		if a, ok := t.space.Resolve(s.Segments[0].PC); ok {
			leaves = append(leaves, a)
		}
	}
	p.unwinder.Fetch(leaves)
}
