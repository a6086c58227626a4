// Package private opens directories that belong to this user alone, and to one process at a time.
package private

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Dir is an open directory. Names are taken relative to it, so that nobody can exchange it in between.
type Dir struct {
	*os.Root
	Self *os.File // the directory itself, locked
}

// Open opens the directory, or makes it with mode 0700. It has to belong to this user, nobody else may write to it, and
// only one Dir at a time may be open there, of this process or another.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := checkLink(path); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{Root: root}
	if err := d.claim(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) claim() (err error) {
	if d.Self, err = d.Root.Open("."); err != nil {
		return err
	}
	if err := checkOwn(d.Self); err != nil {
		return err
	}
	if err := lock(d.Self); err != nil {
		return err
	}
	f, name, err := CreateTemp(d.Root)
	if IsFull(err) {
		return nil // who opens it may make room
	}
	if err != nil {
		return err
	}
	_ = d.Remove(name)
	return f.Close()
}

// Sync waits until the names in the directory are on the disk.
func (d *Dir) Sync() error {
	if err := d.Self.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: the file system has nothing to sync
		return err
	}
	return nil
}

// Close lets others open it.
func (d *Dir) Close() error {
	var err error
	if d.Self != nil {
		err = d.Self.Close()
	}
	return errors.Join(err, d.Root.Close())
}

// checkLink: a link leads where its owner wants.
func checkLink(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil || st.Mode()&fs.ModeSymlink == 0 {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if ok && (sys.Uid == 0 || int(sys.Uid) == os.Geteuid()) {
		return nil
	}
	return errors.New("is a symbolic link of another user: name the directory itself")
}

func checkOwn(dir *os.File) error {
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("belongs to another user than this program's (uid %d): choose another directory, or chown it", os.Geteuid())
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others may write to it (mode %04o): chmod go-w it", st.Mode().Perm())
	}
	return nil
}

func lock(dir *os.File) error {
	err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errors.New("another pprofd writes to it: stop that one, or choose another directory")
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// TempPrefix begins the names of CreateTemp.
const TempPrefix = ".pprofd-"

// CreateTemp makes a file with a name of its own in root, mode 0600. It follows no link and opens no file that somebody
// else has made.
func CreateTemp(root *os.Root) (f *os.File, name string, err error) {
	name = TempPrefix + rand.Text()
	f, err = root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return f, name, err
}

// IsTemp says whether CreateTemp gives such names. Where nobody is writing, such a file was left by a program that was killed.
func IsTemp(name string) bool { return strings.HasPrefix(name, TempPrefix) }

// IsFull says whether err is for want of space on the disk, or of this user's share of it.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
