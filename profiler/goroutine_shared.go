package profiler

import (
	"errors"
	"fmt"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
	"github.com/pprofd/pprofd/unwind"
)

// goroutineReader is what reading the goroutines of one process after the other needs once, whatever runs in them: programs are opened,
// searched and symbolized once. It belongs to one goroutine.
type goroutineReader struct {
	images   *objfile.Images
	layouts  memLayouts
	unwinder *unwind.Unwinder
	sym      *symbolize.Symbolizer
	buffers  *goruntime.GoroutineBuffers
}

// newGoroutineReader reads processes of images. Images stay open that layouts knows.
func newGoroutineReader(images *objfile.Images, layouts memLayouts, sym *symbolize.Symbolizer) *goroutineReader {
	return &goroutineReader{
		images: images, layouts: layouts, unwinder: unwind.New(images), sym: sym, buffers: &goruntime.GoroutineBuffers{},
	}
}

// of returns the goroutines of an open process, whose space stays the caller's. clock is what its monotonic clock
// is ahead of ours, ns. Errors wrap goruntime.ErrNoGoroutines or goruntime.ErrUnverified.
func (r *goroutineReader) of(p process, clock int64) (*Goroutines, error) {
	g := &Goroutines{
		process: p, images: r.images, functions: make(map[uint64]string), clock: clock, mem: p.memory(), bias: p.space.Main().Bias,
		unwinder: r.unwinder, sym: r.sym, buffers: r.buffers,
	}
	if core := p.space.Core(); core != nil {
		g.threads = newStoppedThreads(core)
	}
	known := r.layouts.of(r.images, p.space.Main().Image)
	var err error
	if g.layout, err = known.goroutineLayout(); err != nil {
		return nil, err
	}
	if known.proven && g.age() > youngFor {
		return g, nil
	}
	if err := g.verify(); err != nil {
		return nil, err
	}
	known.prove(g.layout)
	return g, nil
}

// prove: what a live process of the program has, each of that program has.
func (l *memLayout) prove(layout *goruntime.Goroutines) {
	own := *layout
	l.goroutines.value, l.proven = &own, true
}

// goroutineLayout returns a copy, which is to be one process's.
func (l *memLayout) goroutineLayout() (*goruntime.Goroutines, error) {
	known, err := l.goroutines.get(l.image, goruntime.FindGoroutines)
	if err != nil {
		return nil, err
	}
	layout := **known
	return &layout, nil
}

// openAlone opens a process of o for itself.
func (o *opener) openAlone(p process, clock int64) (*Goroutines, error) {
	r := newGoroutineReader(o.images, make(memLayouts), symbolize.New(o.images.Get, nil))
	g, err := r.of(p, clock)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("process %d (%s): %w", p.pid, p.comm, err), r.layouts.forget(r.images), p.space.Close())
	}
	g.alone = r
	return g, nil
}

// Close gives everything back. What others have opened stays theirs.
func (g *Goroutines) Close() error {
	if g.space == nil || g.alone == nil {
		return nil
	}
	return errors.Join(g.alone.layouts.forget(g.images), g.space.Close())
}

// open opens a process of o, whose space is the caller's to close then.
func (r *goroutineReader) open(o *opener, pid int) (*Goroutines, error) {
	p, err := o.open(pid)
	if err != nil {
		return nil, err
	}
	g, err := r.of(p, o.procs.Proc(pid).MonotonicOffset())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("process %d (%s): %w", pid, p.comm, err), p.space.Close())
	}
	return g, nil
}

// forget lets go of what was learned of programs that are open no more, and of buffers of more than so many bytes.
func (r *goroutineReader) forget(bytes int) {
	r.unwinder.Forget()
	if r.buffers.Bytes() > bytes {
		*r.buffers = goruntime.GoroutineBuffers{}
	}
}
