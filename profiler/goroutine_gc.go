package profiler

import (
	"fmt"

	"github.com/pprofd/pprofd/internal/goruntime"
)

// GCReader reads what a process's runtime counts of its heap and of garbage collections. It lives as long as the Goroutines that it is of,
// and belongs to the same goroutine.
type GCReader struct {
	g     *Goroutines
	state goruntime.GCState
}

// OpenGC finds out where the runtime counts. Errors wrap goruntime.ErrNoGCState.
func (g *Goroutines) OpenGC() (*GCReader, error) {
	s, err := goruntime.FindGCState(g.space.Main().Image.File, g.layout.Version)
	if err != nil {
		return nil, fmt.Errorf("process %d (%s): %w", g.pid, g.comm, err)
	}
	return &GCReader{g, s}, nil
}

// Read takes some microseconds. Errors wrap goruntime.ErrNoGCState, or are those of a process that has gone.
func (r *GCReader) Read() (goruntime.GC, error) {
	gc, err := r.state.Read(r.g.mem, r.g.bias)
	if err != nil {
		return gc, fmt.Errorf("process %d (%s): %w", r.g.pid, r.g.comm, err)
	}
	return gc, nil
}
