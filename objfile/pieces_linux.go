package objfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxPieces of one system call (UIO_MAXIOV, include/uapi/linux/uio.h).
const maxPieces = 1024

// readPieces reads pieces with process_vm_readv, which goes by PID: whether that is still the process, and of the program that
// its memory was opened for, is looked at after each call. Where that system call is not permitted each piece is read by itself.
func (m *processMemory) readPieces(pieces []Piece) error {
	for len(pieces) > 0 {
		n := min(len(pieces), maxPieces)
		if err := m.readSome(pieces[:n]); err != nil {
			return err
		}
		pieces = pieces[n:]
	}
	return nil
}

func (m *processMemory) readSome(pieces []Piece) error {
	switch {
	case m.closed:
		return ErrProcessGone
	case m.stalled != nil:
		return m.stalled
	case m.f == nil || m.alone:
		return m.readSingly(pieces)
	}
	_, err := unless(m.direct, m.patience, func() (struct{}, error) { return struct{}{}, m.readVector(pieces) })
	switch {
	case errors.Is(err, ErrTooCostly):
		m.stalled = err
		return err
	case errors.Is(err, unix.ESRCH):
		return ErrProcessGone
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSYS): // a sandbox
		m.alone = true
		return m.readSingly(pieces)
	case err != nil:
		return err
	}
	return m.same()
}

// same makes sure that the PID is still that of the process and program whose memory is open.
func (m *processMemory) same() error {
	const nowhere = 1 << 62
	stat, err := m.proc.Stat()
	if err != nil || stat.StartTime != m.start || m.stack != 0 && stat.StartStack != m.stack || m.ended(nowhere) {
		return ErrProcessGone
	}
	return nil
}

// readVector reads what it can. The kernel stops at the first piece that it cannot read: that one is left out.
func (m *processMemory) readVector(pieces []Piece) error {
	local, remote := make([]unix.Iovec, 0, len(pieces)), make([]unix.RemoteIovec, 0, len(pieces))
	for i := 0; i < len(pieces); {
		local, remote = local[:0], remote[:0]
		for j := i; j < len(pieces) && m.readable(&pieces[j]); j++ {
			v := unix.Iovec{Base: &pieces[j].Data[0]}
			v.SetLen(len(pieces[j].Data))
			local, remote = append(local, v), append(remote, unix.RemoteIovec{Base: uintptr(pieces[j].Addr), Len: len(pieces[j].Data)})
		}
		if len(local) == 0 {
			pieces[i].OK = len(pieces[i].Data) == 0
			i++
			continue
		}
		n, err := unix.ProcessVMReadv(m.proc.PID, local, remote, 0)
		if err != nil && !errors.Is(err, unix.EFAULT) {
			return os.NewSyscallError("process_vm_readv", err)
		}
		if n < 0 {
			n = 0
		}
		full := whole(pieces[i:i+len(local)], n)
		i += full
		if full < len(local) {
			pieces[i].OK = false
			i++
		}
	}
	return nil
}

// whole marks the pieces that n bytes fill, and says how many they are.
func whole(pieces []Piece, n int) (full int) {
	for i := range pieces {
		if n -= len(pieces[i].Data); n < 0 {
			return i
		}
		pieces[i].OK = true
	}
	return len(pieces)
}

// readable says whether the kernel may be asked for p.
func (m *processMemory) readable(p *Piece) bool {
	n := uint64(len(p.Data))
	return n > 0 && int64(p.Addr) > 0 && int64(p.Addr+n) > 0 && !m.onFUSE(p.Addr, n)
}

// readSingly reads one piece after the other. A piece that cannot be read is no error, that nothing can be read any more is one.
func (m *processMemory) readSingly(pieces []Piece) error {
	for i := range pieces {
		p := &pieces[i]
		p.OK = len(p.Data) == 0
		if p.OK || !m.readable(p) {
			continue
		}
		n, err := m.readAt(p.Data, int64(p.Addr), m.direct)
		p.OK = n == len(p.Data)
		if errors.Is(err, ErrProcessGone) || errors.Is(err, ErrTooCostly) || errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}
