package spool

import (
	"cmp"
	"fmt"
	"time"
)

// Destination is one that profiles are kept for.
type Destination struct {
	Name   string        // its identity; becomes a file name, so there should be no secret in it
	MaxAge time.Duration // of a profile, from its Start, that it takes; older ones are dropped. 0: any
}

// Attach says which destinations there are from now on, and returns their cursors, in the same order. A destination that was there
// before keeps its cursor. Others are none any more: their cursors give nothing.
func (s *Spool) Attach(destinations ...Destination) ([]*Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	var list []*Cursor
	present := make(map[*Cursor]bool)
	for _, d := range destinations {
		if d.Name == "" {
			return nil, fmt.Errorf("spool %s: a destination has no name", s.opt.Dir)
		}
		c := s.attach(d)
		if present[c] {
			return nil, fmt.Errorf("spool %s: there are two destinations %q", s.opt.Dir, d.Name)
		}
		present[c] = true
		list = append(list, c)
	}
	for _, c := range s.cursors {
		if !present[c] {
			s.detach(c)
		}
	}
	s.sweep()
	return list, nil
}

func (s *Spool) attach(d Destination) *Cursor {
	file := acksName(d.Name)
	c, ok := s.cursors[file]
	from := uint64(0)
	if ok {
		from = cmp.Or(c.until, maxSeq)
	} else {
		c = s.cursor(file)
	}
	c.attach(d.MaxAge, from)
	if c.file.f == nil || from != maxSeq {
		c.stale = true
		_ = c.rewrite() // counted, and tried again
	}
	c.wake()
	return c
}

func (s *Spool) detach(c *Cursor) {
	c.attached = false
	if c.until == 0 {
		c.until = s.next
		_ = c.write(ack{kind: until, first: c.until})
	}
	s.forget(c)
}

// forget forgets a destination that is none any more and of which there is nothing to know.
func (s *Spool) forget(c *Cursor) {
	if c.attached || len(c.taken) > 0 || c.until == 0 || len(s.batches) > 0 && s.batches[0].first < c.until {
		return
	}
	c.file.remove()
	delete(s.cursors, c.file.name)
}

func (s *Spool) cursor(file string) *Cursor {
	c := &Cursor{
		s: s, file: ackFile{dir: s.dir, name: file}, ready: make(chan struct{}, 1),
		totals: make(map[string]Count), progress: make(map[uint64]*progress), taken: make(map[uint64]*Record),
	}
	s.cursors[file] = c
	return c
}
