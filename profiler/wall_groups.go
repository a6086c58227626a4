package profiler

import (
	"cmp"
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
	number int // in order of appearance
}

// wallGroups are those of one program. The zero value has none.
type wallGroups struct {
	all    map[uint64]*wallGroup
	frames int
	lost   wallGroup // what came when there were too many
}

// find returns the group of a key, which it copies; nil: there are too many.
func (s *wallGroups) find(k *wallKey) *wallGroup {
	if s.all == nil {
		s.all = make(map[uint64]*wallGroup)
	}
	h := k.hash()
	for ; s.all[h] != nil && !s.all[h].equal(k); h++ {
	}
	group := s.all[h]
	if group != nil {
		return group
	}
	if len(s.all) >= maxGroups || s.frames+len(k.Stack) > maxGroupFrames {
		return &s.lost
	}
	group = &wallGroup{wallKey: *k, number: len(s.all)}
	group.Stack, group.Labels = slices.Clone(k.Stack), slices.Clone(k.Labels)
	s.all[h] = group
	s.frames += len(k.Stack)
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

// add counts one goroutine for some time; those of the runtime have no group.
func (s *wallGroups) add(g *wallGroup, weight time.Duration) {
	if g == nil {
		return
	}
	g.count++
	g.weight += weight
}

// sorted are the groups, those of the most time first.
func (s *wallGroups) sorted() []*wallGroup {
	all := make([]*wallGroup, 0, len(s.all))
	for _, g := range s.all {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *wallGroup) int {
		return cmp.Or(-cmp.Compare(a.weight, b.weight), cmp.Compare(a.number, b.number))
	})
	return all
}
