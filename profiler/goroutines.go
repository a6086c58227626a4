package profiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
	"github.com/pprofd/pprofd/unwind"
)

// KindGoroutine is what the goroutines of a process do at one moment.
const KindGoroutine = "goroutine"

// Goroutines reads the goroutines of one process, which goes on meanwhile. It belongs to one goroutine.
type Goroutines struct {
	process
	images    *objfile.Images
	layout    *goruntime.Goroutines
	mem       goruntime.Memory
	bias      uint64
	unwinder  *unwind.Unwinder
	sym       *symbolize.Symbolizer
	functions map[uint64]string // that goroutines begin with, by run-time address
	clock     int64             // what the process's monotonic clock is ahead of ours, ns
	now       int64             // by that clock, when reading began
	threads   *stoppedThreads   // nil: the process goes on
	ran       []ran             // goroutines whose stacks are to be sampled
	notes     []string
	took      time.Duration
	stack     []objfile.Addr
	buffers   *goruntime.GoroutineBuffers
	alone     *goroutineReader // of this process alone; nil: it is somebody else's, and so is the space
}

// Goroutine is one of another process, as it was when it was read.
type Goroutine struct {
	*goruntime.Goroutine
	Stack    []objfile.Addr // leaf first, addresses of calls; valid until the next goroutine
	Complete bool           // Stack is there, down to the first function
	System   bool           // the runtime's own, which tracebacks leave out
	// Later is how much later Stack was sampled than the rest was read, of a goroutine that runs; 0: it is of the same moment.
	Later   time.Duration
	Killed  bool         // its thread is the one in which the process ended, of a core file
	Creator objfile.Addr // the go statement that started it; 0: none
	Start   string       // the function that it began with
	// Waited is how long it has waited at least: since a garbage collection first saw it wait. 0: none has.
	Waited time.Duration
}

// GoroutineQuery says which goroutines are asked for, and how much of them.
type GoroutineQuery struct {
	Labels bool // with their labels
	System bool // the runtime's own, too
	// Running is how long the BPF sampler may look for the stacks of goroutines that run, which come last then; 0: they have none.
	Running time.Duration
	// Want says before a stack is read whether the goroutine is asked for: nil: all are. What it is told may have changed
	// until the stack is read.
	Want func(*goruntime.Goroutine) bool
}

// maxGoroutineFrames bounds the frames of a stack, as those of samples.
const maxGoroutineFrames = 1024

// OpenGoroutines opens a process. Errors are those of opener.open, and wrap goruntime.ErrNoGoroutines where the runtime's layout is not known.
func OpenGoroutines(pid int, root string) (*Goroutines, error) {
	if root == "" {
		root = "/proc"
	}
	o := newOpener(root)
	proc, err := o.open(pid)
	if err != nil {
		return nil, err
	}
	return o.openAlone(proc, o.procs.Proc(pid).MonotonicOffset())
}

// youngFor bounds how long the runtime of a process that has just begun is waited for.
const (
	youngFor  = time.Second
	youngWait = 10 * time.Millisecond
)

// verify makes sure that the layout is the process's.
func (g *Goroutines) verify() error {
	// Yama lets everybody see what is mapped, and not read it: that says nothing of the layout.
	if _, err := g.mem.ReadAt(make([]byte, 8), int64(g.layout.Globals.AllGLen+g.bias)); errors.Is(err, os.ErrPermission) {
		return err
	}
	err := g.layout.Verify(g.mem, g.bias)
	for waited := time.Duration(0); err != nil && waited < youngFor && g.age() < youngFor; waited += youngWait {
		time.Sleep(youngWait)
		err = g.layout.Verify(g.mem, g.bias)
	}
	if err == nil {
		return nil
	}
	if g.layout.UseDWARF(g.space.Main().Image.File) == nil && g.layout.Verify(g.mem, g.bias) == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", g.layout.Version, err)
}

// borrowed tells of a version whose runtime turned out to be as an older one's.
func (g *Goroutines) borrowed() []string {
	if !g.layout.Borrowed() {
		return nil
	}
	return []string{fmt.Sprintf("%s is newer than what this pprofd knows; its runtime looks like that of the newest known", g.layout.Version)}
}

// Version of Go that the program was built with.
func (g *Goroutines) Version() string { return g.layout.Version }

// Comm is the process's name.
func (g *Goroutines) Comm() string { return g.comm }

// Frames are those of an address of a stack, innermost first: more than one where calls were inlined. They must not be modified.
func (g *Goroutines) Frames(a objfile.Addr) []symbolize.Frame { return g.sym.Frames(a) }

// Read visits each goroutine that is asked for. What it takes does not depend on how many there are.
func (g *Goroutines) Read(ctx context.Context, q GoroutineQuery, visit func(*Goroutine) error) (goruntime.GoroutineCounts, error) {
	g.now = g.monotonic()
	if g.threads != nil {
		g.threads.left = len(g.threads.all)
	}
	start := time.Now()
	counts, err := g.layout.Read(ctx, g.mem, g.bias, goruntime.ReadGoroutines{
		Labels: q.Labels, Want: q.Want, Buffers: g.buffers,
		Visit: func(raw *goruntime.Goroutine) (goruntime.Verdict, error) { return g.visit(raw, &q, visit) },
	})
	g.took = time.Since(start)
	if err != nil {
		err, q.Running = fmt.Errorf("process %d (%s): %w", g.pid, g.comm, err), 0 // nobody waits for more
	}
	return counts, cmp.Or(err, g.visitRunning(ctx, q.Running, visit))
}

