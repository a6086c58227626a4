package profiler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestCgo: the Go part of every stack is there however C treats the frame pointer; C functions that keep one, and the
// leaf, have their names; callbacks join the Go code that called C.
func TestCgo(t *testing.T) {
	for name, o := range map[string]testprog.Options{
		"newest": {Cgo: true}, "pie": {Cgo: true, PIE: true}, "go1.20": {Cgo: true, Go: "1.20.14"}, "go1.23": {Cgo: true, Go: "1.23.12"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := testprog.Build(t, "cgowork", o)
			proc := testprog.Start(t, bin, "-seconds", "4")
			prof, _ := sample(t, Config{Frequency: 499, NoKernel: true}, proc.PID, 3*time.Second)
			right, wrong := map[string]int{}, map[string]int{}
			for _, s := range prof.Sample {
				path, problem := judgeCgo(names(s))
				if path == "" {
					continue
				}
				if right[path]++; problem != "" {
					right[path]--
					if wrong[path]++; wrong[path] <= 3 {
						t.Logf("%s: %s: %v", path, problem, names(s))
					}
				}
			}
			for path := range cgoPaths {
				if right[path] < 3 || wrong[path]*100 > right[path] {
					t.Errorf("%s: %d stacks right, %d wrong", path, right[path], wrong[path])
				}
			}
		})
	}
}

// cgoPaths are the functions that the stack of a sample must have below the one that names the path, in order.
var cgoPaths = map[string][]string{
	"fp_inner":        {"fp_outer", "main.withFramePointers", "main.run", "main.main"},
	"nofp_inner":      {"main.withoutFramePointers", "main.run", "main.main"},
	"main.goCallback": {"main.callback", "main.run", "main.main"},
	"main.goThread":   {"crosscall2"},
	"main.onlyGo":     {"main.run", "main.main"},
}

func judgeCgo(stack []string) (path, problem string) {
	for p, want := range cgoPaths {
		i := slices.IndexFunc(stack, func(n string) bool { return n == p })
		if i < 0 {
			continue
		}
		rest := stack[i+1:]
		for _, w := range want {
			j := slices.IndexFunc(rest, func(n string) bool { return n == w || strings.HasSuffix(n, "."+w) })
			if j < 0 {
				return p, "no " + w
			}
			rest = rest[j+1:]
		}
		return p, ""
	}
	return "", ""
}
