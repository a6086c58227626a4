package file

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pprofd/pprofd/export"
)

// OpenDir prepares a directory that takes any number of profiles, and makes it where there is none.
// An existing plain file of that name is a usage error.
func OpenDir(path string, o *Options) (*Exporter, error) {
	opt, err := o.orDefault()
	if err != nil {
		return nil, err
	}
	d := &directory{path: path, format: opt.Format, owner: opt.Owner, taken: make(map[string]bool)}
	if err := d.open(); err != nil {
		return nil, err
	}
	return &Exporter{format: opt.Format, sink: d}, nil
}

type directory struct {
	path   string
	format Format
	owner  *Owner
	root   *os.Root
	made   bool
	taken  map[string]bool
}

func (d *directory) open() error {
	err := os.Mkdir(d.path, 0o755)
	d.made = err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("output directory: %w", err)
	}
	if st, err := os.Stat(d.path); err == nil && !st.IsDir() {
		return fmt.Errorf("%w %s: is a file, and several profiles need a directory", ErrUsage, d.path)
	}
	if d.root, err = os.OpenRoot(d.path); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if err := d.check(); err != nil {
		d.close()
		return err
	}
	return nil
}

func (d *directory) check() error {
	if d.made && d.owner != nil {
		if err := d.root.Chown(".", d.owner.UID, d.owner.GID); err != nil {
			return fmt.Errorf("output directory %s: %w", d.path, err)
		}
	}
	t, err := newTemp(d.root, "", d.path, nil)
	if err != nil {
		return err
	}
	t.abort()
	return nil
}

func (d *directory) create(p *export.Profile) (output, error) {
	name := d.name(p)
	return newTemp(d.root, name, filepath.Join(d.path, name), d.owner)
}

// name is free among the names of this run: a process that executes another program keeps its PID.
func (d *directory) name(p *export.Profile) string {
	name := Name(p, d.format)
	for n := 2; d.taken[name]; n++ {
		name = strings.TrimSuffix(Name(p, d.format), d.format.Suffix()) + "-" + strconv.Itoa(n) + d.format.Suffix()
	}
	d.taken[name] = true
	return name
}

func (d *directory) close() error {
	err := d.root.Close()
	if d.made {
		_ = os.Remove(d.path) // only if it is empty
	}
	return err
}

// Name is a profile's file name in a directory: <comm>-<pid>.<kind>.pb.gz.
func Name(p *export.Profile, f Format) string {
	name := fileName(p.Comm)
	if p.PID != 0 {
		name += "-" + strconv.Itoa(p.PID)
	}
	return name + "." + fileName(cmp.Or(p.Kind, "profile")) + f.Suffix()
}

// fileName keeps what is harmless in a file name and a shell. Any process chooses its comm as it likes.
func fileName(s string) string {
	const maxLen = 64
	s = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, s[:min(len(s), maxLen)])
	if s == "" {
		return "unknown"
	}
	if s[0] == '.' || s[0] == '-' {
		s = "_" + s[1:]
	}
	return s
}
