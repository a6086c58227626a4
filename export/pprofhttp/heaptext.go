package pprofhttp

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/google/pprof/profile"
)

// writeHeap writes a heap or allocs profile as text, in the form of runtime/pprof (writeHeapInternal of runtime/pprof/pprof.go), which
// pprof reads. It has the numbers of what was sampled, from which readers estimate the rest; a profile has those estimates already,
// so they are taken back. There are no runtime.MemStats, no offsets in functions, and no functions of the runtime's own allocator, which
// runtime/pprof leaves out of other forms, too.
func writeHeap(out io.Writer, p *profile.Profile) error {
	list := make([]heapLine, len(p.Sample))
	var all heapLine
	for i, s := range p.Sample {
		list[i] = newHeapLine(s, p.Period)
		all.objects, all.bytes = all.objects+list[i].objects, all.bytes+list[i].bytes
		all.allocs, all.allocBytes = all.allocs+list[i].allocs, all.allocBytes+list[i].allocBytes
	}
	slices.SortStableFunc(list, func(a, b heapLine) int { return cmp.Compare(b.bytes, a.bytes) })
	if all.bytes == all.allocBytes {
		all.allocBytes++ // else readers take it for a profile without allocations, as runtime/pprof says
	}
	b := bufio.NewWriter(out)
	w := tabwriter.NewWriter(b, 1, 8, 1, '\t', 0)
	fmt.Fprintf(w, "heap profile: %d: %d [%d: %d] @ heap/%d\n", all.objects, all.bytes, all.allocs, all.allocBytes, 2*p.Period)
	for i := range list {
		list[i].write(w)
	}
	for _, c := range p.Comments {
		fmt.Fprintf(w, "# %s\n", strings.ReplaceAll(c, "\n", "\n# "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return b.Flush()
}

// heapLine is one stack.
type heapLine struct {
	objects, bytes, allocs, allocBytes int64 // that were sampled
	stack                              []*profile.Location
}

func newHeapLine(s *profile.Sample, rate int64) heapLine {
	var size int64
	if list := s.NumLabel["bytes"]; len(list) == 1 {
		size = list[0]
	}
	allocs, objects := sampledOf(s.Value[0], size, rate), sampledOf(s.Value[2], size, rate)
	return heapLine{objects, objects * size, allocs, allocs * size, s.Location}
}

// sampledOf is how many of a number of objects were sampled, the reverse of scaleHeapSample in runtime/pprof/protomem.go.
func sampledOf(objects, size, rate int64) int64 {
	if rate <= 1 || size <= 0 {
		return objects
	}
	scale := 1 / (1 - math.Exp(-float64(size)/float64(rate)))
	n := int64(math.Ceil(float64(objects) / scale))
	if n > 0 && int64(float64(n-1)*scale) == objects { // it was rounded up
		n--
	}
	return n
}

func (h *heapLine) write(w io.Writer) {
	fmt.Fprintf(w, "%d: %d [%d: %d] @", h.objects, h.bytes, h.allocs, h.allocBytes)
	writeStack(w, h.stack, nil)
}

// oneLine keeps names, which the program may have made up, in their line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
