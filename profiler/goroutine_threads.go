package profiler

import (
	"context"
	"debug/elf"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/unwind"
)

// stoppedThreads are the threads of a process that has left a core file: where they were, for the stacks of goroutines that ran.
type stoppedThreads struct {
	all  []objfile.CoreThread
	byID map[int]*objfile.CoreThread
	// killed is the goroutine in whose thread the process ended, or that has made it end by what the processor could not do; 0: none.
	// interrupt is the signal that this thread handled, or that the goroutine panics for.
	killed    uint64
	interrupt objfile.CoreSignal
	left      int // goroutines whose stacks may still be walked in this reading: no more than threads ran
}

// maxSwitches bounds the stacks of one thread that are walked one after the other: a signal handler's, g0's, the goroutine's; and
// signals in handlers.
const maxSwitches = 6

func newStoppedThreads(core *objfile.Core) *stoppedThreads {
	t := &stoppedThreads{all: core.Threads, byID: make(map[int]*objfile.CoreThread, len(core.Threads))}
	for i := range core.Threads {
		t.byID[core.Threads[i].ID] = &core.Threads[i]
	}
	return t
}

// of returns the thread of an m. IDs are those of the PID namespace of who has written the core file, with gcore not the process's
// own; then a thread is known by the stack that it is on.
func (t *stoppedThreads) of(m *goruntime.Thread) *objfile.CoreThread {
	on := func(c *objfile.CoreThread) bool { return m.Go.Has(c.SP) || m.G0.Has(c.SP) || m.Signal.Has(c.SP) }
	if c := t.byID[m.ID]; c != nil && (on(c) || c.PC == 0) {
		return c
	}
	for i := range t.all {
		if on(&t.all[i]) {
			return &t.all[i]
		}
	}
	return t.byID[m.ID]
}

