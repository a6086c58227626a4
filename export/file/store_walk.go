package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/pprofd/pprofd/export/internal/private"
)

// tree goes through the directories of a Store. What has no name that a Store gives is passed over.
type tree struct {
	root *os.Root
	// batch gets some entries of a process's directory at a time.
	batch func(dir *os.Root, p place, entries []fs.DirEntry)
	// left is called when a directory is through.
	left func(path string)
	// fail is told what cannot be read. What is gone meanwhile is no failure.
	fail func(error)
	// stop ends the walk when it is true.
	stop func() bool
}

const batchLen = 256

func (t *tree) walk() {
	t.each(t.root, func(entries []fs.DirEntry) {
		for _, e := range entries {
			if _, ok := fromElement(e.Name()); ok && e.IsDir() && !t.stop() {
				t.service(e.Name())
			}
		}
	})
}

func (t *tree) service(name string) {
	defer t.left(name)
	dir, err := t.root.OpenRoot(name)
	if err != nil {
		t.failed(err)
		return
	}
	defer dir.Close()
	t.each(dir, func(entries []fs.DirEntry) {
		for _, e := range entries {
			if p, ok := parseProcess(name, e.Name()); ok && e.IsDir() && !t.stop() {
				t.process(dir, e.Name(), p)
			}
		}
	})
}

func (t *tree) process(service *os.Root, name string, p place) {
	defer t.left(p.dir())
	dir, err := service.OpenRoot(name)
	if err != nil {
		t.failed(err)
		return
	}
	defer dir.Close()
	t.each(dir, func(entries []fs.DirEntry) { t.batch(dir, p, entries) })
}

// each lists dir with bounded memory.
func (t *tree) each(dir *os.Root, f func([]fs.DirEntry)) {
	d, err := dir.Open(".")
	if err != nil {
		t.failed(err)
		return
	}
	defer d.Close()
	for !t.stop() {
		entries, err := d.ReadDir(batchLen)
		f(entries)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.failed(err)
			}
			return
		}
	}
}

func (t *tree) failed(err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		t.fail(err)
	}
}

// StoredFile is a file of a Store.
type StoredFile struct {
	Path    string // relative to the Store's directory
	Service string // a name that was too long ends in ~ and 16 digits
	PID     int    // 0: of several processes
	Start   uint64 // of the process, in clock ticks, as /proc/PID/stat has it
	Kind    string
	Time    time.Time // start of the window, UTC
	Size    int64     // bytes
}

// List yields the files of the Store in dir, in no order, and errors for what cannot be read. It may run while a Store is
// open there, in this process or another; files that come or go meanwhile may or may not be among them.
func List(dir string) iter.Seq2[StoredFile, error] {
	return func(yield func(StoredFile, error) bool) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			yield(StoredFile{}, fmt.Errorf("list %s: %w", dir, err))
			return
		}
		defer root.Close()
		stopped := false
		t := &tree{
			root: root,
			left: func(string) {},
			stop: func() bool { return stopped },
		}
		give := func(f StoredFile, err error) { stopped = stopped || !yield(f, err) }
		t.fail = func(err error) { give(StoredFile{}, fmt.Errorf("list %s: %w", dir, err)) }
		names := make(map[string]string) // one copy of each: there may be a million files
		t.batch = func(_ *os.Root, p place, entries []fs.DirEntry) {
			service, _ := fromElement(p.service)
			for _, e := range entries {
				if stopped {
					return
				}
				f, err := storedFile(e, p)
				f.Service, f.Kind = one(names, service), one(names, f.Kind)
				if err != nil {
					t.failed(err)
				} else if f.Path != "" {
					give(f, nil)
				}
			}
		}
		t.walk()
	}
}

func one(names map[string]string, s string) string {
	if known, ok := names[s]; ok {
		return known
	}
	names[s] = strings.Clone(s)
	return names[s]
}

// storedFile has no Path where name is not that of a Store's file, and no Service.
func storedFile(e fs.DirEntry, p place) (StoredFile, error) {
	f, ok := parseStored(e.Name())
	if !ok {
		return StoredFile{}, nil
	}
	st, err := e.Info()
	if err != nil || !st.Mode().IsRegular() {
		return StoredFile{}, err
	}
	return StoredFile{
		Path: p.dir() + "/" + e.Name(),
		PID:  p.pid, Start: p.start,
		Kind: f.kind, Time: time.UnixMilli(f.milli).UTC(), Size: st.Size(),
	}, nil
}

// index takes up the files that are there when a Store is opened, and removes what nobody needs: temporary files of an
// agent that was killed, empty files of a machine that lost power, empty directories. Meanwhile profiles are written.
func (s *Store) indexAll() {
	defer s.walking.Done()
	t := &tree{
		root: s.root,
		stop: s.stopped.Load,
		fail: func(error) { s.stats.unreadable.Add(1) },
		left: func(path string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			_ = s.root.Remove(path) // only if it is empty
		},
		batch: s.indexBatch,
	}
	s.dropTemps()
	t.walk()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = nil
	if !s.stopped.Load() {
		s.stats.indexed.Store(true)
	}
}

// indexBatch holds the lock, under which nobody writes: a temporary file that is there now is of a program that was killed.
func (s *Store) indexBatch(d *os.Root, p place, entries []fs.DirEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.tick()
	for _, e := range entries {
		if !e.Type().IsRegular() || s.stopped.Load() {
			continue
		}
		if private.IsTemp(e.Name()) {
			s.removeLeftover(d, e.Name())
			continue
		}
		if f, ok := parseStored(e.Name()); ok && !s.fresh[p.dir()+"/"+e.Name()] {
			s.indexFile(d, e, p, f)
		}
	}
	_ = s.evictTo(now, 0, 0) // tried again with the next
}

func (s *Store) indexFile(d *os.Root, e fs.DirEntry, p place, f stored) {
	st, err := e.Info() // os.ReadDir has it already, in a Root
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		s.stats.unreadable.Add(1)
	case !st.Mode().IsRegular():
	case st.Size() == 0:
		s.removeLeftover(d, f.name())
	default:
		s.index.add(p, f, blocksOf(st.Size()), s.wall.UnixMilli())
	}
}

func (s *Store) removeLeftover(d *os.Root, name string) {
	if d.Remove(name) == nil {
		s.stats.leftovers.Add(1)
	}
}

// dropTemps removes what OpenStore left behind when it tried whether it can write and was killed.
func (s *Store) dropTemps() {
	t := &tree{root: s.root, stop: s.stopped.Load, fail: func(error) {}}
	t.each(s.root, func(entries []fs.DirEntry) {
		for _, e := range entries {
			if private.IsTemp(e.Name()) && e.Type().IsRegular() {
				s.removeLeftover(s.root, e.Name())
			}
		}
	})
}
