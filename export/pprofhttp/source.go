// Package pprofhttp answers as net/http/pprof does, for processes that need not know of it.
//
// For each process there is /pid/4242/debug/pprof/, for all of one service together /service/NAME/debug/pprof/; below are the
// paths that net/http/pprof has. /targets lists the processes for whatever scrapes such paths, as Prometheus' HTTP service
// discovery has it. Who may ask is decided before a request comes here.
package pprofhttp

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// Kinds of profiles, as net/http/pprof calls them.
const (
	KindProfile   = "profile" // of CPU time
	KindHeap      = "heap"
	KindAllocs    = "allocs"
	KindBlock     = "block"
	KindMutex     = "mutex"
	KindGoroutine = "goroutine"
	KindWall      = "wall" // which net/http/pprof does not have; fgprof does
)

// Source has processes, and takes profiles of them. It is safe for concurrent use.
type Source interface {
	// Processes are those that profiles can be had of now, in the order of their PIDs.
	Processes() []Process
	// Profile takes a profile, which is the caller's. It returns soon after ctx has ended. Errors of which the client should
	// know more than that it did not work are an *Error.
	Profile(context.Context, Request) (*profile.Profile, error)
}

// Process is one that profiles can be had of.
type Process struct {
	PID     int
	Start   uint64 // clock ticks since boot: tells it from another of this PID
	Service string // service_name
	Comm    string
	Labels  []export.Label // sorted by name, without service_name. Shared: read only.
}

// Request says what is wanted: of one process, or of all of a service together.
type Request struct {
	PID     int    // 0: of Service
	Service string // where there is no PID
	Kind    string // one of the kinds above
	// Duration is for how long CPU time, or what goroutines do, is sampled; of other kinds it is what has changed within it. 0: for 30 s; what there is
	// now, or was counted since the process began.
	Duration time.Duration
	// Runtime asks for addresses as the process has them. Else they are those of the program's file.
	Runtime bool
}

// Error says why there is no profile, in words for who has asked.
type Error struct {
	Status int           // of HTTP
	After  time.Duration // after which it may be asked again; 0: it is not known
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// NotFound is an error for who asks for what does not exist (any more), or must not be profiled.
func NotFound(format string, args ...any) error {
	return &Error{Status: http.StatusNotFound, Err: fmt.Errorf(format, args...)}
}

// Busy is an error for who asks while there is too much to do.
func Busy(after time.Duration, format string, args ...any) error {
	return &Error{Status: http.StatusServiceUnavailable, After: after, Err: fmt.Errorf(format, args...)}
}
