package objfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
)

// OpenCore opens a core file. Errors wrap ErrCore where it is none, or damaged.
func OpenCore(path string) (*Core, error) {
	mf, err := openCoreFile(path, true)
	if err != nil {
		return nil, fmt.Errorf("open core file: %w", err)
	}
	c, err := NewCore(mf.r, mf.key.size)
	if err != nil {
		return nil, fmt.Errorf("core file %s: %w", path, err)
	}
	return c, nil
}

// openCoreFile opens a regular file by path.
func openCoreFile(path string, allowFUSE bool) (*mappedFile, error) {
	fd, err := openPath(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	st, err := statCached(fd)
	switch {
	case err != nil:
		return nil, os.NewSyscallError("statx", err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	case !allowFUSE && onFUSE(procfs.New("/proc").Proc(os.Getpid()), st):
		return nil, ErrFUSE
	}
	return openRegular(fd, st)
}
