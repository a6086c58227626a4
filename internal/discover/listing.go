package discover

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// listed is a process in the listing of /proc. The kernel gives the directory of each process an inode of its own, which
// it has as long as the kernel remembers it: another number says that it may be another process, the same that it is not.
type listed struct {
	pid   int
	inode uint64
}

// dirent64 is struct linux_dirent64 (include/linux/dirent.h), up to the name.
const (
	direntInode  = 0
	direntLength = 16
	direntName   = 19
	listingBytes = 32 << 10
)

// list lists the processes, in ascending order.
func (in *Inspector) list() ([]listed, error) {
	dir, err := os.Open(in.root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	var all []listed
	buf := make([]byte, listingBytes)
	for {
		n, err := unix.Getdents(int(dir.Fd()), buf)
		if err != nil {
			return nil, fmt.Errorf("list processes in %s: %w", in.root, os.NewSyscallError("getdents64", err))
		}
		if n == 0 {
			slices.SortFunc(all, func(a, b listed) int { return a.pid - b.pid })
			return all, nil
		}
		all = appendListed(all, buf[:n])
	}
}

// appendListed parses what getdents64 writes.
func appendListed(all []listed, b []byte) []listed {
	for len(b) > direntName {
		length := int(binary.NativeEndian.Uint16(b[direntLength:]))
		if length <= direntName || length > len(b) {
			break
		}
		name := b[direntName:length]
		if i := slices.Index(name, 0); i >= 0 {
			name = name[:i]
		}
		if len(name) > 0 && '1' <= name[0] && name[0] <= '9' {
			if pid, err := strconv.ParseInt(string(name), 10, 32); err == nil {
				all = append(all, listed{int(pid), binary.NativeEndian.Uint64(b[direntInode:])})
			}
		}
		b = b[length:]
	}
	return all
}
