package objfile

import (
	"errors"
	"fmt"
	"os"
)

// Piece is a part of a process's memory that is to be read.
type Piece struct {
	Addr uint64 // run-time
	Data []byte // is filled
	OK   bool   // all of Data was read
}

// ReadPieces reads many pieces in their order, hundreds with one system call, and says of each whether it could be read. It never
// reads another process's memory; errors, after which nothing that was read may be used, wrap ErrProcessGone, os.ErrPermission
// or ErrTooCostly. One piece may be read after another one has changed: nothing stops the process.
func (s *Space) ReadPieces(pieces []Piece) error {
	if s.core != nil {
		return s.core.readPieces(pieces)
	}
	err := s.mem.readPieces(pieces)
	if err == nil {
		return nil
	}
	for i := range pieces {
		pieces[i].OK = false
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("read memory of process %d (needs CAP_SYS_PTRACE): %w", s.proc.PID, err)
	}
	return fmt.Errorf("read memory of process %d: %w", s.proc.PID, err)
}
