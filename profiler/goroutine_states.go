package profiler

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pprofd/pprofd/internal/goruntime"
)

// GoroutineState is how many goroutines do the same.
type GoroutineState struct {
	State  goruntime.State
	Reason string // "" where they do not wait
	Count  int
}

// GoroutineStates are the goroutines of a process by what they do, the most first.
type GoroutineStates struct {
	States []GoroutineState
	Total  int // of the program, as runtime.NumGoroutine counts
	System int // the runtime's own
}

// States counts goroutines by what they do, the runtime's own apart. Stacks are not read: that takes a fraction of what Read takes.
// So a goroutine that runs finalizers or cleanups counts as the runtime's at all times.
func (g *Goroutines) States(ctx context.Context) (GoroutineStates, error) {
	var out GoroutineStates
	counts := make(map[GoroutineState]int)
	_, err := g.layout.Read(ctx, g.mem, g.bias, goruntime.ReadGoroutines{
		Buffers: g.buffers,
		Want: func(raw *goruntime.Goroutine) bool {
			if g.system(&Goroutine{Goroutine: raw, Start: g.function(raw.StartPC)}) {
				out.System++
				return false
			}
			out.Total++
			s := GoroutineState{State: raw.State}
			if raw.State == goruntime.Waiting {
				s.Reason = raw.Reason
			}
			counts[s]++
			return false
		},
	})
	if err != nil {
		return out, fmt.Errorf("process %d (%s): %w", g.pid, g.comm, err)
	}
	for s, n := range counts {
		s.Count = n
		out.States = append(out.States, s)
	}
	slices.SortFunc(out.States, func(a, b GoroutineState) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.State, b.State), cmp.Compare(a.Reason, b.Reason))
	})
	return out, nil
}

// Current says whether the process still runs the program that was opened.
func (g *Goroutines) Current() bool { return g.current() }
