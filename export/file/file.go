// Package file writes profiles to files and streams: pprof, folded stacks or a table of the hottest functions.
package file

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/gzip" // in three fifths of the time of compress/gzip

	"github.com/pprofd/pprofd/export"
)

// Format is how a profile is written.
type Format string

// Formats.
const (
	Pprof  Format = "pprof"  // gzip-compressed protobuf
	Folded Format = "folded" // a line per stack: root first, joined by ";", then the value
	Text   Format = "text"   // the table of `go tool pprof -top`
)

// Suffix is the usual end of a file's name in the format.
func (f Format) Suffix() string {
	switch f {
	case Folded:
		return ".folded"
	case Text:
		return ".txt"
	}
	return ".pb.gz"
}

// ErrUsage is wrapped by errors that say that the output cannot be what was asked for.
var ErrUsage = errors.New("output")

// Options may be nil: pprof, and files belong to whoever runs this program.
type Options struct {
	Format Format
	// Owner gets the files: SUDO_UID and SUDO_GID under sudo. nil leaves them alone.
	Owner *Owner
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

func (o *Options) orDefault() (Options, error) {
	r := Options{Format: Pprof}
	if o != nil {
		r = *o
	}
	switch r.Format {
	case "":
		r.Format = Pprof
	case Pprof, Folded, Text:
	default:
		return r, fmt.Errorf("%w: unknown format %q: use pprof, folded or text", ErrUsage, r.Format)
	}
	return r, nil
}

// sink is where profiles go.
type sink interface {
	// create opens the place of a profile; commit makes it visible, abort leaves no trace.
	create(*export.Profile) (output, error)
	close() error
}

type output interface {
	io.Writer
	commit() (name string, err error)
	abort()
}

// Exporter implements export.Exporter. It is safe for concurrent use.
type Exporter struct {
	mu     sync.Mutex
	format Format
	sink   sink
	names  []string
	out    *bufio.Writer
	zip    *gzip.Writer // of Pprof: its tables are a megabyte, which many profiles share
}

var _ export.Exporter = (*Exporter)(nil)

// NewWriter returns an exporter that writes to w, which stays open. In the pprof format
// it takes one profile: two in one stream are not valid.
func NewWriter(w io.Writer, o *Options) (*Exporter, error) {
	opt, err := o.orDefault()
	if err != nil {
		return nil, err
	}
	return &Exporter{format: opt.Format, sink: &stream{w: w, single: opt.Format == Pprof}}, nil
}

// Export writes p. Where it fails, an older file of the same name is as it was and no partial file is left.
// It does not heed the context: what was sampled up to an interrupt is still written.
func (e *Exporter) Export(_ context.Context, p *export.Profile) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	out, err := e.sink.create(p)
	if err != nil {
		return fmt.Errorf("write %s profile of %s: not saved: %w", p.Kind, subject(p), err)
	}
	if err := e.write(out, p); err != nil {
		out.abort()
		return fmt.Errorf("write %s profile of %s: not saved: %w", p.Kind, subject(p), err)
	}
	name, err := out.commit()
	if err != nil {
		return fmt.Errorf("write %s profile of %s: not saved: %w", p.Kind, subject(p), err)
	}
	if name != "" {
		e.names = append(e.names, name)
	}
	return nil
}

// Names are the files written so far.
func (e *Exporter) Names() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.names...)
}

// Close removes what was prepared and not used.
func (e *Exporter) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sink.close()
}

func subject(p *export.Profile) string {
	if p.PID == 0 {
		return "all targets"
	}
	return fmt.Sprintf("%s (pid %d)", printable(p.Comm), p.PID)
}

func (e *Exporter) write(w io.Writer, p *export.Profile) error {
	if e.out == nil {
		e.out = bufio.NewWriterSize(nil, 64<<10)
	}
	bw := e.out
	bw.Reset(w)
	defer bw.Reset(nil)
	var err error
	switch e.format {
	case Folded:
		err = WriteFolded(bw, p.Data)
	case Text:
		err = WriteText(bw, p)
	default:
		err = e.writePprof(bw, p)
	}
	return errors.Join(err, bw.Flush())
}

// writePprof compresses as runtime/pprof does: quickly.
func (e *Exporter) writePprof(w io.Writer, p *export.Profile) (err error) {
	if e.zip == nil {
		e.zip, err = gzip.NewWriterLevel(w, gzip.BestSpeed)
	} else {
		e.zip.Reset(w)
	}
	if err != nil {
		return err
	}
	return errors.Join(p.Data.WriteUncompressed(e.zip), e.zip.Close())
}

// stream is a sink that somebody else owns.
type stream struct {
	w      io.Writer
	c      io.Closer
	single bool
	used   bool
}

func (s *stream) create(p *export.Profile) (output, error) {
	if s.single && s.used {
		return nil, fmt.Errorf("%w: %s profile of %s: one stream holds one pprof profile: write to a directory", ErrUsage, p.Kind, subject(p))
	}
	s.used = true
	return streamOutput{s.w}, nil
}

func (s *stream) close() error {
	if s.c == nil {
		return nil
	}
	return s.c.Close()
}

type streamOutput struct{ io.Writer }

func (streamOutput) commit() (string, error) { return "", nil }
func (streamOutput) abort()                  {}

// isStd says which of the process's own streams the path names.
func isStd(path string) *os.File {
	switch path {
	case "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1":
		return os.Stdout
	case "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2":
		return os.Stderr
	}
	return nil
}