// findKilled finds the goroutine that ran in the thread in which a core file's process ended.
func (g *Goroutines) findKilled(ctx context.Context) error {
	t := g.threads
	if len(t.all) == 0 || !g.space.Core().Signal.Fatal() {
		return nil
	}
	found, enough := context.WithCancel(ctx)
	defer enough()
	left := len(t.all) // no more goroutines than threads have one
	_, err := g.layout.Read(found, g.mem, g.bias, goruntime.ReadGoroutines{Want: func(raw *goruntime.Goroutine) bool {
		if raw.M != 0 && left > 0 && !t.interrupt.Raised() {
			left--
			g.suspect(raw)
		}
		if left == 0 || t.interrupt.Raised() {
			enough()
		}
		return false
	}})
	if found.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// suspect looks whether the process ended in a goroutine. Up to Go 1.21 the thread in which it did may be the last of all that the runtime
// has asked for their stacks.
func (g *Goroutines) suspect(raw *goruntime.Goroutine) {
	t := g.threads
	m, err := g.layout.Thread(g.mem, raw.M)
	if err != nil || m.CurG != raw.Addr {
		return
	}
	at, _ := g.walkThread(nil, &m)
	if at.signal.Raised() || t.of(&m) == &t.all[0] {
		t.killed, t.interrupt = raw.ID, at.signal
		own := at.signal.Number == 0 || at.signal.Sender == int(g.pid)
		if s := g.layout.PanicSignal(g.mem, raw.Addr); own && s.Raised() { // which was handled before the process sent itself another
			t.interrupt = s
		}
	}
}

// Killed is the goroutine in whose thread a process ended that has left a core file; 0: there is none. interrupted is the signal that
// this thread was handling then, or that the goroutine panics for, which says more than the process's own: most often that is SIGABRT, which the runtime has sent itself.
func (g *Goroutines) Killed() (goid uint64, by, interrupted objfile.CoreSignal) {
	core := g.space.Core()
	if core == nil || !core.Signal.Fatal() {
		return 0, by, interrupted
	}
	return g.threads.killed, core.Signal, g.threads.interrupt
}

// running walks the stack of a goroutine that ran when its process left a core file, from its thread's registers. Unless all is as it
// must be, down to its first function, there is none.
func (g *Goroutines) running(raw *goruntime.Goroutine) (stack []objfile.Addr, complete bool) {
	if raw.State != goruntime.Running || raw.M == 0 || g.threads.left <= 0 {
		return nil, false
	}
	g.threads.left--
	m, err := g.layout.Thread(g.mem, raw.M)
	if err != nil || m.CurG != raw.Addr {
		return nil, false
	}
	at, ok := g.walkThread(g.stack[:0], &m)
	if !ok {
		return nil, false
	}
	at.in.End, at.in.Top = raw.StackEnd, raw.Top
	return g.walkOn(at)
}

// joining is what was walked of a thread's own stacks, and where it goes on, on the goroutine's.
type joining struct {
	in     unwind.Stopped
	above  []objfile.Addr
	signal objfile.CoreSignal // the last that was met
}

// walkThread walks the stacks of a thread down to the goroutine's, from its registers.
func (g *Goroutines) walkThread(dst []objfile.Addr, m *goruntime.Thread) (joining, bool) {
	c := g.threads.of(m)
	if c == nil || c.PC == 0 {
		return joining{}, false
	}
	w := threadWalk{g: g, m: m, at: unwind.Stopped{PC: c.PC, SP: c.SP, LR: c.LR, Exact: true}, dst: dst}
	for range maxSwitches {
		switch {
		case m.Go.Has(w.at.SP):
			w.at.Joined = len(w.dst) > 0
			return joining{w.at, w.dst, w.signal}, true
		case !w.leave():
			return joining{signal: w.signal}, false
		}
	}
	return joining{}, false
}

// threadWalk is the state of walkThread.
type threadWalk struct {
	g      *Goroutines
	m      *goruntime.Thread
	at     unwind.Stopped
	dst    []objfile.Addr
	signal objfile.CoreSignal
}

// leave walks to the end of the stack that the thread is on.
func (w *threadWalk) leave() bool {
	stack := &w.m.Signal
	w.at.Top = 0
	if w.m.G0.Has(w.at.SP) {
		stack, w.at.Top = &w.m.G0, w.m.G0.SchedSP
	} else if !stack.Has(w.at.SP) {
		return false
	}
	w.at.End = stack.Hi
	if !w.g.load(&w.at, min(w.at.End-w.at.SP, maxOwnStack)) {
		return false
	}
	var how unwind.Left
	var frame uint64
	w.dst, how, frame = w.g.unwinder.Leave(w.dst, w.g.space, &w.at, maxGoroutineFrames)
	switch how {
	case unwind.LeftSched:
		w.at = unwind.Stopped{PC: w.m.Go.SchedPC, SP: w.m.Go.SchedSP, LR: w.m.Go.SchedLR}
		return w.m.Go.Has(w.at.SP)
	case unwind.LeftClock:
		if above := w.at.SP; !w.m.Go.Has(w.m.VDSOSP) && (!stack.Has(w.m.VDSOSP) || w.m.VDSOSP <= above) {
			return false
		}
		w.at = unwind.Stopped{PC: w.m.VDSOPC, SP: w.m.VDSOSP}
		return true
	case unwind.LeftSignal:
		return w.interrupted(frame)
	}
	return false
}

// interrupted goes on where a signal came.
func (w *threadWalk) interrupted(frame uint64) bool {
	i, err := unwind.ReadInterrupted(w.g.mem, frame, w.g.arm64())
	if err != nil {
		return false
	}
	w.signal = objfile.DecodeSignal(i.Info)
	w.at = unwind.Stopped{PC: i.PC, SP: i.SP, LR: i.LR, Exact: true}
	return true
}

func (g *Goroutines) arm64() bool { return g.space.Main().Image.File.Machine() == elf.EM_AARCH64 }

// Bounds on what is read of stacks: of a thread's own, where the runtime uses some KiB, and of the goroutine's.
const (
	maxOwnStack     = 64 << 10
	maxRunningStack = 1 << 20
)

// load reads n bytes of a stack.
func (g *Goroutines) load(s *unwind.Stopped, n uint64) bool {
	s.Stack = make([]byte, n)
	_, err := g.mem.ReadAt(s.Stack, int64(s.SP))
	return err == nil
}

// walkOn walks a goroutine's own stack.
func (g *Goroutines) walkOn(at joining) (stack []objfile.Addr, complete bool) {
	if at.in.SP%8 != 0 || at.in.SP >= at.in.End || !g.load(&at.in, min(at.in.End-at.in.SP, maxRunningStack)) {
		return nil, false
	}
	var end unwind.Walked
	g.stack, end = g.unwinder.Walk(at.above, g.space, &at.in, maxGoroutineFrames)
	if end == unwind.Astray {
		return nil, false
	}
	return g.stack, end == unwind.ToTop
}
