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
	t := topTable{rows: make(map[string]*TopRow), edges: make(map[edge]bool)}
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

type topTable struct {
	rows  map[string]*TopRow
	edges map[edge]bool // true: inlined in all samples
	seen  map[string]bool
}

type edge struct{ caller, callee string }

func (t *topTable) add(s *profile.Sample, v int64) {
	t.seen = make(map[string]bool, len(s.Location))
	var parent string
	for _, l := range slices.Backward(s.Location) {
		if len(l.Line) == 0 {
			continue
		}
		for i, line := range slices.Backward(l.Line) {
			if line.Function == nil {
				continue
			}
			name := line.Function.Name
			t.edge(parent, name, i != len(l.Line)-1)
			t.cum(name, v)
			parent = name
		}
	}
	if parent != "" {
		t.rows[parent].Flat += v
	}
}

func (t *topTable) cum(name string, v int64) {
	if t.seen[name] {
		return
	}
	t.seen[name] = true
	r := t.rows[name]
	if r == nil {
		r = &TopRow{Func: name}
		t.rows[name] = r
	}
	r.Cum += v
}

// edge: pprof calls a call inlined only if it is so in every stack.
func (t *topTable) edge(caller, callee string, inline bool) {
	if caller == "" || caller == callee {
		return
	}
	e := edge{caller, callee}
	was, ok := t.edges[e]
	t.edges[e] = inline && (was || !ok)
}

func (t *topTable) list() []TopRow {
	for e, inline := range t.edges {
		r := t.rows[e.callee]
		r.Inline = r.Inline || inline
		r.OutOfLine = r.OutOfLine || !inline
	}
	rows := make([]TopRow, 0, len(t.rows))
	for _, r := range t.rows {
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b TopRow) int {
		return cmp.Or(cmp.Compare(b.Flat, a.Flat), cmp.Compare(a.Func, b.Func))
	})
	return rows
}
