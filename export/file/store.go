package file

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip" // in three fifths of the time of compress/gzip

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/internal/private"
)

// MaxStoreFiles is the most that a Store holds: it remembers 24 bytes of each file.
const MaxStoreFiles = 1_000_000

// StoreOptions say where a Store is and how much it keeps.
type StoreOptions struct {
	// Dir is made if it is not there. It has to belong to this user, and nobody else may write to it.
	Dir string
	// MaxSize in bytes, as the disk counts: in blocks of 4 KiB. 0: no limit.
	MaxSize int64
	// MaxAge since the start of a profile's window. 0: no limit.
	MaxAge time.Duration
	// MaxFiles is at most MaxStoreFiles, which 0 means, too.
	MaxFiles int

	clock func() (wall time.Time, mono time.Duration) // of tests
}

// Store is an exporter that keeps profiles in a directory, and the newest of them only:
//
//	DIR/<service>/<pid>-<start>/<kind>-<time>.pb.gz
//
// The labels of the process are in the file as a comment, `labels {name="value", ...}`. Files appear complete and under their names
// at once. They are synced to the disk by Sync, many at a time, for one by one that would cost more than all the rest: a machine
// that loses power loses what was written since.
//
// What is there already is counted in the background, once; the files are told apart by their names, so that copying or
// touching them changes nothing. Where the directory is removed it is made again. A Store is safe for concurrent use.
type Store struct {
	opt StoreOptions

	stopped atomic.Bool
	walking sync.WaitGroup
	stats   storeStats

	mu    sync.Mutex // held while a file is written, and for a batch of the walk
	root  *os.Root
	lock  *os.File
	index index
	fresh map[string]bool // paths that were written while the walk is under way, which may come upon them
	wall  time.Time
	mono  time.Duration
	ages  time.Duration // monotonic time before which nothing is removed for its age
	// unsynced are paths that were written since the last Sync, maxUnsynced of them at most.
	unsynced []string
	raw      bytes.Buffer
	body     bytes.Buffer
	zip      *gzip.Writer
}

var _ export.Exporter = (*Store)(nil)

// ErrClosed is returned by a Store that has been closed.
var ErrClosed = errors.New("the store is closed")

// OpenStore opens or makes the store in o.Dir. Only one at a time may be open there.
func OpenStore(o StoreOptions) (*Store, error) {
	o.MaxFiles = cmp.Or(o.MaxFiles, MaxStoreFiles)
	if o.MaxSize < 0 || o.MaxAge < 0 || o.MaxFiles < 0 || o.MaxFiles > MaxStoreFiles {
		return nil, fmt.Errorf("store %s: the limits are at least 0, and at most %d files", o.Dir, MaxStoreFiles)
	}
	if o.clock == nil {
		began := time.Now()
		o.clock = func() (time.Time, time.Duration) { now := time.Now(); return now.Round(0), now.Sub(began) }
	}
	s := &Store{opt: o, fresh: make(map[string]bool)}
	s.wall, s.mono = o.clock()
	if err := s.open(); err != nil {
		_ = s.release()
		return nil, fmt.Errorf("store %s: %w", o.Dir, err)
	}
	s.walking.Add(1)
	go s.indexAll()
	return s, nil
}

func (s *Store) open() error {
	d, err := private.Open(s.opt.Dir)
	if err != nil {
		return err
	}
	s.root, s.lock = d.Root, d.Self
	return nil
}

// Close waits for the walk to end, not for profiles: nobody may be exporting any more.
func (s *Store) Close() error {
	s.stopped.Store(true)
	s.walking.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.release()
}

func (s *Store) release() error {
	var errs []error
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	s.lock, s.root = nil, nil
	return errors.Join(errs...)
}

// Export writes p, and removes the oldest files before that as far as the limits ask for it, or a full disk.
// Where it fails, no partial file is left, and the next may succeed. It does not heed the context.
func (s *Store) Export(_ context.Context, p *export.Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.ready()
	if err == nil {
		err = s.save(p)
	}
	if errors.Is(err, fs.ErrNotExist) && s.lost() {
		if err = s.renew(); err == nil {
			err = s.save(p)
		}
	}
	if err != nil {
		s.stats.failed.Add(1)
		return fmt.Errorf("store %s: %s profile of %s: not saved: %w", s.opt.Dir, p.Kind, subject(p), err)
	}
	s.stats.written.Add(1)
	return nil
}

