package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxMounts is the kernel's default limit of mounts in a namespace (fs.mount-max).
const maxMounts = 100_000

// FSType is the type of the file system with a device number ("ext4", "fuse.sshfs"), from the
// process's mountinfo. The error is os.ErrNotExist where nothing of it is mounted there.
func (p Proc) FSType(dev Dev) (string, error) {
	f, err := os.Open(p.Path("mountinfo"))
	if err != nil {
		return "", fmt.Errorf("read mounts of process %d: %w", p.PID, err)
	}
	defer f.Close()
	return findFSType(f, dev)
}

// findFSType reads lines "36 35 98:0 /root /mnt rw,noatime shared:1 - ext3 /dev/root rw" (proc_pid_mountinfo(5)).
// Spaces in names are escaped. Lines too long to be held are skipped.
func findFSType(r io.Reader, dev Dev) (string, error) {
	want := fmt.Appendf(nil, "%d:%d", dev.Major, dev.Minor)
	br := bufio.NewReaderSize(r, maxMapsLine)
	for range maxMounts {
		line, err := br.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			line, err = br.ReadSlice('\n')
		}
		if f := bytes.Fields(line); len(f) > 2 && bytes.Equal(f[2], want) {
			if _, after, ok := bytes.Cut(line, []byte(" - ")); ok {
				typ, _, _ := bytes.Cut(after, []byte(" "))
				return string(typ), nil
			}
		}
		if err != nil {
			break
		}
	}
	return "", os.ErrNotExist
}
