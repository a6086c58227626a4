package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// fewFiles are synced one by one. One fsync of a file and of the directories that it is in takes 0.1 ms of CPU time and waits
// for the disk; to sync the file system (syncfs) takes 1 to 5 ms for 200 files, where these one by one take 20 to 30 ms,
// but writes whatever others have written there, too (BenchmarkStoreSync; ext4, Linux 6.18).
const fewFiles = 8

// Sync returns when all that Export has written up to now is on the disk, and would be there after a power failure. Export need
// not wait for it.
func (s *Store) Sync() error {
	s.mu.Lock()
	paths, root, dir := s.unsynced, s.root, s.lock
	s.unsynced = nil
	s.mu.Unlock()
	if len(paths) == 0 {
		return nil
	}
	if root == nil {
		return ErrClosed
	}
	err := s.sync(paths, root, dir)
	if err != nil {
		s.mu.Lock()
		s.unsynced = append(s.unsynced, paths...)
		s.mu.Unlock()
		return fmt.Errorf("store %s: %d files may not be on the disk: %w", s.opt.Dir, len(paths), err)
	}
	return nil
}

func (s *Store) sync(paths []string, root *os.Root, dir *os.File) error {
	if len(paths) > fewFiles {
		return syncAll(dir)
	}
	done := make(map[string]bool)
	for _, p := range paths {
		for ; !done[p]; p = path.Dir(p) { // up to "."
			done[p] = true
			if err := syncOne(root, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// syncOne syncs a file or directory. The limits may have removed it.
func syncOne(root *os.Root, path string) error {
	f, err := root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
