package profiler

import (
	"strings"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// Shown are the frames of a stack as a traceback of the runtime shows them, leaf first: without its own functions, unless all is asked
// for or nothing else would be left (runtime/traceback.go: showframe).
func (g *Goroutines) Shown(stack []objfile.Addr, all bool) []symbolize.Frame {
	frames := make([][]symbolize.Frame, 0, len(stack))
	for _, a := range stack {
		frames = append(frames, g.sym.Frames(a))
	}
	var shown, program []symbolize.Frame
	for i, mask := range symbolize.Elide(nil, frames) {
		for j, f := range frames[i] {
			if j < 64 && mask&(1<<j) == 0 {
				continue
			}
			if inTraceback(f.Func, len(shown) == 0) {
				program = append(program, f)
			}
			shown = append(shown, f)
		}
	}
	if all || len(program) == 0 {
		return shown
	}
	return program
}

// inTraceback says whether the runtime shows a function: it hides its own, but for those that programs call by name, panics, and,
// since Go 1.25, what runs finalizers and cleanups.
func inTraceback(name string, leaf bool) bool {
	own, isRuntime := strings.CutPrefix(name, "runtime.")
	switch {
	case !strings.Contains(name, "."):
		return false
	case !isRuntime:
		return true
	case name == "runtime.gopanic":
		return !leaf
	case name == "runtime.runFinalizers", name == "runtime.runCleanups":
		return true
	}
	if i := strings.LastIndexByte(own, '.'); i >= 0 { // a method: (*Func).Name
		return exported(own[i+1:]) && exported(strings.TrimPrefix(strings.TrimPrefix(own, "("), "*"))
	}
	return exported(own)
}

func exported(name string) bool { return name != "" && name[0] >= 'A' && name[0] <= 'Z' }

// CreatedBy is the go statement at Goroutine.Creator, as the runtime names it: by the function into which the one with the statement may
// have been inlined, with the statement's line. ok is false where there is none that a traceback shows.
func (g *Goroutines) CreatedBy(a objfile.Addr, all bool) (f symbolize.Frame, ok bool) {
	if a == (objfile.Addr{}) {
		return f, false
	}
	frames := g.sym.Frames(a)
	if len(frames) == 0 {
		return f, false
	}
	f = frames[len(frames)-1]
	f.File, f.Line = frames[0].File, frames[0].Line
	return f, all || inTraceback(f.Func, false)
}
