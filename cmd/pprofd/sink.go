package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/profiler"
)

const hottest = 10 // functions in the table

// sink is the exporter of a recording. It keeps of each profile what the user is to see at the end.
type sink struct {
	*file.Exporter
	withTables bool
	sending    *sending
	discard    atomic.Bool // write nothing: the program never ran
	dropped    sync.Once   // the code that made the first profile

	mu     sync.Mutex
	tables []table
}

// table is the hottest functions of one profile.
type table struct {
	kind    string
	subject string // "api (4242), cpu", "" where processes were merged
	total   int64
	text    string
}

// newSink finds out whether the output can be written.
func newSink(out output, o *recordOptions, stdout io.Writer) (*sink, error) {
	opt := &file.Options{Format: file.Format(o.format)}
	as, err := sudoUser(os.Geteuid(), os.Getenv)
	if err != nil {
		return nil, err
	}
	if as != nil {
		opt.Owner = &file.Owner{UID: as.UID, GID: as.GID}
	}
	s := &sink{withTables: !o.quiet}
	switch {
	case out.standard():
		s.Exporter, err = file.NewWriter(stdout, opt)
	case out.isDir:
		s.Exporter, err = file.OpenDir(out.path, opt)
	default:
		s.Exporter, err = file.Open(out.path, opt)
	}
	if errors.Is(err, file.ErrUsage) {
		err = usageError{err}
	}
	return s, err
}

// Export writes p and remembers its hottest functions. An empty profile is written, too: it says that nothing ran.
func (s *sink) Export(ctx context.Context, p *export.Profile) error {
	if s.discard.Load() {
		return nil
	}
	s.dropped.Do(dropCode)
	if err := s.Exporter.Export(ctx, p); err != nil {
		return err
	}
	if err := s.sending.add(p); err != nil {
		return err
	}
	t := table{kind: p.Kind, total: file.Total(p.Data)}
	if p.PID != 0 {
		t.subject = fmt.Sprintf("%s (%d), %s", discover.Printable(p.Comm), p.PID, p.Kind)
	}
	if s.withTables && t.total > 0 {
		var b bytes.Buffer
		if err := file.WriteTop(&b, p.Data, hottest); err != nil {
			return err
		}
		t.text = b.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables = append(s.tables, t)
	return nil
}

// empty says whether there is nothing in all profiles of a kind.
func (s *sink) empty(kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.tables, func(t table) bool { return t.kind == kind && t.total > 0 })
}

// closeSoon is Close for a process that is about to end: it does not wait for an Export that is stuck.
func (s *sink) closeSoon() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	select {
	case <-closed:
	case <-time.After(200 * time.Millisecond):
	}
}

// tell prints the tables, the files and how to open them, on r.stdout, and on standard error what the user should know.
func (r *recording) tell(s profiler.Stats) error {
	for _, note := range r.notes(s) {
		fmt.Fprintf(r.stderr, "pprofd: note: %s\n", discover.Printable(note))
	}
	if r.o.quiet {
		return nil
	}
	var b strings.Builder
	r.sink.mu.Lock()
	for _, t := range r.sink.tables {
		if len(r.sink.tables) > 1 && t.subject != "" && t.text != "" {
			fmt.Fprintf(&b, "%s\n", t.subject)
		}
		b.WriteString(t.text)
		if t.text != "" {
			b.WriteByte('\n')
		}
	}
	r.sink.mu.Unlock()
	r.files(&b, s)
	// A reader that has gone, as in "| head -1", is no failure: the profile is written.
	if _, err := io.WriteString(r.stdout, b.String()); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("print summary: %w", err)
	}
	return nil
}

// files says what was written, and what to do with it.
func (r *recording) files(b *strings.Builder, s profiler.Stats) {
	if len(r.profilers()) > 0 {
		fmt.Fprintf(b, "%d samples, %d lost\n", s.Recorded-min(s.Lost, s.Recorded), s.Lost)
	}
	b.WriteString(r.cost())
	for _, name := range r.sink.Names() {
		switch {
		case r.o.pgo:
			fmt.Fprintf(b, "%s: go build -pgo=%s\n", discover.Printable(name), shellQuote(name))
		case r.o.format == string(file.Pprof):
			fmt.Fprintf(b, "%s: go tool pprof %s\n", discover.Printable(name), shellQuote(name))
		default:
			fmt.Fprintf(b, "%s\n", discover.Printable(name))
		}
	}
}

// notes are the profiler's own, and what the numbers say.
func (r *recording) notes(s profiler.Stats) []string {
	notes := s.Notes
	for _, m := range r.memories() {
		notes = append(notes, m.Notes()...)
	}
	for _, e := range r.estimated {
		notes = append(notes, e.note())
	}
	for _, kind := range []string{profiler.KindBlock, profiler.KindMutex} {
		if len(r.estimated) > 0 && slices.Contains(r.o.kinds, kind) && r.sink.empty(kind) {
			notes = append(notes, fmt.Sprintf("the %s profile is empty: it counts waits that come to an end, and none was seen to; pprofd dump shows who waits", kind))
		}
	}
	if r.wall != nil {
		notes = append(notes, r.wall.Notes()...)
	}
	if len(r.o.states)+len(r.o.reasons) > 0 && r.sink.empty(profiler.KindWall) {
		notes = append(notes, "no goroutine was seen in the states, or to wait for the reasons, that --state and --reason name: the profile is empty; pprofd dump shows which there are")
	}
	if s.Lost > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d samples were lost; [lost] in the profile says why (a lower --frequency loses fewer where a buffer was full)", s.Lost, s.Recorded))
	}
	if s.Truncated > 0 {
		notes = append(notes, fmt.Sprintf("%d stacks were deeper than can be recorded; they end in [truncated]", s.Truncated))
	}
	if s.Broken > 0 {
		notes = append(notes, fmt.Sprintf("%d stacks could not be completed; they are marked", s.Broken))
	}
	return notes
}

// shellQuote quotes s for a POSIX shell where that is needed.
func shellQuote(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./+,:@%"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
