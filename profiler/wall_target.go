package profiler

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/goruntime"
)

// wallTarget is a process whose goroutines are sampled.
type wallTarget struct {
	w        *Wall
	kinds    []string       // KindWall, and what is to be estimated
	programs []*wallProgram // that it has executed, the last is the one that it executes now
	*wallProgram

	began, ended time.Time
	slot, moment time.Time     // the beginning of the time in which there is one snapshot; when that is due
	length       time.Duration // of the slot
	snapshots    int
	failed       int // snapshots
	failure      error
	goroutines   int           // in the last snapshot
	sum          int           // of goroutines, in all snapshots
	took, spent  time.Duration // CPU time: of the last snapshot, of all of them
	cost         wallCost
	ran, squares float64 // sum of how many goroutines ran in each snapshot, and of the squares

	cpu   []*export.Profile // what its goroutines did that ran
	blind bool              // that is not known
}

// wallProgram is what is known of one program that a process executes.
type wallProgram struct {
	g       *Goroutines
	threads threads
	groups  wallGroups

	seen    map[uint64]*stopped // by g: where it was, and what it is counted as
	pending map[uint64]*stopped // of this snapshot: whose stacks are being read
	habits  map[wallPlace]*habit
	count   int       // goroutines in it
	running wallGroup // those that ran, or were in a system call and waited for nothing
	began   time.Time
	index   int // of this snapshot, from 1
	wants   func(goruntime.State, string) bool
	twice   bool // waits that contend are looked at twice
}

// stopped is a goroutine that does not run.
type stopped struct {
	id, pc, sp, labels, end, start uint64
	reason                         string
	state                          goruntime.State
	stops                          uint8
	sure                           bool

	group       *wallGroup // nil: a goroutine of the runtime
	first, last int        // snapshots that have found it so
	looked      *glance    // nil: it is not looked at twice
}

// maxSeen bounds what is remembered of goroutines from one snapshot to the next.
const maxSeen = 1 << 16

func newWallTarget(w *Wall, g *Goroutines) *wallTarget {
	t := &wallTarget{w: w}
	t.execute(g, time.Now())
	return t
}

// execute makes g the program of t.
func (t *wallTarget) execute(g *Goroutines, now time.Time) {
	if t.wallProgram != nil {
		t.end(now)
	}
	t.wallProgram = &wallProgram{
		g: g, began: now, threads: newThreads(t.w.cfg.ProcRoot, int(g.pid)), wants: t.wants,
		seen: make(map[uint64]*stopped), pending: make(map[uint64]*stopped), habits: make(map[wallPlace]*habit),
		groups: wallGroups{room: t.w.room()},
	}
	g.space.ReadDirectly()
	g.mem = watched{g.mem, t.w.reading}
	t.programs = append(t.programs, t.wallProgram)
}

// estimates says whether any kind is an estimate.
func (t *wallTarget) estimates() bool {
	return slices.ContainsFunc(t.kinds, func(kind string) bool { return kind != KindWall })
}

// wants says whether any kind is about goroutines that do so.
func (t *wallTarget) wants(s goruntime.State, reason string) bool {
	return slices.ContainsFunc(t.kinds, func(kind string) bool {
		if kind == KindWall {
			return t.w.wants(s, reason)
		}
		return s == goruntime.Waiting && contends(kind, reason)
	})
}

// end has the last snapshot count up to the end, and finds who has waited all the time.
func (p *wallProgram) end(now time.Time) {
	p.groups.end(now)
	p.settle()
	for _, s := range p.seen {
		if s.sure && s.group != nil && s.first == 1 && s.last == p.index {
			s.group.whole++
		}
	}
}

// snapshot counts what each goroutine does at a moment.
func (t *wallTarget) snapshot(ctx context.Context, at time.Time) error {
	p := t.wallProgram
	p.count, p.index, p.twice = 0, p.index+1, t.estimates()
	p.threads.begin()
	_, err := p.g.Read(ctx, GoroutineQuery{Labels: true, System: true, Want: p.look}, func(g *Goroutine) error {
		p.visit(g)
		return nil
	})
	for addr, s := range p.pending { // which ended, or changed whenever it was read
		p.known(s)
		p.forget(addr)
	}
	clear(p.pending)
	if err != nil {
		p.groups.drop()
		return err
	}
	t.goroutines, t.sum = p.count, t.sum+p.count
	ran := float64(p.running.now)
	t.ran, t.squares = t.ran+ran, t.squares+ran*ran
	p.groups.taken(at, p.began)
	return nil
}

