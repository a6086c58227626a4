package pprofhttp

import (
	"io"
	"net/http"

	"github.com/google/pprof/profile"
)

// kind is what stands behind the prefix.
type kind struct {
	about  string
	lacks  string // why there is none yet
	answer func(*Handlers, http.ResponseWriter, *http.Request, Request) error
}

// needsKind is said of kinds that pprofd does not have.
const needsKind = "pprofd does not take this kind of profile; the program itself can, with net/http/pprof"

// kinds are those that net/http/pprof has, and wall.
var kinds = map[string]kind{
	KindProfile: {about: "CPU profile, sampled 100 times a second for the seconds given, or 30", answer: (*Handlers).cpu},
	KindHeap: {about: "A sampling of memory allocations of live objects. With seconds it is what has changed in that time",
		answer: (*Handlers).records},
	KindAllocs: {about: "A sampling of all past memory allocations. With seconds it is those of that time",
		answer: (*Handlers).records},
	KindBlock: {about: "Stack traces that led to blocking on synchronization primitives, if the program counts them. With seconds it is those of that time",
		answer: (*Handlers).records},
	KindMutex: {about: "Stack traces of holders of contended mutexes, if the program counts them. With seconds it is those of that time",
		answer: (*Handlers).records},
	KindGoroutine: {about: "Stack traces of all current goroutines. With seconds it is what has changed in that time",
		answer: (*Handlers).records},
	KindWall: {about: "Where time passes: what all goroutines do, running and waiting, for the seconds given, or 30; also as /debug/fgprof",
		answer: (*Handlers).cpu},
	"cmdline": {about: "The command line of the program", answer: (*Handlers).cmdline},
	"symbol": {about: "Maps given program counters to function names, in a GET raw query or POST body, separated by '+'",
		answer: (*Handlers).symbol},
	"goroutineleak": {about: "Stack traces of all leaked goroutines", lacks: needsKind},
	"threadcreate":  {about: "Stack traces that led to the creation of new OS threads", lacks: needsKind},
	"trace": {about: "A trace of execution of the program",
		lacks: "an execution trace is written by the runtime of the program, which pprofd does not make do anything; the program itself can, with net/http/pprof"},
}

// textOf is how profiles of a kind are written for debug=1; nil: they are not.
func textOf(kind string) func(io.Writer, *profile.Profile) error {
	switch kind {
	case KindHeap, KindAllocs:
		return writeHeap
	case KindBlock:
		return writeBlock
	case KindMutex:
		return writeMutex
	case KindGoroutine:
		return writeGoroutines
	}
	return nil
}