// Took is how long the last reading took, without what came later of those that run.
func (g *Goroutines) Took() time.Duration { return g.took }

// visit walks a goroutine's stack and hands it on, unless it must be read again.
func (g *Goroutines) visit(raw *goruntime.Goroutine, q *GoroutineQuery, visit func(*Goroutine) error) (goruntime.Verdict, error) {
	out := Goroutine{Goroutine: raw, Start: g.function(raw.StartPC)}
	if raw.Stack != nil {
		var end unwind.Walked
		g.stack, end = g.unwinder.Walk(g.stack[:0], g.space, &unwind.Stopped{
			PC: raw.PC, SP: raw.SP, LR: raw.LR, Stack: raw.Stack, End: raw.StackEnd, Top: raw.Top,
		}, maxGoroutineFrames)
		switch {
		case end == unwind.ToEdge && !raw.Last:
			return goruntime.More, nil
		case end == unwind.Astray && !raw.Last:
			return goruntime.Doubtful, nil
		case end == unwind.Astray:
			raw.Inconsistent = true
		case !raw.Last && !g.sure(raw):
			return goruntime.Doubtful, nil
		}
		out.Stack, out.Complete = g.stack, end == unwind.ToTop
		if raw.Inconsistent {
			out.Stack = nil
		}
	}
	if g.threads != nil && raw.Stack == nil {
		out.Stack, out.Complete = g.running(raw)
	}
	out.Killed = g.threads != nil && raw.ID != 0 && raw.ID == g.threads.killed
	if out.System = g.system(&out); out.System && !q.System {
		return goruntime.Taken, nil
	}
	out.Waited = g.waited(raw)
	if raw.ID != mainGoid {
		out.Creator = g.creator(raw.GoPC)
	}
	if g.keepRunning(q, &out) {
		return goruntime.Taken, nil
	}
	return goruntime.Taken, visit(&out)
}

// sure says whether a stack that makes sense is the goroutine's at one moment: where the runtime does not count how often it runs, it must
// be the same twice.
func (g *Goroutines) sure(raw *goruntime.Goroutine) bool {
	if raw.Sure {
		return true
	}
	before := raw.Note
	raw.Note = hashStack(g.stack) | 1
	return raw.Note == before
}

// function is the name of the one that begins at a run-time address.
func (g *Goroutines) function(pc uint64) string {
	if name, ok := g.functions[pc]; ok {
		return name
	}
	if len(g.functions) >= maxFunctions {
		clear(g.functions)
	}
	name := ""
	if a, ok := g.space.Resolve(pc); ok {
		if frames := g.sym.Frames(a); len(frames) > 0 {
			name = frames[len(frames)-1].Func
		}
	}
	g.functions[pc] = name
	return name
}

const (
	maxFunctions = 1 << 16
	mainGoid     = 1 // which no go statement started
)

// system says whether a goroutine is the runtime's own (runtime/traceback.go: isSystemGoroutine): its first function is, but for those
// that call the program's. Those that run finalizers and cleanups are the runtime's while they wait for one.
func (g *Goroutines) system(out *Goroutine) bool {
	if !strings.HasPrefix(out.Start, "runtime.") {
		return false
	}
	switch out.Start {
	case "runtime.main", "runtime.handleAsyncEvent", "runtime.corostart":
		return false
	case "runtime.runfinq", "runtime.runFinalizers", "runtime.runCleanups":
		return !g.callsOut(out.Stack)
	}
	return true
}

// callsOut says whether there is a function in a stack that is not the runtime's.
func (g *Goroutines) callsOut(stack []objfile.Addr) bool {
	for _, a := range stack {
		for _, f := range g.sym.Frames(a) {
			if !strings.HasPrefix(f.Func, "runtime.") {
				return true
			}
		}
	}
	return false
}

func (g *Goroutines) creator(pc uint64) objfile.Addr {
	a, ok := g.space.Resolve(pc)
	if !ok || pc == 0 {
		return objfile.Addr{}
	}
	a.Off--
	return a
}

// waited is how long a goroutine has waited at least.
func (g *Goroutines) waited(raw *goruntime.Goroutine) time.Duration {
	if raw.WaitSince <= 0 || raw.State == goruntime.Runnable || raw.State == goruntime.Running {
		return 0
	}
	return time.Duration(max(g.now-raw.WaitSince, 0))
}

// monotonic is the process's clock; 0: not known.
func (g *Goroutines) monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return now.Nano() + g.clock
}

// Notes tell what the user should know of symbols, and of the core file.
func (g *Goroutines) Notes() []string {
	return slices.Concat(coreNotes(g.space), g.borrowed(), g.notes, g.sym.Notes())
}
