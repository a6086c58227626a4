package spool

import (
	"slices"
	"strings"
	"time"

	"github.com/pprofd/pprofd/export/internal/private"
)

// load takes up what is there.
func (s *Spool) load() error {
	d, err := s.dir.Root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	wall, mono := s.opt.Clock()
	s.used(uint64(max(wall.UnixMicro(), 1))) // also where all files are gone
	for _, name := range names {
		switch {
		case private.IsTemp(name):
			_ = s.dir.Remove(name)
			s.stats.Leftovers++
		case strings.HasSuffix(name, suffix):
			if err := s.loadBatch(name); err != nil {
				return err
			}
		}
	}
	s.setAges(wall.UnixNano(), mono)
	for _, name := range names {
		if strings.HasSuffix(name, acksSuffix) && !private.IsTemp(name) {
			if err := s.cursor(name).load(); err != nil {
				return err
			}
		}
	}
	for _, b := range slices.Clone(s.batches) {
		if b.garbled {
			s.evict(b, Corrupt)
		}
	}
	return nil
}

// loadBatch takes up the batch of a file. What is no name that a spool gives is passed over.
func (s *Spool) loadBatch(name string) error {
	named, ok := parseName(name)
	if !ok {
		return nil
	}
	b, err := s.preamble(name)
	if err != nil && !unreadable(err) {
		return err
	}
	if err != nil || b.first != named.first || b.count != named.count || b.total != named.total {
		b = named
		b.garbled = true
	}
	for n := len(s.batches); n > 0 && b.first <= s.batches[n-1].last(); n = len(s.batches) {
		s.stats.RemovedCorrupt++ // a copy under another name: nothing would tell them apart
		prev := s.batches[n-1]
		if !prev.garbled || b.garbled {
			return s.dir.Remove(name)
		}
		s.batches, s.size = s.batches[:n-1], s.size-prev.disk()
		if err := s.dir.Remove(prev.name()); err != nil {
			return err
		}
	}
	s.batches = append(s.batches, b)
	s.size += b.disk()
	s.used(b.last() + 1)
	return nil
}

func (s *Spool) preamble(name string) (*batch, error) {
	f, err := s.dir.Root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := make([]byte, preambleLen)
	if err := readFull(f, p, 0); err != nil {
		return nil, err
	}
	return parsePreamble(p)
}

// setAges says of batches that were there before when they were committed by the clock of now. They do not get younger from one to the next.
func (s *Spool) setAges(wall int64, mono time.Duration) {
	for i, b := range s.batches {
		b.mono = mono - time.Duration(max(wall-b.created, 0))
		if i > 0 {
			b.mono = max(b.mono, s.batches[i-1].mono)
		}
	}
}

// used: sequence numbers before next may have been used.
func (s *Spool) used(next uint64) { s.next = max(s.next, next) }
