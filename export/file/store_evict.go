package file

import (
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"syscall"
	"time"
)

// storeStats is read while a file is being written, which may take long.
type storeStats struct {
	files, bytes                  atomic.Int64
	written, failed               atomic.Uint64
	bySize, byCount, byAge, byBad atomic.Uint64
	byFull                        atomic.Uint64
	leftovers, unreadable         atomic.Uint64
	indexed                       atomic.Bool
}

func (s *storeStats) size(x *index) {
	s.files.Store(int64(x.files()))
	s.bytes.Store(x.blocks * blockLen)
}

// StoreStats says what a Store holds and has done since it was opened.
type StoreStats struct {
	Files, Bytes    int64 // what there is; Bytes in whole blocks
	Indexed         bool  // all that was there before is counted; until then Files and Bytes grow
	Written, Failed uint64
	// Removed files by reason: the limits on size, number and age, and a full disk.
	RemovedSize, RemovedCount, RemovedAge, RemovedFull uint64
	NotRemoved                                         uint64 // files that the limits asked to remove, and that could not be
	Leftovers                                          uint64 // removed: temporary files of killed programs, and empty files
	Unreadable                                         uint64 // files and directories that could not be counted
}

// Stats may be called at any time, and does not wait.
func (s *Store) Stats() StoreStats {
	c := &s.stats
	return StoreStats{
		Files: c.files.Load(), Bytes: c.bytes.Load(), Indexed: c.indexed.Load(),
		Written: c.written.Load(), Failed: c.failed.Load(),
		RemovedSize: c.bySize.Load(), RemovedCount: c.byCount.Load(), RemovedAge: c.byAge.Load(), RemovedFull: c.byFull.Load(),
		NotRemoved: c.byBad.Load(), Leftovers: c.leftovers.Load(), Unreadable: c.unreadable.Load(),
	}
}

const (
	clockStep     = time.Minute // by which the wall clock may differ from the time that passed, since the last look at it
	clockPatience = time.Hour   // after a step forward, until files are removed for their age
)

// tick returns the time. Where the clock was set back, names that are now of the future are noted. Where it was set
// forward, ages are not believed for an hour: a mistake that is corrected soon shall not cost a week of profiles. A suspended
// machine looks the same.
func (s *Store) tick() time.Time {
	wall, mono := s.opt.clock()
	if wall.Before(s.wall) {
		s.index.setBack(wall.UnixMilli())
	}
	if wall.Sub(s.wall)-(mono-s.mono) > clockStep {
		s.ages = mono + clockPatience
	}
	s.wall, s.mono = wall, mono
	s.index.advance(wall.UnixMilli())
	return wall
}

// evictTo removes files until files more, of blocks in all, are within the limits.
func (s *Store) evictTo(now time.Time, files int, blocks int64) (err error) {
	x := &s.index
	defer func() { s.stats.size(x) }()
	for x.files() > 0 && err == nil {
		switch {
		case x.files()+files > s.opt.MaxFiles:
			err = s.evict(x.oldest(), &s.stats.byCount)
		case s.opt.MaxSize > 0 && (x.blocks+blocks)*blockLen > s.opt.MaxSize:
			err = s.evict(x.oldest(), &s.stats.bySize)
		case s.tooOld(now):
			err = s.evict(&x.past, &s.stats.byAge)
		default:
			return nil
		}
	}
	return err
}

func (s *Store) tooOld(now time.Time) bool {
	q := &s.index.past
	return s.opt.MaxAge > 0 && s.mono >= s.ages && q.n > 0 &&
		now.UnixMilli()-q.at(0).milli() > s.opt.MaxAge.Milliseconds()
}

// evict removes the oldest file of q. An error says that this is no time to remove anything; else a file that cannot be
// removed is not tried again before the next start.
func (s *Store) evict(q *queue, reason *atomic.Uint64) error {
	p, f := s.index.oldestOf(q)
	err := s.root.Remove(p.dir() + "/" + f.name())
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		reason.Add(1)
	case passing(err):
		return fmt.Errorf("remove the oldest file: %w", err)
	default:
		s.stats.byBad.Add(1)
	}
	s.index.pop(q)
	s.removeDirs(p)
	return nil
}

// passing errors are of the system, not of the file.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// makeRoom removes the oldest files of a full disk, about twice as much as is to be written: no more, for it may be
// somebody else who fills it. false: there is nothing to remove.
func (s *Store) makeRoom(blocks int64) bool {
	x := &s.index
	defer func() { s.stats.size(x) }()
	want := max(x.blocks-2*blocks, 0)
	some := x.files() > 0
	for x.files() > 0 && x.blocks > want {
		if err := s.evict(x.oldest(), &s.stats.byFull); err != nil {
			return false
		}
	}
	return some
}
