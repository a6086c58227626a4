//go:build linux

package profiler

import (
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestGoroutinesUnderLoad reads goroutines that never rest, beside some that do: those that rest are right, nearly all of them, and
// none of the others has a stack that it cannot have.
func TestGoroutinesUnderLoad(t *testing.T) {
	needs.Root(t)
	for _, version := range testprog.Versions() {
		t.Run(testprog.Options{Go: version}.String(), func(t *testing.T) {
			const idle = 300
			dumps := 40
			if testprog.Emulated() {
				dumps = 10
			}
			p := testprog.Start(t, testprog.Build(t, "restless", testprog.Options{Go: version}), "300")
			g, err := OpenGoroutines(p.PID, "")
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			j := judge{t: t, g: g, lines: make(map[call]int)}
			for range dumps {
				seen := j.idle
				if _, err := g.Read(t.Context(), GoroutineQuery{Labels: true}, j.look); err != nil {
					t.Fatal(err)
				}
				if j.idle-seen != idle {
					t.Errorf("%d idle goroutines, want %d", j.idle-seen, idle)
				}
			}
			t.Logf("%d goroutines that wait, %d of them inconsistent; %d stacks of others, %d inconsistent, %d running", j.idle, j.lost, j.moving, j.unsure, j.running)
			if j.lost*1000 > j.idle {
				t.Errorf("%d of %d goroutines that wait are inconsistent", j.lost, j.idle)
			}
			if j.moving < 100 || j.unsure > j.moving {
				t.Errorf("%d stacks of goroutines that move, %d inconsistent", j.moving, j.unsure)
			}
		})
	}
}

// call is one function's call of another.
type call struct{ caller, callee string }

// judge looks at goroutines of restless.
type judge struct {
	t                                   *testing.T
	g                                   *Goroutines
	lines                               map[call]int // where each call is
	idle, lost, moving, unsure, running int
}

// callers says which functions of restless a function is called by; "" is nobody.
var callers = map[string]string{
	"main.main": "", "main.rest": "", "main.waitForEver": "main.waitForEver", "main.churn": "", "main.small": "main.churn", "main.smallSend": "main.small",
	"main.smallReceive": "main.small", "main.large": "main.churn", "main.largeSend": "main.large", "main.largeReceive": "main.large",
	"main.nap": "main.churn", "main.echo": "", "main.answer": "main.echo", "main.calls": "", "main.shortCall": "main.calls",
	"main.readInto": "main.shortCall", "main.longCall": "main.calls", "main.seek": "main.longCall", "main.starter": "", "main.short": "",
	"main.nap2": "main.short", "main.grow": "main.grow", "main.nap3": "main.grow", "main.garbage": "", "main.pause": "main.garbage",
	"main.relabel": "", "main.nap4": "main.relabel",
}

// begins says whether a call is the first of a function that calls itself.
func begins(c call) bool {
	return c == call{"main.short", "main.grow"} || c == call{"main.rest", "main.waitForEver"}
}

func (j *judge) look(one *Goroutine) error {
	frames := j.g.Shown(one.Stack, true)
	switch {
	case one.Start == "" || one.ID == 0:
		j.t.Errorf("a goroutine that begins nowhere: %+v", *one.Goroutine)
	case one.Start == "main.rest":
		j.idle++
		if one.Inconsistent || !one.Complete {
			j.lost++
		}
	case one.Inconsistent:
		j.unsure++
	case one.State == goruntime.Running:
		j.running++
		if len(one.Stack) > 0 {
			j.t.Errorf("goroutine %d runs, and has the stack %v", one.ID, frames)
		}
	default:
		j.moving++
	}
	for _, l := range one.Labels[:len(one.Labels)/2] {
		if l.Value != one.Labels[1].Value {
			j.t.Errorf("labels of different times: %v", one.Labels)
		}
	}
	inner := ""
	for _, f := range frames {
		by, known := callers[inner]
		at := call{f.Func, inner}
		switch line, seen := j.lines[at]; {
		case !strings.HasPrefix(f.Func, "main."):
		case known && by != "" && f.Func != by && !begins(at):
			j.t.Errorf("goroutine %d [%s %s]: %s called %s: %v", one.ID, one.State, one.Reason, f.Func, inner, frames)
		case seen && line != f.Line && inner != "" && !strings.HasPrefix(inner, "runtime."):
			j.t.Errorf("goroutine %d [%s %s]: %s calls %s in lines %d and %d: %v", one.ID, one.State, one.Reason, f.Func, inner, line, f.Line, frames)
		default:
			j.lines[at] = f.Line
		}
		inner = f.Func
	}
	return nil
}
