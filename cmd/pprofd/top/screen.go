package top

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// ErrDumb is wrapped where the terminal cannot do what a screen needs.
var ErrDumb = errors.New("cannot move the cursor")

// Screen is a terminal. Close gives it back as it was.
type Screen struct {
	View   View
	screen tcell.Screen
	fd     int
	before *term.State
	closed bool
}

// patience bounds how long it takes to give back a terminal that takes nothing any more.
const patience = 2 * time.Second

// OpenScreen takes the terminal that stdout is.
func OpenScreen(stdout *os.File, colors bool) (*Screen, error) {
	name := os.Getenv("TERM")
	if name == "" || name == "dumb" {
		return nil, fmt.Errorf("this terminal (TERM=%s) %w: --once prints one screen as text; or set TERM to what it is, such as xterm", name, ErrDumb)
	}
	fd := int(stdout.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read the modes of the terminal: %w", err)
	}
	// Nothing is asked of the terminal: answers that come late would be keys of who reads next.
	options := []tcell.TerminfoScreenOption{tcell.OptSanitizeContent(true), tcell.OptNegotiation(false)}
	if !colors {
		options = append(options, tcell.OptColors(0))
	}
	s := &Screen{fd: fd, before: before}
	if s.screen, err = tcell.NewTerminfoScreen(options...); err == nil {
		err = s.screen.Init()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take the terminal (TERM=%s, LANG=%s): %w; --once prints one screen as text", name, os.Getenv("LANG"), err), term.Restore(fd, before))
	}
	s.screen.HideCursor()
	return s, nil
}

// Close gives the terminal back.
func (s *Screen) Close() {
	if s.closed {
		return
	}
	s.closed = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.screen.Fini()
	}()
	select {
	case <-done:
	case <-time.After(patience):
	}
	// Once more: what is above does nothing where the terminal is stuck.
	_ = term.Restore(s.fd, s.before)
}

// Run shows snapshots until a key, a signal or the end of either channel of ctx ends it. sig is the signal, nil where there was none.
func (s *Screen) Run(ctx context.Context, w *Watch, snapshots <-chan *Snapshot, signals <-chan os.Signal) (sig os.Signal) {
	var last, newest *Snapshot
	for {
		select {
		case <-ctx.Done():
			return nil
		case sig := <-signals:
			return sig
		case newest = <-snapshots:
			if s.View.Paused {
				continue
			}
			last = newest
		case event, ok := <-s.screen.EventQ():
			if !ok {
				return nil
			}
			switch s.event(event) {
			case nothing:
				continue
			case quit:
				return nil
			case suspend:
				s.suspend()
			case redraw:
			}
			if w.Stacks(s.View.Goroutines); !s.View.Paused {
				last = newest
			}
		}
		if last != nil {
			s.draw(last)
		}
	}
}

func (s *Screen) event(event tcell.Event) action {
	switch e := event.(type) {
	case *tcell.EventResize:
		s.screen.Sync()
		return redraw
	case *tcell.EventKey:
		_, height := s.screen.Size()
		return s.View.key(e, height)
	}
	return nothing
}

// suspend is what Ctrl-Z asks for.
func (s *Screen) suspend() {
	if err := s.screen.Suspend(); err != nil {
		return
	}
	runtime.LockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP) // to this thread, so that it does not go on for a while
	runtime.UnlockOSThread()
	_ = s.screen.Resume()
	s.screen.Sync()
}

func (s *Screen) draw(snapshot *Snapshot) {
	width, height := s.screen.Size()
	s.screen.Clear()
	for y, line := range s.View.Lines(snapshot, width, height) {
		x := 0
		for _, span := range line {
			style := styleOf(span.Style)
			s.screen.PutStrStyled(x, y, span.Text, style)
			x += columns(span.Text)
		}
		if len(line) > 0 && line[0].Style == Title && x < width {
			s.screen.PutStrStyled(x, y, strings.Repeat(" ", width-x), styleOf(Title))
		}
	}
	s.screen.Show()
}

func styleOf(s Style) tcell.Style {
	plain := tcell.StyleDefault
	switch s {
	case Title:
		return plain.Reverse(true)
	case Head:
		return plain.Bold(true)
	case Hot:
		return plain.Foreground(color.Red).Bold(true)
	case Warm:
		return plain.Foreground(color.Yellow)
	case Dim:
		return plain.Dim(true)
	case Alert:
		return plain.Reverse(true).Bold(true)
	}
	return plain
}
