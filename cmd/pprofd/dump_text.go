package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/profiler"
)

// group prints goroutines that do the same.
func (d *dumping) group(w io.Writer, g *profiler.GoroutineGroup) {
	goroutines := "goroutines"
	if g.Count == 1 {
		goroutines = "goroutine"
	}
	fmt.Fprintf(w, "%d %s: %s\n", g.Count, goroutines, d.what(doing{g.State, g.Reason, waitRange(g), g.Locked, g.Killed, g.Later, g.Bubble, g.Inconsistent}))
	ids := make([]string, 0, len(g.IDs))
	for _, id := range g.IDs {
		ids = append(ids, fmt.Sprint(id))
	}
	if len(ids) < g.Count {
		ids = append(ids, "…")
	}
	fmt.Fprintf(w, "\tgoid %s\n", strings.Join(ids, " "))
	d.rest(w, g.Labels, started{g.Stack, g.Complete, g.Start, g.Creator, 0})
}

// single prints one goroutine, as the runtime would.
func (d *dumping) single(w io.Writer, g *profiler.Goroutine) {
	wait := ""
	if g.Waited > 0 {
		wait = "at least " + rough(g.Waited)
	}
	fmt.Fprintf(w, "goroutine %d [%s]:\n", g.ID, d.what(doing{g.State, g.Reason, wait, g.Locked, g.Killed, g.Later, g.Bubble, g.Inconsistent}))
	d.rest(w, g.Labels, started{g.Stack, g.Complete, g.Start, g.Creator, g.Parent})
	fmt.Fprintln(w)
}

// doing is what goroutines are about.
type doing struct {
	state        goruntime.State
	reason, wait string
	locked       bool
	killed       bool
	later        time.Duration
	bubble       uint64
	inconsistent bool
}

func (d *dumping) what(g doing) string {
	words := []string{g.state.String()}
	if g.reason != "" {
		words[0] = discover.Printable(g.reason)
		if g.state != goruntime.Waiting {
			words = append(words, g.state.String())
		}
	}
	if g.wait != "" {
		words = append(words, g.wait)
	}
	if g.locked {
		words = append(words, "locked to thread")
	}
	if g.killed {
		words = append(words, "the process ended here")
	}
	if g.later > 0 {
		words = append(words, "stack sampled "+rough(max(g.later, time.Millisecond))+" later")
	}
	if g.bubble != 0 {
		words = append(words, fmt.Sprintf("synctest bubble %d", g.bubble))
	}
	if g.inconsistent {
		words = append(words, "changed whenever it was read")
	}
	return strings.Join(words, ", ")
}

// waitRange says how long the goroutines of a group have waited.
func waitRange(g *profiler.GoroutineGroup) string {
	switch {
	case g.Seen == 0:
		return ""
	case g.Seen < g.Count:
		return fmt.Sprintf("%d of them at least %s to %s", g.Seen, rough(g.Min), rough(g.Max))
	case rough(g.Min) == rough(g.Max):
		return "at least " + rough(g.Min)
	}
	return fmt.Sprintf("at least %s to %s", rough(g.Min), rough(g.Max))
}

// rough: nothing is known to a millisecond.
func rough(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// started is the stack of a goroutine, and where it comes from.
type started struct {
	stack    []objfile.Addr
	complete bool
	start    string
	creator  objfile.Addr
	parent   uint64
}

// rest prints labels, the stack and the creator.
func (d *dumping) rest(w io.Writer, labels []goruntime.Label, s started) {
	if d.o.labels && len(labels) > 0 {
		words := make([]string, 0, len(labels))
		for _, l := range labels {
			words = append(words, fmt.Sprintf("%q: %q", l.Key, l.Value))
		}
		fmt.Fprintf(w, "\tlabels {%s}\n", strings.Join(words, ", "))
	}
	for _, f := range d.g.Shown(s.stack, d.o.runtime) {
		fmt.Fprintf(w, "%s\n\t%s:%d\n", discover.Printable(f.Func), discover.Printable(f.File), f.Line)
	}
	switch {
	case len(s.stack) == 0:
		fmt.Fprintf(w, "...stack not known; its first function is %s...\n", discover.Printable(s.start))
	case !s.complete:
		fmt.Fprintln(w, "...further frames left out...")
	}
	if by := d.creator(s.creator); by != nil {
		in := ""
		if s.parent != 0 {
			in = fmt.Sprintf(" in goroutine %d", s.parent)
		}
		fmt.Fprintf(w, "created by %s%s\n\t%s:%d\n", discover.Printable(by.Func), in, discover.Printable(by.File), by.Line)
	}
}

// frameObject is a frame in dump --json.
type frameObject struct {
	Func string `json:"func"`
	File string `json:"file"`
	Line int    `json:"line"`
}

// goroutineObject is a goroutine in dump --json. The names of the fields do not change.
type goroutineObject struct {
	Goid         uint64            `json:"goid"`
	Parent       uint64            `json:"parent_goid,omitempty"`
	State        string            `json:"state"`
	Reason       string            `json:"reason,omitempty"`
	Waited       int64             `json:"waited_at_least_ns,omitempty"` // absent: not known
	Locked       bool              `json:"locked"`
	System       bool              `json:"system"` // the runtime's own
	Bubble       uint64            `json:"synctest_bubble,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Stack        []frameObject     `json:"stack"`                    // leaf first; empty where it is not known
	Complete     bool              `json:"complete"`                 // the stack goes down to the first function
	Killed       bool              `json:"killed,omitempty"`         // of a core file: the process ended in its thread
	Later        int64             `json:"stack_later_ns,omitempty"` // of one that runs: how much later its stack was sampled
	Inconsistent bool              `json:"inconsistent"`             // it changed whenever it was read
	Start        string            `json:"start_func"`
	CreatedBy    *frameObject      `json:"created_by,omitempty"`
}

// object prints one goroutine as JSON.
func (d *dumping) object(w io.Writer, g *profiler.Goroutine) error {
	o := goroutineObject{
		Goid: g.ID, Parent: g.Parent, State: g.State.String(), Reason: g.Reason, Waited: int64(g.Waited), Locked: g.Locked, System: g.System,
		Bubble: g.Bubble, Complete: g.Complete, Killed: g.Killed, Later: int64(g.Later), Inconsistent: g.Inconsistent, Start: g.Start, Stack: []frameObject{}, CreatedBy: d.creator(g.Creator),
	}
	for _, f := range d.g.Shown(g.Stack, d.o.runtime) {
		o.Stack = append(o.Stack, frameObject{f.Func, f.File, f.Line})
	}
	for _, l := range g.Labels {
		if o.Labels == nil {
			o.Labels = make(map[string]string)
		}
		o.Labels[l.Key] = l.Value
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(o)
}

// creator of a goroutine; nil: there is none to show.
func (d *dumping) creator(a objfile.Addr) *frameObject {
	f, ok := d.g.CreatedBy(a, d.o.runtime)
	if !ok {
		return nil
	}
	return &frameObject{f.Func, f.File, f.Line}
}
