package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaction is what a signal asks of a recording.
type reaction int

const (
	goOn  reaction = iota
	stop           // end the recording and write it; with a program behind --, do not wait for it either
	abort          // leave at once
)

// signals receives the signals of a recording and decides what they mean.
type signals struct {
	c       chan os.Signal
	pipe    chan os.Signal
	program bool   // a program stands behind --
	child   *child // its process, once there is one
	asked   int    // how often SIGINT or SIGTERM came (SIGHUP too, without a program)
	last    syscall.Signal
}

// watchSignals starts to receive. A signal that was ignored when pprofd started stays ignored, as nohup(1) and
// background jobs of shells want it. SIGPIPE is received and dropped, so that writes fail with EPIPE instead: ignoring
// it would be inherited by the program.
func watchSignals(program bool) *signals {
	s := &signals{c: make(chan os.Signal, 16), pipe: make(chan os.Signal, 1), program: program}
	want := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
	if program {
		want = append(want, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT)
	}
	for _, sig := range want {
		if !signal.Ignored(sig) {
			signal.Notify(s.c, sig)
		}
	}
	signal.Notify(s.pipe, syscall.SIGPIPE)
	return s
}

// close gives the signals back their default meaning.
func (s *signals) close() {
	signal.Stop(s.c)
	signal.Stop(s.pipe)
}

// react passes sig on to the child, if there is one, and says what it means for the recording.
func (s *signals) react(sig os.Signal) reaction {
	s.last, _ = sig.(syscall.Signal)
	if s.child != nil && !fromTerminal(sig) {
		s.child.signal(sig)
	}
	if !s.asksToEnd(sig) {
		return goOn
	}
	s.asked++
	patience := 1
	if s.program {
		patience = 2 // the first is the child's own
	}
	switch {
	case s.asked < patience:
		return goOn
	case s.asked == patience:
		return stop
	}
	return abort
}

// early says whether a signal came before the first sample that asks to end: there is nothing to write yet then.
func (s *signals) early() bool {
	for {
		select {
		case sig := <-s.c:
			s.last, _ = sig.(syscall.Signal)
			if s.asksToEnd(sig) {
				return true
			}
		default:
			return false
		}
	}
}

// asksToEnd: a program behind -- may take SIGHUP for "read your configuration again".
func (s *signals) asksToEnd(sig os.Signal) bool {
	return sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGHUP && !s.program
}

// code is the exit code that tells of the last signal.
func (s *signals) code() int { return exitSignal + int(s.last) }

// fromTerminal says whether a signal that a terminal sends came from there, so that the child, which is in the same
// process group, has it already. Go does not tell who sent a signal: that we are in the foreground is taken as the answer.
func fromTerminal(sig os.Signal) bool {
	if sig != syscall.SIGINT && sig != syscall.SIGQUIT && sig != syscall.SIGWINCH {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false // no controlling terminal
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}
