//go:build linux

package unwind_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// top lists the largest numbers.
func top(m map[string]int) []string {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Compare(m[b], m[a]) })
	var out []string
	for _, k := range keys[:min(len(keys), 20)] {
		out = append(out, fmt.Sprintf("%s %d", k, m[k]))
	}
	return out
}
