package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ready says why nothing can be written.
func (s *Store) ready() error {
	switch {
	case s.stopped.Load():
		return ErrClosed
	case s.root == nil:
		return s.renew()
	}
	return nil
}

// lost says whether the directory is not at its place any more.
func (s *Store) lost() bool {
	if s.lock == nil {
		return true
	}
	here, err := s.lock.Stat()
	if err != nil {
		return true
	}
	there, err := os.Stat(s.opt.Dir)
	return err != nil || !os.SameFile(here, there)
}

// renew makes the directory once more: somebody has removed it, with all that was in it.
func (s *Store) renew() error {
	if s.fresh != nil {
		return fmt.Errorf("%w: it was removed while its files were being counted, and is made again after that", fs.ErrNotExist)
	}
	err := s.release()
	s.index, s.unsynced = index{}, nil
	s.stats.size(&s.index)
	if err := errors.Join(err, s.open()); err != nil {
		_ = s.release()
		return fmt.Errorf("it was removed, and cannot be made again: %w", err)
	}
	return nil
}
