package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/internal/private"
)

// Open prepares one output file: it finds out now, before anything is sampled, whether it can be written.
// A regular file is replaced by rename once it is complete; a symbolic link of that name is replaced, not
// followed. "-", /dev/stdout, pipes and character devices are written directly.
func Open(path string, o *Options) (*Exporter, error) {
	opt, err := o.orDefault()
	if err != nil {
		return nil, err
	}
	if f := isStd(path); f != nil {
		return NewWriter(f, &opt)
	}
	special, err := openSpecial(path, opt.Owner)
	if err != nil {
		return nil, err
	}
	if special != nil {
		return &Exporter{format: opt.Format, sink: &stream{w: special, c: special, single: opt.Format == Pprof}}, nil
	}
	s, err := openSingle(path, opt.Owner)
	if err != nil {
		return nil, err
	}
	return &Exporter{format: opt.Format, sink: s}, nil
}

// openSpecial opens what is neither to be replaced nor created; nil where path is an ordinary name.
// The two calls look at one file: it is judged after it is open.
func openSpecial(path string, owner *Owner) (*os.File, error) {
	follow := strings.HasPrefix(path, "/dev/fd/") || strings.HasPrefix(path, "/proc/self/fd/")
	flags, stat := os.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, os.Lstat
	if follow {
		stat = os.Stat
	} else {
		flags |= syscall.O_NOFOLLOW
	}
	st, err := stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("output %s: %w", path, err)
	case st.IsDir():
		return nil, fmt.Errorf("%w %s: is a directory", ErrUsage, path)
	case !follow && (st.Mode().IsRegular() || st.Mode()&fs.ModeSymlink != 0):
		return nil, nil
	}
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, syscall.ENXIO) {
		return nil, fmt.Errorf("output %s: nobody reads this pipe: start its reader first: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", path, err)
	}
	if err := checkSpecial(f, follow, owner); err != nil {
		f.Close()
		return nil, fmt.Errorf("output %s: %w", path, err)
	}
	return f, nil
}

// checkSpecial refuses what another user may have put at a predictable name in /tmp.
func checkSpecial(f *os.File, inherited bool, owner *Owner) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	const pipeOrTerminal = fs.ModeNamedPipe | fs.ModeCharDevice
	switch {
	case inherited:
		return nil
	case st.Mode()&pipeOrTerminal == 0:
		return fmt.Errorf("%w: neither a file nor a pipe nor a character device (%v)", ErrUsage, st.Mode().Type())
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid == 0 || int(sys.Uid) == os.Geteuid() || owner != nil && int(sys.Uid) == owner.UID {
		return nil
	}
	return fmt.Errorf("belongs to another user (uid %d): remove it or choose another name", sys.Uid)
}

// single is the sink of one file. Its temporary file exists from the start.
type single struct {
	tmp  *temp
	used bool
	path string
}

func openSingle(path string, owner *Owner) (*single, error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", path, err)
	}
	tmp, err := newTemp(root, name, path, owner)
	if err != nil {
		root.Close()
		return nil, err
	}
	tmp.ownsRoot = true
	return &single{tmp: tmp, path: path}, nil
}

func (s *single) create(p *export.Profile) (output, error) {
	if s.used {
		return nil, fmt.Errorf("%w %s: %s profile of %s: the file already holds another profile: write to a directory", ErrUsage, s.path, p.Kind, subject(p))
	}
	s.used = true
	return s.tmp, nil
}

func (s *single) close() error {
	if !s.used {
		s.tmp.abort()
	}
	return nil
}

// temp is a file that is written under a name of its own and renamed when it is complete. All names are
// taken relative to an open directory, so that nobody can exchange the directory in between.
type temp struct {
	*os.File
	root       *os.Root
	ownsRoot   bool
	tmp, final string
	path       string
	owner      *Owner
	private    bool // mode 0600, and not synced
}

func newTemp(root *os.Root, final, path string, owner *Owner) (*temp, error) {
	f, tmp, err := private.CreateTemp(root)
	if err != nil {
		return nil, fmt.Errorf("output %s: cannot write in its directory: %w", path, err)
	}
	return &temp{File: f, root: root, tmp: tmp, final: final, path: path, owner: owner}, nil
}

func (t *temp) commit() (string, error) {
	err := t.finish()
	if err != nil {
		t.abort()
		return "", err
	}
	if err := t.root.Rename(t.tmp, t.final); err != nil {
		t.remove()
		return "", fmt.Errorf("%s: %w", t.path, err)
	}
	return t.path, t.release()
}

// finish hands the file over complete: unless it is private, with mode 0644, its owner, and on the disk, where a lack of space shows at last.
func (t *temp) finish() error {
	if t.private {
		return t.File.Close()
	}
	if t.owner != nil {
		if err := t.Chown(t.owner.UID, t.owner.GID); err != nil {
			return err
		}
	}
	if err := t.Chmod(0o644); err != nil {
		return err
	}
	if err := t.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return t.File.Close()
}

func (t *temp) abort() {
	t.File.Close()
	t.remove()
}

func (t *temp) remove() {
	_ = t.root.Remove(t.tmp)
	_ = t.release()
}

func (t *temp) release() error {
	if !t.ownsRoot {
		return nil
	}
	return t.root.Close()
}
