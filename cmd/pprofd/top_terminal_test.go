package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3/vt"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// terminal is a pseudo-terminal with pprofd on one side and an emulator on the other.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	before unix.Termios // its modes when nothing has changed them
	cmd    *exec.Cmd
	exited chan struct{} // closed once the process was waited for; err is set then
	err    error
	read   chan struct{} // closed when nothing more comes

	mu      sync.Mutex
	screen  vt.MockTerm
	raw     bytes.Buffer // all that was written
	changed chan struct{}
}

// size of a terminal.
type size struct{ columns, rows int }

// topIn starts pprofd top in a terminal of its own.
func topIn(t *testing.T, s size, env []string, args ...string) *terminal {
	t.Helper()
	needs.BPF(t)
	term := &terminal{t: t, exited: make(chan struct{}), read: make(chan struct{}), changed: make(chan struct{})}
	term.open(s)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	term.cmd = exec.Command(exe, append([]string{"top"}, args...)...)
	term.cmd.Env = append(os.Environ(), asPprofd+"=1", "TERM=xterm-256color", "LC_ALL=C.UTF-8", "NO_COLOR=", "COLORTERM=")
	term.cmd.Env = append(term.cmd.Env, env...)
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = term.slave, term.slave, term.slave
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		term.err = term.cmd.Wait()
		close(term.exited)
	}()
	go term.copy()
	t.Cleanup(term.close)
	return term
}

func (term *terminal) open(s size) {
	t := term.t
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd()) // which makes reads block: Close does not end them, the end of the other side does
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term.master, term.slave = master, slave
	term.before = term.modes()
	term.screen = vt.NewMockTerm(vt.MockOptSize{X: vt.Col(s.columns), Y: vt.Row(s.rows)})
	if err := term.screen.Start(); err != nil {
		t.Fatal(err)
	}
	term.setSize(s)
}

func (term *terminal) modes() unix.Termios {
	term.t.Helper()
	m, err := unix.IoctlGetTermios(int(term.slave.Fd()), unix.TCGETS)
	if err != nil {
		term.t.Fatal(err)
	}
	return *m
}

func (term *terminal) setSize(s size) {
	term.t.Helper()
	err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(s.rows), Col: uint16(s.columns)})
	if err != nil {
		term.t.Fatal(err)
	}
}

// resize does what the window of a terminal does that is resized.
func (term *terminal) resize(s size) {
	term.t.Helper()
	term.mu.Lock()
	term.screen.SetSize(vt.Coord{X: vt.Col(s.columns), Y: vt.Row(s.rows)})
	term.mu.Unlock()
	term.setSize(s)
}

// copy gives the emulator what pprofd writes.
func (term *terminal) copy() {
	defer close(term.read)
	buf := make([]byte, 1<<14)
	for {
		n, err := term.master.Read(buf)
		term.mu.Lock()
		_, _ = term.screen.Write(buf[:n])
		_ = term.screen.Drain()
		term.raw.Write(buf[:n])
		close(term.changed)
		term.changed = make(chan struct{})
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (term *terminal) keys(keys string) {
	term.t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

// lines are what is on the screen.
func (term *terminal) lines() (lines []string, changed <-chan struct{}) {
	term.mu.Lock()
	defer term.mu.Unlock()
	end := term.screen.Backend().GetSize()
	for y := range end.Y {
		var b strings.Builder
		for x := vt.Col(0); x < end.X; x++ {
			cell := term.screen.GetCell(vt.Coord{X: x, Y: y})
			switch {
			case cell.C != "":
				b.WriteString(cell.C)
			case x == 0 || term.screen.GetCell(vt.Coord{X: x - 1, Y: y}).W < 2:
				b.WriteByte(' ')
			}
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines, term.changed
}

// patience is for a loaded machine; nothing is measured.
const terminalPatience = 60 * time.Second

// await waits until the screen is as it should be, and returns it.
func (term *terminal) await(what string, is func(lines []string) bool) []string {
	term.t.Helper()
	late := time.After(terminalPatience)
	for {
		lines, changed := term.lines()
		if is(lines) {
			return lines
		}
		select {
		case <-changed:
		case <-term.read:
			if lines, _ = term.lines(); is(lines) {
				return lines
			}
			term.t.Fatalf("it ended (%v) without %s:\n%s", term.err, what, strings.Join(lines, "\n"))
		case <-late:
			term.t.Fatalf("there is not %s:\n%s", what, strings.Join(lines, "\n"))
		}
	}
}

// awaitText waits for text anywhere on the screen.
func (term *terminal) awaitText(text string) {
	term.t.Helper()
	term.await(fmt.Sprintf("%q", text), func(lines []string) bool { return strings.Contains(strings.Join(lines, "\n"), text) })
}

// end waits for the process, and checks that the terminal is as it was before.
func (term *terminal) end() (code int, all string) {
	t := term.t
	t.Helper()
	select {
	case <-term.exited:
	case <-time.After(terminalPatience):
		lines, _ := term.lines()
		t.Fatalf("it does not end:\n%s", strings.Join(lines, "\n"))
	}
	if now := term.modes(); now != term.before {
		t.Errorf("the modes of the terminal are %+v, were %+v", now, term.before)
	}
	if err := term.slave.Close(); err != nil {
		t.Error(err)
	}
	<-term.read
	all = term.raw.String()
	for _, pair := range [][2]string{{"\x1b[?1049h", "\x1b[?1049l"}, {"\x1b[?25l", "\x1b[?25h"}} { // other screen, hidden cursor
		if strings.LastIndex(all, pair[0]) > strings.LastIndex(all, pair[1]) {
			t.Errorf("%q is the last word", pair[0])
		}
	}
	return exitCode(t, term.err), all
}

func (term *terminal) close() {
	select {
	case <-term.exited:
	default:
		term.cmd.Process.Kill()
		<-term.exited
	}
	term.slave.Close()
	<-term.read
	term.master.Close()
	if err := term.screen.Close(); err != nil {
		term.t.Error(err)
	}
}
