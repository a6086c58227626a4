package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// untilSignal ends when somebody wants no more. A second signal ends pprofd.
func untilSignal(ctx context.Context) (_ context.Context, stop func()) {
	ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// incomplete is what remains to be said of a dump that was shown, and was not all.
func (d *dumping) incomplete() error {
	switch {
	case d.ended == nil:
		return nil
	case errors.Is(d.ended, context.Canceled):
		return exitError{exitSignal + int(syscall.SIGINT), errors.New("interrupted: only a part of the goroutines was read")}
	}
	return fmt.Errorf("only a part of the goroutines is shown: %w", explainGoroutines(d.ended))
}

// dumpProgress says on the terminal how far reading has come, where that takes its time. It is silent where standard error is no
// terminal, and where goroutines are printed there as they are read.
type dumpProgress struct {
	w     io.Writer // nil: nobody looks
	n     int
	next  time.Time
	shown bool
}

// progressEach is how many goroutines are read between two looks at the clock.
const progressEach = 1 << 12

func newDumpProgress(stdout, stderr io.Writer, o *dumpOptions) *dumpProgress {
	p := &dumpProgress{next: time.Now().Add(2 * progressInterval)}
	if isTerminal(stderr) && (!o.asJSON && !o.all || !isTerminal(stdout)) {
		p.w = stderr
	}
	return p
}

// add counts one.
func (p *dumpProgress) add() {
	if p.n++; p.w == nil || p.n%progressEach != 0 || time.Now().Before(p.next) {
		return
	}
	p.next, p.shown = time.Now().Add(progressInterval), true
	fmt.Fprintf(p.w, "%s%d goroutines read; ^C shows them", eraseLine, p.n)
}

func (p *dumpProgress) end() {
	if p.shown {
		fmt.Fprint(p.w, eraseLine)
	}
}
