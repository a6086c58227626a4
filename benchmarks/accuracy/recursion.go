package main

import (
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// The path deep of the program mixed: main.recurse calls itself 200 times, and at the bottom main.frameless.
const (
	recursive      = "main.recurse"
	recursiveCalls = 201
	bottom         = "main.frameless"
)

// above are the functions that stand above the recursion, innermost first. A method value's own name ends in -fm.
var above = []string{"main.(*worker).deep", "main.runFor", "main.work"}

// judgeRecursion counts the samples in the recursion: those whose stack is whole up to the goroutine's first function,
// and all. A stack whose leaf is at the bottom has an exact number of calls.
func judgeRecursion(p *profile.Profile) (whole, all int64) {
	for _, s := range p.Sample {
		names := functions(s)
		first := slices.Index(names, recursive)
		if first < 0 {
			continue
		}
		all += s.Value[0]
		rest := names[first:]
		calls := slices.IndexFunc(rest, func(n string) bool { return n != recursive })
		if calls < 0 || !inOrder(rest[calls:], above) {
			continue
		}
		if atBottom := first > 0 && names[first-1] == bottom; calls <= recursiveCalls && (!atBottom || calls == recursiveCalls) {
			whole += s.Value[0]
		}
	}
	return whole, all
}

// inOrder tells whether the names begin with the wanted ones, which others may stand between.
func inOrder(names, want []string) bool {
	for _, name := range names {
		if len(want) > 0 && strings.TrimSuffix(name, "-fm") == want[0] {
			want = want[1:]
		}
	}
	return len(want) == 0
}

// functions are the names of a sample's functions, innermost first.
func functions(s *profile.Sample) []string {
	var names []string
	for _, l := range s.Location {
		for _, line := range l.Line {
			names = append(names, line.Function.Name)
		}
	}
	return names
}