// Expire removes what is too old, as Export does.
func (s *Store) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != nil {
		_ = s.evictTo(s.tick(), 0, 0) // tried again with the next
	}
}

func (s *Store) save(p *export.Profile) error {
	if err := s.encode(p); err != nil {
		return err
	}
	now := s.tick()
	blocks := blocksOf(int64(s.body.Len()))
	if s.opt.MaxSize > 0 && int64(blocks)*blockLen > s.opt.MaxSize {
		return fmt.Errorf("its %d bytes alone are more than the limit of %d", s.body.Len(), s.opt.MaxSize)
	}
	if err := s.evictTo(now, 1, int64(blocks)); err != nil {
		return err
	}
	where := place{element(cmp.Or(p.Service, p.Comm), maxElement), p.PID & maxPID, p.StartTicks & maxStart}
	f := stored{element(cmp.Or(p.Kind, "profile"), maxKind), min(max(p.Start.UnixMilli(), 0), maxMilli), 1}
	if err := s.write(where, &f, int64(blocks)); err != nil {
		s.removeDirs(where)
		return err
	}
	if !s.index.add(where, f, blocks, now.UnixMilli()) {
		_ = s.root.Remove(where.dir() + "/" + f.name())
		return errors.New("there are more than 4096 kinds of profiles")
	}
	if s.fresh != nil {
		s.fresh[where.dir()+"/"+f.name()] = true
	}
	s.stats.size(&s.index)
	if len(s.unsynced) < maxUnsynced {
		s.unsynced = append(s.unsynced, where.dir()+"/"+f.name())
	}
	return nil
}

// maxUnsynced paths are remembered for Sync; more than fewFiles are synced all together.
const maxUnsynced = 2 * fewFiles

// encode leaves the file's bytes in s.body.
func (s *Store) encode(p *export.Profile) error {
	const keep = 1 << 20 // a buffer that one large profile needed is not kept for ever
	for _, b := range []*bytes.Buffer{&s.raw, &s.body} {
		if b.Cap() > keep {
			*b = bytes.Buffer{}
		}
		b.Reset()
	}
	if err := p.Data.WriteUncompressed(&s.raw); err != nil {
		return err
	}
	tail, err := appendComments(nil, s.raw.Bytes(), labelComments(p))
	if err != nil {
		return err
	}
	if s.zip == nil {
		s.zip, err = gzip.NewWriterLevel(&s.body, gzip.BestSpeed)
	} else {
		s.zip.Reset(&s.body)
	}
	if err != nil {
		return err
	}
	s.raw.Write(tail)
	_, err = s.zip.Write(s.raw.Bytes())
	return errors.Join(err, s.zip.Close())
}

// write makes the file of s.body, and room for it where the disk is full.
func (s *Store) write(p place, f *stored, blocks int64) error {
	err := s.create(p, f)
	if private.IsFull(err) && s.makeRoom(blocks) {
		err = s.create(p, f)
	}
	return err
}

// create changes f's name where that is taken: the clock was set back, or the process executed another program in the same
// millisecond.
func (s *Store) create(p place, f *stored) error {
	for _, dir := range []string{p.service, p.dir()} {
		if err := s.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	dir, err := s.root.OpenRoot(p.dir())
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		_, err := dir.Lstat(f.name())
		if errors.Is(err, fs.ErrNotExist) {
			return s.writeTemp(dir, p.dir()+"/"+f.name(), f.name())
		}
		if err != nil {
			return err
		}
		if f.twin == maxTwin {
			return fmt.Errorf("%s/%s and %d like it exist: is the clock stuck?", p.dir(), f.name(), maxTwin-1)
		}
		f.twin++
	}
}

func (s *Store) writeTemp(dir *os.Root, path, name string) error {
	t, err := newTemp(dir, name, path, nil)
	if err != nil {
		return err
	}
	t.private = true
	if _, err := t.Write(s.body.Bytes()); err != nil {
		t.abort()
		return err
	}
	_, err = t.commit()
	return err
}

// removeDirs removes those that are empty.
func (s *Store) removeDirs(p place) {
	if s.root.Remove(p.dir()) == nil {
		_ = s.root.Remove(p.service)
	}
}

const blockLen = 4096

// blocksOf is what size bytes take of a disk.
func blocksOf(size int64) uint32 {
	return uint32(min((size+blockLen-1)/blockLen, math.MaxUint32))
}
