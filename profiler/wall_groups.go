package profiler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
)

// wallKey is what goroutines do.
type wallKey struct {
	State    goruntime.State
	Reason   string
	Leaf     string // a frame above the stack; "": none
	Stack    []objfile.Addr
	Labels   []goruntime.Label
	Complete bool
}

// wallGroup is how often and for how long goroutines were seen to do the same.
type wallGroup struct {
	wallKey
	count  int64
	weight time.Duration
	number int   // in order of appearance
	now    int64 // goroutines in the snapshot that is being taken
	stops  int64 // times that a goroutine was found to have stopped like this since it was last looked at
	whole  int64 // goroutines that were there all the time; see wallProgram.end
	kept   bool  // while it is found out which are needed no more
	once   *gaps // of waits that were in one snapshot only; nil: none is looked at twice

	settled *wallGroup // as which this one counts from now on; nil: as itself
}

// wallRoom is what may be remembered of goroutines, and what is, of all programs that share it.
type wallRoom struct {
	maxGroups, maxFrames, maxSeen, maxHabits int
	groups, frames, seen, habits             int
}

func newWallRoom() *wallRoom {
	return &wallRoom{maxGroups: maxGroups, maxFrames: maxGroupFrames, maxSeen: maxSeen, maxHabits: maxHabits}
}

// wallGroups are those of one program.
type wallGroups struct {
	room   *wallRoom
	all    map[uint64]*wallGroup
	frozen []*wallGroup // of a window that has ended: there are no others then
	twice  int          // groups that have gaps
	lost   wallGroup    // what came when there were too many
	now    []*wallGroup // of the snapshot that is being taken
	before []seenGroup  // of the last one
	at     time.Time    // when that was taken; zero: there was none
	last   int          // wallGroup.number
}

type seenGroup struct {
	*wallGroup
	n int64
}

// find returns the group of a key, which it copies; nil: there are too many.
func (s *wallGroups) find(k *wallKey) *wallGroup {
	if s.all == nil {
		s.all = make(map[uint64]*wallGroup)
	}
	h := k.hash()
	for group := s.all[h]; group != nil; group = s.all[h] {
		if group.equal(k) {
			return group
		}
		h++
	}
	frames := framesOf(k.Stack, k.Labels)
	if s.room.groups >= s.room.maxGroups || s.room.frames+frames > s.room.maxFrames {
		return &s.lost
	}
	s.last++
	group := &wallGroup{wallKey: *k, number: s.last}
	group.Stack, group.Labels = slices.Clone(k.Stack), slices.Clone(k.Labels)
	s.all[h] = group
	s.room.groups++
	s.room.frames += frames
	return group
}

func (k *wallKey) equal(o *wallKey) bool {
	return k.State == o.State && k.Reason == o.Reason && k.Leaf == o.Leaf && k.Complete == o.Complete &&
		slices.Equal(k.Stack, o.Stack) && slices.Equal(k.Labels, o.Labels)
}

func (k *wallKey) hash() uint64 {
	h := mix(hashStack(k.Stack), uint64(k.State))
	words := []string{k.Reason, k.Leaf}
	for _, l := range k.Labels {
		words = append(words, l.Key, l.Value)
	}
	for _, text := range words {
		for i := range len(text) {
			h = mix(h, uint64(text[i]))
		}
	}
	return h
}

// add counts one goroutine in the snapshot that is being taken. Those of the runtime have no group.
func (s *wallGroups) add(g *wallGroup) {
	if g == nil {
		return
	}
	if g.now == 0 {
		s.now = append(s.now, g)
	}
	g.now++
}

// taken ends a snapshot. Each moment counts as it was seen in the snapshot that is nearest to it, so that those that come late, because the
// CPUs are busy, stand for more time; since is when the first began to count.
func (s *wallGroups) taken(at, since time.Time) {
	if !s.at.IsZero() {
		since = s.at.Add(at.Sub(s.at) / 2)
		s.weigh(since.Sub(s.at))
	}
	s.before = s.before[:0]
	for _, g := range s.now {
		to := g.is()
		s.before = append(s.before, seenGroup{to, g.now})
		to.count += g.now
	}
	s.drop()
	s.weigh(at.Sub(since))
	s.at = at
}

// weigh has the last snapshot count for some time.
func (s *wallGroups) weigh(d time.Duration) {
	for _, g := range s.before {
		g.is().weight += time.Duration(g.n) * d
	}
}

// drop forgets the snapshot that is being taken.
func (s *wallGroups) drop() {
	for _, g := range s.now {
		g.now = 0
	}
	s.now = s.now[:0]
}

// is what g counts as.
func (g *wallGroup) is() *wallGroup {
	if g.settled != nil {
		return g.settled
	}
	return g
}

// settle has g, which is none of s, count as one of them. gaps: its waits are as long as that one's.
func (s *wallGroups) settle(g, to *wallGroup, gaps bool) {
	to.count, to.weight, to.stops = to.count+g.count, to.weight+g.weight, to.stops+g.stops
	g.settled = to
	switch {
	case g.once == nil:
		return
	case gaps && to.once == nil:
		to.once = g.once
		return
	case gaps:
		to.once.add(g.once)
	}
	s.twice--
}

// end has the last snapshot count up to the end.
func (s *wallGroups) end(at time.Time) {
	if !s.at.IsZero() {
		s.weigh(at.Sub(s.at))
		s.at = at
	}
}

// sorted are the groups, those of the most time first.
func (s *wallGroups) sorted() []*wallGroup {
	all := slices.AppendSeq(slices.Clone(s.frozen), maps.Values(s.all))
	slices.SortFunc(all, func(a, b *wallGroup) int {
		return cmp.Or(-cmp.Compare(a.weight, b.weight), cmp.Compare(a.number, b.number))
	})
	return all
}

// freeze returns what was counted, and begins anew.
func (s *wallGroups) freeze() (out wallGroups) {
	for _, g := range s.all {
		if g.count > 0 {
			out.frozen = append(out.frozen, g.freeze())
		}
	}
	out.lost = *s.lost.freeze()
	s.before, s.at = s.before[:0], time.Time{}
	return out
}

// freeze returns what was counted, and begins anew.
func (g *wallGroup) freeze() *wallGroup {
	was := &wallGroup{wallKey: g.wallKey, count: g.count, weight: max(g.weight, 0), number: g.number}
	g.count, g.weight, g.stops, g.whole = 0, 0, 0, 0
	return was
}

// sweep drops the groups that are not to be kept.
func (s *wallGroups) sweep() {
	for _, g := range s.all {
		if !g.kept {
			s.room.groups--
			s.room.frames -= framesOf(g.Stack, g.Labels)
		}
	}
	kept := make(map[uint64]*wallGroup, len(s.all))
	for _, g := range s.all {
		if !g.kept {
			continue
		}
		g.kept = false
		h := g.hash()
		for kept[h] != nil {
			h++
		}
		kept[h] = g
	}
	s.all = kept
}
