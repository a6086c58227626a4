package top

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/pprof/profile"
)

// place is a function, or a line of one.
type place struct {
	fn, file string
	line     int // 0: the function
}

// spent is CPU time at a place, and at it or below.
type spent struct{ flat, cum time.Duration }

// Row is a line of the table of hot places.
type Row struct {
	Func string
	File string // "" in a table of functions
	Line int
	// Flat and Cum are shares of one CPU, of late.
	Flat, Cum float64
	// FlatAll and CumAll are since the beginning.
	FlatAll, CumAll time.Duration
}

// Bounds on what is kept.
const (
	recentSlices = 5       // "of late" are the last so many intervals
	maxPlaces    = 1 << 14 // since the beginning; what comes beyond is one row
	maxRows      = 1 << 10 // that are shown
)

// slice is what one interval has shown.
type slice struct {
	length       time.Duration
	funcs, lines map[place]spent
	total, gc    time.Duration
	samples      int64
}

// hot counts where CPU time goes.
type hot struct {
	recent       []slice // oldest first
	funcs, lines map[place]spent
	total        time.Duration
}

func newHot() *hot { return &hot{funcs: make(map[place]spent), lines: make(map[place]spent)} }

// add counts the profile of one interval.
func (h *hot) add(p *profile.Profile, length time.Duration) {
	s := slice{length: length, funcs: make(map[place]spent), lines: make(map[place]spent)}
	at := slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool { return t.Unit == "nanoseconds" })
	for _, sample := range p.Sample {
		if at >= 0 && at < len(sample.Value) {
			s.add(sample, time.Duration(sample.Value[at]))
			s.samples += sample.Value[0]
		}
	}
	h.total += s.total
	addAll(h.funcs, s.funcs)
	addAll(h.lines, s.lines)
	if h.recent = append(h.recent, s); len(h.recent) > recentSlices {
		h.recent = slices.Delete(h.recent, 0, 1)
	}
}

// add counts one stack.
func (s *slice) add(sample *profile.Sample, v time.Duration) {
	s.total += v
	leaf, inGC := true, false
	seen := make(map[place]bool, 2*len(sample.Location))
	for _, loc := range sample.Location {
		for _, l := range loc.Line {
			if l.Function == nil {
				continue
			}
			fn, line := placesOf(l)
			count(s.funcs, seen, fn, v, leaf)
			count(s.lines, seen, line, v, leaf)
			leaf = false
			inGC = inGC || collects(l.Function.Name)
		}
	}
	if inGC {
		s.gc += v
	}
}

func placesOf(l profile.Line) (fn, line place) {
	fn = place{fn: l.Function.Name}
	if l.Function.Filename == "" { // of the kernel, or of C without debug information
		return fn, fn
	}
	return fn, place{fn: l.Function.Name, file: l.Function.Filename, line: int(l.Line)}
}

// count counts v at p, once a stack in what is at it or below.
func count(to map[place]spent, seen map[place]bool, p place, v time.Duration, leaf bool) {
	t := to[p]
	if !seen[p] {
		seen[p] = true
		t.cum += v
	}
	if leaf {
		t.flat += v
	}
	to[p] = t
}

// other is the row of what is too much to be kept.
func other() place { return place{fn: "[other functions]"} }

func addAll(to, from map[place]spent) {
	for p, v := range from {
		if _, known := to[p]; !known && len(to) >= maxPlaces {
			p = other()
		}
		t := to[p]
		to[p] = spent{t.flat + v.flat, t.cum + v.cum}
	}
}

// collects says whether a function is where the garbage collector begins to work (runtime/mgc.go, mgcsweep.go, mgcscavenge.go): that
// of its own goroutines, and that which allocations have to do.
func collects(name string) bool {
	switch name {
	case "runtime.gcBgMarkWorker", "runtime.gcAssistAlloc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.deductSweepCredit",
		"runtime.gcStart", "runtime.gcMarkDone", "runtime.gcMarkTermination", "runtime.wbBufFlush", "runtime.gcDrain":
		return true
	}
	return false
}

// length is how long "of late" is.
func (h *hot) length() (d time.Duration) {
	for i := range h.recent {
		d += h.recent[i].length
	}
	return d
}

// share of one CPU that get says was spent of late.
func (h *hot) share(get func(*slice) time.Duration) float64 {
	var sum time.Duration
	for i := range h.recent {
		sum += get(&h.recent[i])
	}
	return ratio(sum, h.length())
}

func ratio(part, whole time.Duration) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// rows are the hottest functions or lines, of late and since the beginning.
func (h *hot) rows(lines bool) []Row {
	all, late := h.funcs, make(map[place]spent)
	if lines {
		all = h.lines
	}
	for i := range h.recent {
		from := h.recent[i].funcs
		if lines {
			from = h.recent[i].lines
		}
		addAll(late, from)
	}
	length := h.length()
	rows := make([]Row, 0, len(all))
	for p, v := range all {
		now := late[p]
		rows = append(rows, Row{p.fn, p.file, p.line, ratio(now.flat, length), ratio(now.cum, length), v.flat, v.cum})
	}
	sortRows(rows, false)
	rows = rows[:min(len(rows), maxRows)]
	return slices.Clip(rows)
}

// sortRows puts the hottest first.
func sortRows(rows []Row, cum bool) {
	slices.SortFunc(rows, func(a, b Row) int {
		flat := cmp.Or(cmp.Compare(b.Flat, a.Flat), cmp.Compare(b.FlatAll, a.FlatAll))
		below := cmp.Or(cmp.Compare(b.Cum, a.Cum), cmp.Compare(b.CumAll, a.CumAll))
		if cum {
			flat, below = below, flat
		}
		return cmp.Or(flat, below, cmp.Compare(a.Func, b.Func), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}

// hottest is the function with most CPU time since the beginning.
func (h *hot) hottest() (name string, share float64) {
	var most spent
	for p, v := range h.funcs {
		if v.flat > most.flat || v.flat == most.flat && v.flat > 0 && p.fn < name {
			name, most = p.fn, v
		}
	}
	return name, ratio(most.flat, h.total)
}
