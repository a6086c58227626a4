package file

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncAll syncs the file system that dir is in.
func syncAll(dir *os.File) error {
	conn, err := dir.SyscallConn()
	if err != nil {
		return err
	}
	var errSync error
	err = conn.Control(func(fd uintptr) { errSync = unix.Syncfs(int(fd)) })
	return errors.Join(err, os.NewSyscallError("syncfs", errSync))
}
