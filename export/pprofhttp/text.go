package pprofhttp

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/google/pprof/profile"
)

// writeStack ends a line with the addresses of a stack, and explains them in lines of their own, as runtime/pprof does
// (printStackRecord of runtime/pprof/pprof.go); between the two stand other lines. There are no offsets in functions.
func writeStack(w io.Writer, stack []*profile.Location, between []string) {
	for _, l := range stack {
		fmt.Fprintf(w, " %#x", l.Address+1) // the return address
	}
	fmt.Fprintln(w)
	for _, line := range between {
		fmt.Fprintf(w, "# %s\n", oneLine(line))
	}
	for _, l := range stack {
		for _, line := range l.Line {
			if line.Function != nil {
				fmt.Fprintf(w, "#\t%#x\t%s\t%s:%d\n", l.Address+1, oneLine(line.Function.Name), oneLine(line.Function.Filename), line.Line)
			}
		}
	}
	fmt.Fprintln(w)
}

// writeBlock and writeMutex write a profile of contention as text, in the form of runtime/pprof (writeProfileInternal of
// runtime/pprof/pprof.go), which pprof reads. A cycle is a nanosecond, and what was not sampled has been estimated already.
func writeBlock(out io.Writer, p *profile.Profile) error {
	return writeContention(out, p, "--- contention:\ncycles/second=1000000000\n")
}

func writeMutex(out io.Writer, p *profile.Profile) error {
	return writeContention(out, p, "--- mutex:\ncycles/second=1000000000\nsampling period=1\n")
}

func writeContention(out io.Writer, p *profile.Profile, head string) error {
	list := slices.Clone(p.Sample)
	slices.SortStableFunc(list, func(a, b *profile.Sample) int { return cmp.Compare(b.Value[1], a.Value[1]) })
	return writeLines(out, p, head, list, func(w io.Writer, s *profile.Sample) {
		fmt.Fprintf(w, "%d %d @", s.Value[1], s.Value[0])
		writeStack(w, s.Location, nil)
	})
}

// writeGoroutines writes a goroutine profile as text, in the form of runtime/pprof (printCountProfile of runtime/pprof/pprof.go).
func writeGoroutines(out io.Writer, p *profile.Profile) error {
	list := slices.Clone(p.Sample)
	slices.SortStableFunc(list, func(a, b *profile.Sample) int { return cmp.Compare(b.Value[0], a.Value[0]) })
	var all int64
	for _, s := range list {
		all += s.Value[0]
	}
	return writeLines(out, p, fmt.Sprintf("goroutine profile: total %d\n", all), list, func(w io.Writer, s *profile.Sample) {
		fmt.Fprintf(w, "%d @", s.Value[0])
		writeStack(w, s.Location, labelsOf(s))
	})
}

// labelsOf is a line with the labels of a sample, if it has any.
func labelsOf(s *profile.Sample) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(s.Label)) {
		list = append(list, fmt.Sprintf("%q:%q", key, strings.Join(s.Label[key], ",")))
	}
	if len(list) == 0 {
		return nil
	}
	return []string{"labels: {" + strings.Join(list, ", ") + "}"}
}

// writeLines writes a head, samples and p's comments.
func writeLines(out io.Writer, p *profile.Profile, head string, list []*profile.Sample, write func(io.Writer, *profile.Sample)) error {
	b := bufio.NewWriter(out)
	w := tabwriter.NewWriter(b, 1, 8, 1, '\t', 0)
	fmt.Fprint(w, head)
	for _, s := range list {
		write(w, s)
	}
	for _, c := range p.Comments {
		fmt.Fprintf(w, "# %s\n", strings.ReplaceAll(c, "\n", "\n# "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return b.Flush()
}
