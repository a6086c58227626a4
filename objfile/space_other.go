//go:build !linux

package objfile

import (
	"errors"

	"github.com/pprofd/pprofd/internal/procfs"
)

// processMemory exists on Linux only.
type processMemory struct {
	direct bool
	fuse   []addrRange
	stack  uint64
}

func openMemory(procfs.Proc, uint64) *processMemory { return new(processMemory) }

func (*processMemory) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

func (*processMemory) readAt([]byte, int64, bool) (int, error) { return 0, errors.ErrUnsupported }

func (*processMemory) readPieces([]Piece) error { return errors.ErrUnsupported }

func (*processMemory) gone(uint64) bool { return false }

func (*processMemory) ended(uint64) bool { return false }

func (*processMemory) Close() error { return nil }

func ownVDSO() []byte { return nil }

func (*Images) mapped(procfs.Proc, procfs.Map) (*Image, bool) { return nil, false }

func openMapped(procfs.Proc, procfs.Map, bool) (*mappedFile, bool, error) {
	return nil, false, errors.ErrUnsupported
}

// OpenExe opens the executable of a process.
func OpenExe(procfs.Proc) (*File, error) { return nil, errors.ErrUnsupported }
