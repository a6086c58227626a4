package discover

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// users are the machine's users by number. Names that are not in /etc/passwd are not asked for: whoever knows them may be
// on another machine, and not answer.
type users struct {
	path  string
	mu    sync.Mutex
	names map[uint32]string
	read  time.Time
}

const (
	usersMaxAge = time.Minute
	maxUsers    = 100_000
	maxPasswd   = 16 << 20
)

// newUsers reads the passwd of the first process: in a container that sees all processes of the machine, that is the
// machine's.
func newUsers(procRoot string) *users {
	return &users{path: filepath.Join(procRoot, "1", "root", "etc", "passwd")}
}

// name is the user's name, or the number where there is no name, as for users of containers.
func (u *users) name(uid uint32) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names == nil || time.Since(u.read) > usersMaxAge {
		u.names, u.read = readUsers(u.path), time.Now()
	}
	if name, ok := u.names[uid]; ok {
		return name
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// readUsers reads one of the files; without any, nobody has a name.
func readUsers(path string) map[uint32]string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		f, err = os.Open("/etc/passwd")
	}
	if err != nil {
		return map[uint32]string{}
	}
	defer f.Close()
	return parseUsers(io.LimitReader(f, maxPasswd))
}

// parseUsers reads lines "name:x:1000:..." (passwd(5)). The first name of a number counts.
func parseUsers(r io.Reader) map[uint32]string {
	names := map[uint32]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() && len(names) < maxUsers {
		f := strings.SplitN(lines.Text(), ":", 4)
		if len(f) < 4 || f[0] == "" {
			continue
		}
		if uid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			if _, ok := names[uint32(uid)]; !ok {
				names[uint32(uid)] = f[0]
			}
		}
	}
	return names
}
