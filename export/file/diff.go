package file

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// DiffRow is a function in two profiles. Values are of the sample type that the later one wants shown.
type DiffRow struct {
	Func          string
	Before, After int64 // of the function itself
	Cum           int64 // by how much it has changed with what it calls
}

// Change is by how much the function has grown.
func (r *DiffRow) Change() int64 { return r.After - r.Before }

// DiffTop returns the n functions that have changed most, those that have not left out; n <= 0 means all.
func DiffTop(before, after *profile.Profile, n int) []DiffRow {
	rows := make(map[string]*DiffRow)
	row := func(name string) *DiffRow {
		if rows[name] == nil {
			rows[name] = &DiffRow{Func: name}
		}
		return rows[name]
	}
	for _, t := range Top(before, 0) {
		r := row(t.Func)
		r.Before, r.Cum = t.Flat, r.Cum-t.Cum
	}
	for _, t := range Top(after, 0) {
		r := row(t.Func)
		r.After, r.Cum = t.Flat, r.Cum+t.Cum
	}
	var list []DiffRow
	for _, r := range rows {
		if r.Change() != 0 {
			list = append(list, *r)
		}
	}
	slices.SortFunc(list, func(a, b DiffRow) int {
		return cmp.Or(cmp.Compare(abs(b.Change()), abs(a.Change())), strings.Compare(a.Func, b.Func))
	})
	if n > 0 && len(list) > n {
		list = list[:n]
	}
	return list
}

func abs(v int64) int64 { return max(v, -v) }

// WriteDiff writes the n functions that have changed most, and the sums, as a table; where the profiles are about waiting, those that wait.
func WriteDiff(w io.Writer, before, after *profile.Profile, n int) error {
	bw := bufio.NewWriter(w)
	before, after = whoWaits(before), whoWaits(after)
	unit := valueUnit(after)
	line := func(was, is, cum int64, name string) {
		fmt.Fprintf(bw, "%10s %10s %10s %8s %10s  %s\n", formatValue(was, unit), formatValue(is, unit), signed(is-was, unit),
			growth(was, is), signed(cum, unit), printable(name))
	}
	fmt.Fprintf(bw, "%10s %10s %10s %8s %10s\n", "before", "after", "change", "%", "cum change")
	for _, r := range DiffTop(before, after, n) {
		line(r.Before, r.After, r.Cum, r.Func)
	}
	was, is := Total(before), Total(after)
	line(was, is, is-was, "(all)")
	return bw.Flush()
}

func signed(v int64, unit string) string {
	if v > 0 {
		return "+" + formatValue(v, unit)
	}
	return formatValue(v, unit)
}

// growth is in percent of what was.
func growth(was, is int64) string {
	if was == 0 {
		if is == 0 {
			return "0%"
		}
		return "new"
	}
	r := 100 * float64(is-was) / math.Abs(float64(was))
	if math.Abs(r) >= 9999.5 {
		return fmt.Sprintf("x%.0f", float64(is)/float64(was))
	}
	return fmt.Sprintf("%+.1f%%", r)
}

// Diff returns after less before: what has shrunk is negative, as `go tool pprof -base` has it. Time, duration and comments are those
// of after. Both are Diff's from then on.
func Diff(before, after *profile.Profile) (*profile.Profile, error) {
	if err := SameKind(before, after); err != nil {
		return nil, err
	}
	t, d, comments := after.TimeNanos, after.DurationNanos, after.Comments
	before.Scale(-1)
	p, err := profile.Merge([]*profile.Profile{after, before})
	if err != nil {
		return nil, err
	}
	p.TimeNanos, p.DurationNanos, p.Comments = t, d, comments
	return p, nil
}