// look takes note of what a goroutine does, once for each snapshot: what it does when its stack is read, a moment later, would favour what
// lasts. It says whether its stack must be read: mostly goroutines are where they were.
func (p *wallProgram) look(raw *goruntime.Goroutine) bool {
	start := p.g.function(raw.StartPC)
	if p.g.system(&Goroutine{Start: start}) && !callsProgram(start) {
		return false
	}
	s := p.stopped(raw)
	switch s.state {
	case goruntime.Syscall:
		if p.threads.busy(p.g, raw.M) {
			s.state = goruntime.Running
		}
	case goruntime.Waiting, goruntime.Leaked, goruntime.Runnable, goruntime.Preempted:
	default: // its stack may be on the move, too
		s.state = goruntime.Running
	}
	p.count++
	if s.state == goruntime.Running {
		p.groups.add(&p.running)
		return false
	}
	if !p.wants(s.state, s.reason) {
		return false
	}
	if was, ok := p.seen[raw.Addr]; ok && was.sure && was.same(&s) {
		if was.repeated(); was.first == was.last {
			p.stays(was)
		}
		was.last = p.index
		p.groups.add(was.group)
		return false
	}
	if p.twice {
		s.looked = &glance{at: p.lastRead()}
	}
	kept := s // most are not, and need no memory of their own
	p.pending[raw.Addr] = &kept
	return true
}

// stopped is what a look at a goroutine has found.
func (p *wallProgram) stopped(raw *goruntime.Goroutine) stopped {
	s := stopped{
		first: p.index, last: p.index, id: raw.ID, pc: raw.PC, sp: raw.SP, labels: raw.LabelsAt, end: raw.StackEnd, start: raw.StartPC,
		state: raw.State, stops: raw.Stops, sure: raw.Sure,
	}
	if s.state == goruntime.Waiting || s.state == goruntime.Leaked {
		s.reason = raw.Reason
	}
	return s
}

// callsProgram says whether functions of the program are called by one of the runtime's (runtime/mfinal.go).
func callsProgram(start string) bool {
	switch start {
	case "runtime.runfinq", "runtime.runFinalizers", "runtime.runCleanups":
		return true
	}
	return false
}

// same says whether a goroutine has not run since it was looked at.
func (s *stopped) same(now *stopped) bool {
	was := *s
	was.group, was.first, was.last, was.looked = now.group, now.first, now.last, now.looked
	return was == *now
}

// visit counts a goroutine whose stack has been read by now.
func (p *wallProgram) visit(g *Goroutine) {
	s, ok := p.pending[g.Addr]
	if !ok {
		return
	}
	delete(p.pending, g.Addr)
	if g.System && g.ID == s.id {
		s.group = nil
		p.remember(g.Addr, s)
		return
	}
	if g.Stack == nil || g.ID != s.id || g.PC != s.pc || g.SP != s.sp || g.StartPC != s.start {
		p.known(s)
		p.forget(g.Addr)
		return
	}
	s.group = p.groups.find(&wallKey{State: s.state, Reason: s.reason, Stack: g.Stack, Labels: g.Labels, Complete: g.Complete})
	again := s.sure && g.Stops != s.stops
	p.whole(s, again)
	if again {
		p.known(s)
		p.forget(g.Addr)
		return
	}
	p.groups.add(s.group)
	s.group.stops++
	p.glance(s, true)
	p.remember(g.Addr, s)
}

func (p *wallProgram) remember(addr uint64, s *stopped) {
	if _, ok := p.seen[addr]; !ok {
		if p.groups.room.seen >= p.groups.room.maxSeen {
			return
		}
		p.groups.room.seen++
	}
	p.seen[addr] = s
}

func (p *wallProgram) forget(addr uint64) {
	if _, ok := p.seen[addr]; ok {
		delete(p.seen, addr)
		p.groups.room.seen--
	}
}

// sweep forgets what is not as the last snapshot saw it, with all that was kept for it.
func (p *wallProgram) sweep() {
	for addr, s := range p.seen {
		switch {
		case s.last != p.index || s.group == &p.groups.lost:
			p.forget(addr)
		case s.group != nil:
			s.group.kept = true
		}
	}
	p.sweepHabits()
	p.groups.sweep()
}

// leave gives back what p has of the room that it shares.
func (p *wallProgram) leave() {
	p.groups.room.seen -= len(p.seen)
	clear(p.seen)
	p.forgetHabits()
	p.groups.sweep()
}

// userStart says whether a CPU profile's root function is that of a goroutine of the program.
func userStart(name string) bool {
	switch {
	case !strings.HasPrefix(name, "runtime."), callsProgram(name):
		return true
	}
	switch name {
	case "runtime.main", "runtime.handleAsyncEvent", "runtime.corostart":
		return true
	}
	return false
}
