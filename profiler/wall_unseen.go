package profiler

import (
	"maps"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
)

// A goroutine that goes on before its stack is read was seen to wait, and that counts; what it waited in is not known. Registers and depth of its stack say
// little: functions whose frames have the same size look alike. So it is counted by itself until a recording, or a window, is over. Then what it does when it stops
// like this is what its stack said at other times, if that was always the same.

// wallPlace is where a goroutine stopped, without its stack.
type wallPlace struct {
	id                       uint64 // of the goroutine; 0: any
	start, pc, depth, labels uint64
	reason                   string
	state                    goruntime.State
}

func (s *stopped) place() wallPlace {
	return wallPlace{id: s.id, start: s.start, pc: s.pc, depth: s.end - s.sp, labels: s.labels, reason: s.reason, state: s.state}
}

// habit is how one goroutine stops in one place.
type habit struct {
	told
	whole, long, unseen int        // times that its stack was read; that the next snapshot found it there, too; that it went on before
	moved               *wallGroup // those of these times that are not settled; nil: none
	asked               bool       // there were such in this window
}

// told is what stacks say of a place.
type told struct {
	group  *wallGroup // the last one; nil: none was read
	common int        // frames from the root that are of the same functions in all
	differ bool       // there are other frames
}

// Limits on whose habits are remembered.
const (
	maxHabits = 1 << 12
	// A goroutine that has stopped in a place more often than this is not like those that come and go.
	passing = 2
	// So many must have been seen to come and go, and one in so many of them all, for others to be as they are.
	minPassing, perPassing = 3, 8
	// A goroutine that mostly waits for long in a place goes on unseen there once in so many times at most: if it does more often, it is elsewhere.
	seldom = 8
)

// tell adds a stack of which so many frames are known to be common to all.
func (t *told) tell(p *wallProgram, g *wallGroup, common int) {
	if t.group == nil {
		t.group, t.common = g, common
		return
	}
	if t.group != g {
		common = min(common, p.common(t.group.Stack, g.Stack))
		t.differ = t.differ || common < len(g.Stack) || len(g.Stack) != len(t.group.Stack)
	}
	t.group, t.common = g, min(t.common, common)
}

// common is how many frames from the root are of the same functions.
func (p *wallProgram) common(a, b []objfile.Addr) (n int) {
	for n < min(len(a), len(b)) {
		x, y := a[len(a)-1-n], b[len(b)-1-n]
		if x != y && p.outermost(x) != p.outermost(y) {
			break
		}
		n++
	}
	return n
}

// outermost is the function that an address is in, whatever is inlined there.
func (p *wallProgram) outermost(a objfile.Addr) string {
	frames := p.g.sym.Frames(a)
	if len(frames) == 0 {
		return ""
	}
	return frames[len(frames)-1].Func
}

// habit of a goroutine that has stopped; nil: there is no room.
func (p *wallProgram) habit(s *stopped) *habit {
	at, room := s.place(), p.groups.room
	if h := p.habits[at]; h != nil {
		return h
	}
	if room.habits >= room.maxHabits {
		p.settle()
		p.forgetHabits()
		if room.habits >= room.maxHabits {
			return nil
		}
	}
	room.habits++
	h := &habit{}
	p.habits[at] = h
	return h
}

func (p *wallProgram) forgetHabits() {
	p.groups.room.habits -= len(p.habits)
	clear(p.habits)
}

// whole notes that a goroutine's stack was read. again: it had gone on, and stopped in the same way once more.
func (p *wallProgram) whole(s *stopped, again bool) {
	h := p.habit(s)
	if h == nil {
		return
	}
	h.tell(p, s.group, len(s.group.Stack))
	if !again {
		h.whole++
	}
}

// stays notes that the next snapshot has found a goroutine where it was.
func (p *wallProgram) stays(s *stopped) {
	if h := p.habits[s.place()]; h != nil {
		h.long++
	}
}

// known counts a goroutine that went on before its stack was read.
func (p *wallProgram) known(s *stopped) {
	key := wallKey{State: s.state, Reason: s.reason, Leaf: movedFrame}
	if a, ok := p.g.space.Resolve(s.start); ok {
		key.Stack = []objfile.Addr{a}
	}
	if h := p.habit(s); h == nil {
		s.group = p.groups.find(&key)
	} else {
		h.unseen++
		if h.moved == nil {
			h.moved = &wallGroup{wallKey: key}
		}
		s.group = h.moved
	}
	p.groups.add(s.group)
	s.group.stops++
	p.glance(s, false)
}

// settle decides what those did that went on unseen.
func (p *wallProgram) settle() {
	var others map[wallPlace]*passers
	for at, h := range p.habits {
		if h.moved == nil {
			continue
		}
		if h.group == nil && others == nil {
			others = p.passers()
		}
		to, itself := p.settled(h, others[at.anybody()])
		p.groups.settle(h.moved, to, itself)
		h.moved, h.asked = nil, true
	}
}

// settled is what a goroutine did that went on unseen. itself: nobody else was asked.
func (p *wallProgram) settled(h *habit, others *passers) (g *wallGroup, itself bool) {
	elsewhere := 2*h.long > h.whole && seldom*h.unseen > h.whole
	switch {
	case h.group == nil && h.unseen <= passing && others.tells():
		return others.group, false
	case h.group == nil || elsewhere:
		return p.groups.find(&h.moved.wallKey), true
	case h.differ:
		key := h.moved.wallKey
		if h.common > 0 {
			key.Stack = h.group.Stack[len(h.group.Stack)-h.common:]
		}
		return p.groups.find(&key), true
	}
	return h.group, true
}

// passers are goroutines that come and go: what is seen of each of them is one of what all of them do.
type passers struct {
	told
	whole, unseen int
}

func (at wallPlace) anybody() wallPlace {
	at.id = 0
	return at
}

// passers by place.
func (p *wallProgram) passers() map[wallPlace]*passers {
	all := make(map[wallPlace]*passers)
	for at, h := range p.habits {
		q := all[at.anybody()]
		if q == nil {
			q = &passers{}
			all[at.anybody()] = q
		}
		if h.group == nil {
			q.unseen++
			continue
		}
		q.tell(p, h.group, h.common)
		q.differ = q.differ || h.differ
		if h.long == 0 && h.whole+h.unseen <= passing {
			q.whole++
		}
	}
	return all
}

// tells says whether one that nobody has seen whole does what they do.
func (q *passers) tells() bool {
	return !q.differ && q.whole >= minPassing && q.unseen <= perPassing*q.whole
}

// sweepHabits forgets those of goroutines that are not as the last snapshot saw them, but for those that matter. Groups that are needed are kept.
func (p *wallProgram) sweepHabits() {
	for _, h := range p.habits {
		if h.group != nil && h.asked {
			h.group.kept = true
		}
		h.asked = false
	}
	before := len(p.habits)
	maps.DeleteFunc(p.habits, func(_ wallPlace, h *habit) bool { return h.group == nil || !h.group.kept || h.group == &p.groups.lost })
	p.groups.room.habits -= before - len(p.habits)
}
