package gopclntab

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestElision completes physical stacks, which hold the return addresses of wrappers, and compares
// with what runtime.Callers made of the same stacks.
func TestElision(t *testing.T) {
	for _, o := range oracleBuilds() {
		t.Run(o.String(), func(t *testing.T) {
			t.Parallel()
			p := buildPCs(t, o)
			out, err := p.command(t, 0).Output()
			if err != nil {
				t.Fatal(err)
			}
			elided, kept := 0, 0
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if len(lines) != 22 {
				t.Fatalf("%d lines", len(lines))
			}
			if o.Go >= "1.27" { // the wrapper that faults there has no frame: frame pointers lose its caller
				lines = lines[:20]
			}
			for pair := range slices.Chunk(lines, 2) {
				got, e, k := names(t, p.table(t), strings.Fields(pair[0])[1:])
				elided, kept = elided+e, kept+k
				want := strings.Fields(pair[1])[3:] // S runtime.Callers main.stack ...
				if !slices.Equal(got, want) {
					t.Errorf("want %q\n got %q", want, got)
				}
			}
			if elided < 6 || kept < len(lines)/2-9 {
				t.Errorf("%d wrappers elided, %d kept: too few", elided, kept)
			}
		})
	}
}

// names expands return addresses in hex, and counts wrappers.
func names(t *testing.T, tab *Table, stack []string) (names []string, elided, kept int) {
	callee := ""
	for _, s := range stack {
		ret, err := strconv.ParseUint(s, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		f, ok := tab.Find(ret - 1)
		if !ok {
			t.Fatalf("%s not found", s)
		}
		for _, fr := range f.AppendFrames(nil, ret-1) {
			switch {
			case fr.Elided(callee):
				elided++
			case fr.Wrapper:
				kept++
				fallthrough
			default:
				names = append(names, fr.Func)
			}
			callee = fr.Func
		}
	}
	return names, elided, kept
}
