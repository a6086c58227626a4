package symbolize

// Elide says which frames of a stack runtime/pprof would show. stack holds the frames of each address,
// leaf first; the result is one bit set per address, bit i for its frame i (frames from the 64th on are
// always shown), appended to dst. Not shown are
//   - compiler-generated wrappers, except where they call a panic function
//     (runtime/traceback.go: tracebackPCs, elideWrapperCalling, Go 1.26),
//   - runtime.goexit (runtime/pprof/proto.go: allFrames),
//   - runtime.asyncPreempt and asyncPreempt2 as leaf: the time belongs to the function they interrupted.
//
// A stack of which nothing would be left is shown whole.
func Elide(dst []uint64, stack [][]Frame) []uint64 {
	n := len(dst)
	e := elision{leaf: true}
	for _, frames := range stack {
		dst = append(dst, e.mask(frames))
	}
	if !e.any {
		for i, frames := range stack {
			dst[n+i] = allFrames(len(frames))
		}
	}
	return dst
}

// Goexit is the function at the root of goroutines.
const Goexit = "runtime.goexit"

// MayElide reports whether there are stacks in which Elide hides f, whose Kind is Go.
func MayElide(f *Frame) bool {
	return f.Wrapper || f.Func == Goexit || f.Func == "runtime.asyncPreempt" || f.Func == "runtime.asyncPreempt2"
}

type elision struct {
	leaf   bool // nothing but kernel frames and asyncPreempt yet
	any    bool
	callee string
}

func (e *elision) mask(frames []Frame) uint64 {
	m := allFrames(len(frames))
	for i := range frames {
		if !e.show(&frames[i]) && i < 64 {
			m &^= 1 << i
			continue
		}
		e.any = e.any || frames[i].Kind != Kernel
	}
	return m
}

func (e *elision) show(f *Frame) bool {
	if f.Kind == Kernel {
		return true
	}
	callee, leaf := e.callee, e.leaf
	e.callee = f.Func
	switch {
	case f.Kind != Go:
	case f.Func == Goexit:
		return false
	case leaf && (f.Func == "runtime.asyncPreempt" || f.Func == "runtime.asyncPreempt2"):
		return false
	case f.Wrapper && !panics(callee):
		return false
	}
	e.leaf = false
	return true
}

// panics: a wrapper that called one of these did not call what it wraps, so it is worth showing.
func panics(callee string) bool {
	switch callee {
	case "runtime.gopanic", "runtime.sigpanic", "runtime.panicwrap":
		return true
	}
	return false
}

func allFrames(n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<n - 1
}
