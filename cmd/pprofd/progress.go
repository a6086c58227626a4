package main

import (
	"fmt"
	"io"
	"time"

	"github.com/pprofd/pprofd/profiler"
)

const progressInterval = 500 * time.Millisecond

// progress is the line on the terminal that is written over while a recording runs. It is silent where standard error
// is no terminal, and behind --, where the terminal is the program's.
type progress struct {
	w      io.Writer
	tick   <-chan time.Time // nil: never
	ticker *time.Ticker
	start  time.Time
	length time.Duration // 0: open
}

func newProgress(r *recording) *progress {
	p := &progress{w: r.stderr, start: time.Now(), length: r.o.duration}
	if !r.o.quiet && r.child == nil && r.oom == nil && isTerminal(r.stderr) {
		p.ticker = time.NewTicker(progressInterval)
		p.tick = p.ticker.C
	}
	return p
}

const eraseLine = "\r\x1b[K"

func (p *progress) show(s profiler.Stats) {
	fmt.Fprint(p.w, eraseLine, progressLine(time.Since(p.start), p.length, s))
}

func progressLine(elapsed, length time.Duration, s profiler.Stats) string {
	left := max(length-elapsed, 0).Round(100 * time.Millisecond)
	return fmt.Sprintf("%.1f s left, %d samples, %d lost", left.Seconds(), s.Recorded, s.Lost)
}

// note writes a line that stays, on terminals only.
func (p *progress) note(text string) {
	if p.ticker != nil {
		fmt.Fprint(p.w, eraseLine, text, "\n")
	}
}

func (p *progress) end() {
	if p.ticker != nil {
		p.ticker.Stop()
		fmt.Fprint(p.w, eraseLine)
	}
}
