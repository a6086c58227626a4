package main

import (
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

// A profile that is driven by timers of threads, as the process's own is, is not an even sample of its CPU time: it has
// less of what runs in short bursts, such as the workers of the garbage collector, and their stacks are many and rare.
// Held against it, an even sample has more stacks that the truth lacks, all of them right. sameMix tells this apart from
// stacks that are wrong: it splits profiles by path of the workload, and weighs the shares of exact stacks within the
// paths as the next profile of the process itself would.

// sameMix is the share of got's stacks that truth has, had got the mix of paths that next has; and the shares of the paths in
// got and next. Paths that only got has count as they are: what was not unwound to its root is on none.
func sameMix(truth, got, next *profile.Profile, o *testprog.CompareOptions) (float64, map[string][2]float64) {
	ours, theirs := byPath(got), byPath(next)
	judged, reference := judgePaths(truth, ours, o), judgePaths(truth, theirs, o)
	n, m := weight(judged), weight(reference)
	mix := map[string][2]float64{}
	var right, all float64
	for path, a := range judged {
		if _, known := reference[path]; !known {
			all += n.share(a)
			right += n.share(a) * a.Stacks
		}
		mix[path] = [2]float64{n.share(a), m.share(reference[path])}
	}
	rest := 1 - all
	for path, a := range reference {
		exact := a.Stacks // of a path that got has no sample of nothing is known
		if a, ok := judged[path]; ok {
			exact = a.Stacks
		}
		right += rest * m.share(a) * exact
		mix[path] = [2]float64{n.share(judged[path]), m.share(a)}
	}
	return right, mix
}

// weight is a total of nanoseconds.
type totalWeight int64

func weight(paths map[string]testprog.Agreement) (sum totalWeight) {
	for _, a := range paths {
		sum += totalWeight(a.Weight)
	}
	return sum
}

func (w totalWeight) share(a testprog.Agreement) float64 {
	return float64(a.Weight) / float64(max(w, 1))
}

func judgePaths(truth *profile.Profile, paths map[string]*profile.Profile, o *testprog.CompareOptions) map[string]testprog.Agreement {
	judged := map[string]testprog.Agreement{}
	for path, p := range paths {
		if a := testprog.Compare(truth, p, o); a.Weight > 0 {
			judged[path] = a
		}
	}
	return judged
}

// byPath splits a profile by path.
func byPath(p *profile.Profile) map[string]*profile.Profile {
	parts := map[string]*profile.Profile{}
	for _, s := range p.Sample {
		path := pathOf(functions(s))
		if parts[path] == nil {
			parts[path] = &profile.Profile{SampleType: p.SampleType}
		}
		parts[path].Sample = append(parts[path].Sample, s)
	}
	return parts
}

// roots stand below the first function of a goroutine or thread.
var roots = []string{"runtime.goexit", "runtime.mstart", "runtime.mstart0", "runtime.mstart1", "runtime.systemstack"}

// pathOf names what a stack belongs to: the method of the worker that main.runFor calls, else the outermost function.
func pathOf(stack []string) string {
	if slices.Contains(stack, recursive) {
		return above[0] // where the process's own stacks are cut
	}
	i := slices.Index(stack, "main.runFor")
	for ; i > 0; i-- {
		if strings.HasPrefix(stack[i-1], "main.(*worker).") {
			return strings.TrimSuffix(stack[i-1], "-fm")
		}
	}
	for i := range slices.Backward(stack) {
		if !slices.Contains(roots, strings.TrimSuffix(stack[i], ".abi0")) {
			return stack[i]
		}
	}
	return "nothing"
}
