package file

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// maxProfile bounds a profile that is read, in bytes before compression: a small file may become anything.
const maxProfile = 1 << 30

// Reader reads files of a Store. It needs no lock: files appear and go at once. A name that leads out of the directory is not
// followed.
type Reader struct {
	dir  string
	root *os.Root
}

// OpenReader opens the directory of a Store.
func OpenReader(dir string) (*Reader, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Reader{dir, root}, nil
}

// Close closes the directory.
func (r *Reader) Close() error { return r.root.Close() }

// Read returns a profile and the labels of its process. The error is fs.ErrNotExist where the file has gone meanwhile.
func (r *Reader) Read(f *StoredFile) (*profile.Profile, []export.Label, error) {
	p, err := r.read(f.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s/%s: %w", r.dir, f.Path, err)
	}
	return p, takeLabels(p), nil
}

func (r *Reader) read(path string) (*profile.Profile, error) {
	f, err := r.root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // not to wait for the writer of a pipe
	if err != nil {
		var e *os.PathError
		if errors.As(err, &e) {
			err = e.Err // the caller says the path
		}
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, cmp.Or(err, errNotRegular)
	}
	return parse(f)
}

var errNotRegular = errors.New("is no regular file")

// ReadProfile reads a file that somebody named: any form of profile that google/pprof knows. The labels are those of its process
// where a Store has written it.
func ReadProfile(path string) (*profile.Profile, []export.Label, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	p, err := parse(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, takeLabels(p), nil
}

// parse closes f.
func parse(f *os.File) (*profile.Profile, error) {
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, errors.New("is a directory")
	case st.Mode().IsRegular() && st.Size() == 0:
		return nil, errors.New("is empty")
	}
	b, err := readAll(f)
	if err != nil {
		return nil, err
	}
	return profile.ParseData(b)
}

func readAll(f io.Reader) ([]byte, error) {
	b, err := readUpTo(f)
	if err != nil || !bytes.HasPrefix(b, gzipped) {
		return b, err
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	b, err = readUpTo(z)
	if err == nil && bytes.HasPrefix(b, gzipped) { // the parser would decompress it without bounds
		err = errors.New("is compressed twice: decompress it by gunzip once")
	}
	return b, err
}

// gzipped is how compressed data begins.
var gzipped = []byte{0x1f, 0x8b}

func readUpTo(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxProfile+1))
	if err == nil && len(b) > maxProfile {
		err = fmt.Errorf("has more than %d bytes", maxProfile)
	}
	return b, err
}

// takeLabels returns the labels that labelComments has written, and removes that comment.
func takeLabels(p *profile.Profile) []export.Label {
	for i, c := range p.Comments {
		if labels, ok := parseLabels(c); ok {
			p.Comments = append(p.Comments[:i:i], p.Comments[i+1:]...)
			return labels
		}
	}
	return nil
}

var unquoted = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n")

// parseLabels is the inverse of labelComments.
func parseLabels(comment string) (labels []export.Label, ok bool) {
	rest, ok := strings.CutPrefix(comment, labelsBegin)
	if !ok {
		return nil, false
	}
	for {
		name, after, ok := strings.Cut(rest, `="`)
		n := quoteEnd(after)
		if !ok || n < 0 {
			return nil, false
		}
		labels = append(labels, export.Label{Name: name, Value: unquoted.Replace(after[:n])})
		if rest = after[n+1:]; rest == labelsEnd {
			return labels, true
		}
		if rest, ok = strings.CutPrefix(rest, ", "); !ok {
			return nil, false
		}
	}
}

// quoteEnd is where the first quote is that no backslash escapes; -1: there is none.
func quoteEnd(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}
