package ui

import (
	"slices"
	"sync"
	"time"
)

// Limits on the profiles that are kept to be looked at.
const (
	keepTime  = 15 * time.Minute // since somebody has last looked
	keepBytes = 32 << 20         // of all, compressed; also of one
	keepCount = 200
)

// shot is a profile that was taken to be looked at. It is not changed.
type shot struct {
	of      owner
	kind    string
	stamp   string // when it was ready: unique on the shelf
	taken   time.Time
	seconds int    // 0: of a moment
	data    []byte // pprof, compressed
	empty   bool   // without samples

	comments []string // of a profile that is empty
}

// stampFormat has no character that means something in a path.
const stampFormat = "20060102T150405.000"

// name is what it is called in paths.
func (s *shot) name() string { return s.kind + "@" + s.stamp }

// shelf keeps profiles for a while.
type shelf struct {
	mu    sync.Mutex
	shots []*placed // the one that was looked at last is the last
	bytes int
	sweep *time.Timer
}

type placed struct {
	*shot
	looked time.Time
}

func newShelf() *shelf { return &shelf{} }

// add keeps s, under a stamp of its own. The profiles that were not looked at for the longest time make room.
func (s *shelf) add(n *shot, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(now)
	for t := now.UTC(); ; t = t.Add(time.Millisecond) {
		n.taken, n.stamp = t, t.Format(stampFormat)
		if s.find(n.of.Path(), n.name()) < 0 {
			break
		}
	}
	s.shots = append(s.shots, &placed{n, now})
	s.bytes += len(n.data)
	for len(s.shots) > keepCount || s.bytes > keepBytes && len(s.shots) > 1 {
		s.remove(0)
	}
	s.later()
}

// get returns the profile of that name, or nil, and has it kept for longer.
func (s *shelf) get(path, name string, now time.Time) *shot {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(now)
	i := s.find(path, name)
	if i < 0 {
		return nil
	}
	p := s.shots[i]
	p.looked = now
	s.shots = append(slices.Delete(s.shots, i, i+1), p)
	return p.shot
}

// list returns what is kept of the owner with that path, the newest first.
func (s *shelf) list(path string, now time.Time) (list []*shot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(now)
	for _, p := range s.shots {
		if p.of.Path() == path {
			list = append(list, p.shot)
		}
	}
	slices.SortFunc(list, func(a, b *shot) int { return b.taken.Compare(a.taken) })
	return list
}

// last returns the newest that is kept of the owner with that path, or nil.
func (s *shelf) last(path string, now time.Time) *shot {
	if list := s.list(path, now); len(list) > 0 {
		return list[0]
	}
	return nil
}

func (s *shelf) find(path, name string) int {
	return slices.IndexFunc(s.shots, func(p *placed) bool { return p.of.Path() == path && p.name() == name })
}

func (s *shelf) remove(i int) {
	s.bytes -= len(s.shots[i].data)
	s.shots = slices.Delete(s.shots, i, i+1)
}

// drop removes what nobody has looked at for long.
func (s *shelf) drop(now time.Time) {
	for len(s.shots) > 0 && now.Sub(s.shots[0].looked) >= keepTime {
		s.remove(0)
	}
}

// later removes it also where nobody asks.
func (s *shelf) later() {
	if s.sweep == nil {
		s.sweep = time.AfterFunc(keepTime, s.swept)
	}
}

func (s *shelf) swept() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(time.Now())
	s.sweep = nil
	if len(s.shots) > 0 {
		s.sweep = time.AfterFunc(time.Until(s.shots[0].looked.Add(keepTime))+time.Second, s.swept)
	}
}
