package file

import (
	"cmp"
	"slices"

	"github.com/google/pprof/profile"
)

// TopRow is one function as `go tool pprof -top` shows it. Values are of the sample type that the profile wants shown.
type TopRow struct {
	Func      string
	Flat, Cum int64
	// Inline and OutOfLine say how the function was called: both is pprof's "(partial-inline)".
	Inline, OutOfLine bool
}

// Name is Func with pprof's mark.
func (r TopRow) Name() string {
	switch {
	case r.Inline && r.OutOfLine:
		return r.Func + " (partial-inline)"
	case r.Inline:
		return r.Func + " (inline)"
	}
	return r.Func
}

// Top returns the n functions with the highest flat value, then by name; n <= 0 means all. A function
// that occurs in a stack several times counts once in Cum.
func Top(p *profile.Profile, n int) []TopRow {
	t := topTable{byName: make(map[string]int32), byFunc: make(map[*profile.Function]int32, len(p.Function)), edges: make(map[edge]bool)}
	shown := shownType(p)
	for _, s := range p.Sample {
		if v := value(s, shown); v != 0 {
			t.add(s, v)
		}
	}
	rows := t.list()
	if n > 0 && len(rows) > n {
		rows = rows[:n]
	}
	return rows
}

// Total is the sum of the sample type that the profile wants shown.
func Total(p *profile.Profile) (sum int64) {
	shown := shownType(p)
	for _, s := range p.Sample {
		sum += value(s, shown)
	}
	return sum
}

// shownType is the index of the default sample type, else of the last, as for `go tool pprof`; -1: there is none.
func shownType(p *profile.Profile) int {
	i := slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool { return t.Type == p.DefaultSampleType })
	if i < 0 {
		i = len(p.SampleType) - 1
	}
	return i
}

func value(s *profile.Sample, i int) int64 {
	if i < 0 || i >= len(s.Value) {
		return 0
	}
	return s.Value[i]
}

// topTable looks names up once for each function of the profile, not for each frame of each sample.
type topTable struct {
	rows    []topRow
	byName  map[string]int32 // in rows
	byFunc  map[*profile.Function]int32
	edges   map[edge]bool // true: inlined in all samples
	certain [1 << 10]edge // recent ones that are known not to be inlined, by their hash
	samples int
}

type topRow struct {
	TopRow
	seen int // the last sample that it counted in
}

// edge is a call: callee is one more than the number of its row, so that the zero value is none.
type edge struct{ caller, callee int32 }

// noRow stands for no caller, and for one that has no name.
const noRow = -1

func (t *topTable) add(s *profile.Sample, v int64) {
	t.samples++
	parent := int32(noRow)
	for _, l := range slices.Backward(s.Location) {
		for i, line := range slices.Backward(l.Line) {
			if line.Function == nil {
				continue
			}
			n := t.row(line.Function)
			t.edge(parent, n, i != len(l.Line)-1)
			t.cum(n, v)
			if parent = n; t.rows[n].Func == "" {
				parent = noRow
			}
		}
	}
	if parent != noRow {
		t.rows[parent].Flat += v
	}
}

// row is the number of a function's row.
func (t *topTable) row(f *profile.Function) int32 {
	if n, ok := t.byFunc[f]; ok {
		return n
	}
	n, ok := t.byName[f.Name]
	if !ok {
		n = int32(len(t.rows))
		t.rows = append(t.rows, topRow{TopRow: TopRow{Func: f.Name}})
		t.byName[f.Name] = n
	}
	t.byFunc[f] = n
	return n
}

func (t *topTable) cum(n int32, v int64) {
	if r := &t.rows[n]; r.seen != t.samples {
		r.seen = t.samples
		r.Cum += v
	}
}

// edge: pprof calls a call inlined only if it is so in every stack.
func (t *topTable) edge(caller, callee int32, inline bool) {
	if caller == noRow || caller == callee {
		return
	}
	e := edge{caller, callee + 1}
	known := &t.certain[(uint32(caller)*31+uint32(callee))%uint32(len(t.certain))]
	if *known == e {
		return
	}
	was, ok := t.edges[e]
	inline = inline && (was || !ok)
	if t.edges[e] = inline; !inline {
		*known = e
	}
}

func (t *topTable) list() []TopRow {
	for e, inline := range t.edges {
		r := &t.rows[e.callee-1]
		r.Inline = r.Inline || inline
		r.OutOfLine = r.OutOfLine || !inline
	}
	rows := make([]TopRow, len(t.rows))
	for i := range t.rows {
		rows[i] = t.rows[i].TopRow
	}
	slices.SortFunc(rows, func(a, b TopRow) int {
		return cmp.Or(cmp.Compare(b.Flat, a.Flat), cmp.Compare(a.Func, b.Func))
	})
	return rows
}
