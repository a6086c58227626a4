package testprog

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// Truth is what programs with exact knowledge of themselves (leaf, spin) print when they end.
type Truth struct {
	Paths    map[string]Path `json:"paths"`
	RusageNS int64           `json:"rusage_ns"` // user + system time of the whole process
	WallNS   int64           `json:"wall_ns"`
}

// Path is one path of execution with a known stack.
type Path struct {
	CPUNS int64    `json:"cpu_ns"` // exact, by the thread's CPU clock
	Stack []string `json:"stack"`  // functions that its samples have in this order, innermost first, others between them
}

// Truth waits for the program's end and decodes the line "truth {...}".
func (p *Proc) Truth(t testing.TB, timeout time.Duration) Truth {
	t.Helper()
	p.Wait(t, timeout)
	line := p.WaitLine(t, "truth ", time.Second)
	var truth Truth
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "truth ")), &truth); err != nil {
		t.Fatalf("%s: %v", p.cmd.Path, err)
	}
	return truth
}

// Share is the part, by weight, of a profile's samples with label=value whose stack has the path's functions in their
// order, and the weight of all samples with the label. A few samples of a path are in its own first functions, before
// they call the next.
func (path Path) Share(p *profile.Profile, label, value string) (share float64, weight int64) {
	var right int64
	index := weightIndex(p)
	for _, s := range p.Sample {
		if !slices.Contains(s.Label[label], value) {
			continue
		}
		weight += s.Value[index]
		if inOrder(functions(normalize(s, &CompareOptions{})), path.Stack) {
			right += s.Value[index]
		}
	}
	return ratio(right, weight), weight
}

// inOrder tells whether want is a subsequence of have. Stacks that were cut at 56 frames have it as far as they go.
func inOrder(have, want []string) bool {
	cut := len(have) == depthLimit
	for _, name := range have {
		if len(want) > 0 && name == want[0] {
			want = want[1:]
		}
	}
	return len(want) == 0 || cut && !slices.Contains(have, want[0])
}
