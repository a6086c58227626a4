package top

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
)

// frames makes a location of calls, the innermost first; those behind the first one inlined the one before.
func frames(calls ...string) *profile.Location {
	l := &profile.Location{}
	for _, c := range calls {
		f := &profile.Function{Name: c, Filename: c + ".go"}
		if c == "do_syscall_64" {
			f.Filename = ""
		}
		l.Line = append(l.Line, profile.Line{Function: f, Line: int64(len(c))})
	}
	return l
}

// profileOf has samples of 10 ms each.
func profileOf(stacks ...[]*profile.Location) *profile.Profile {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}}
	for _, s := range stacks {
		p.Sample = append(p.Sample, &profile.Sample{Location: s, Value: []int64{1, int64(10 * time.Millisecond)}})
	}
	return p
}

func TestHot(t *testing.T) {
	h := newHot()
	h.add(profileOf(
		[]*profile.Location{frames("leaf", "mid"), frames("main")},
		[]*profile.Location{frames("mid"), frames("mid"), frames("main")}, // recursion counts once
		[]*profile.Location{frames("do_syscall_64"), frames("runtime.gcDrain"), frames("runtime.gcBgMarkWorker")},
	), 100*time.Millisecond)
	want := []Row{
		{Func: "do_syscall_64", Flat: 0.1, Cum: 0.1}, {Func: "leaf", Flat: 0.1, Cum: 0.1}, {Func: "mid", Flat: 0.1, Cum: 0.2}, {Func: "main", Cum: 0.2},
		{Func: "runtime.gcBgMarkWorker", Cum: 0.1}, {Func: "runtime.gcDrain", Cum: 0.1},
	}
	for i := range want {
		r := &want[i]
		r.FlatAll, r.CumAll = time.Duration(r.Flat*1e8), time.Duration(r.Cum*1e8)
	}
	rows := h.rows(false)
	if d := cmp.Diff(map[string]Row{"a": want[2], "b": want[0], "c": want[1], "d": want[3], "e": want[4], "f": want[5]},
		map[string]Row{"a": rows[0], "b": rows[1], "c": rows[2], "d": rows[3], "e": rows[4], "f": rows[5]}); d != "" {
		t.Error(d)
	}
	sortRows(rows, true)
	if rows[0].Func != "mid" || rows[1].Func != "main" {
		t.Errorf("by cum: %+v", rows[:2])
	}
	if gc := h.share(func(s *slice) time.Duration { return s.gc }); gc != 0.1 {
		t.Errorf("GC takes %v of a CPU", gc)
	}
	lines := h.rows(true)
	sortRows(lines, false)
	if l := lines[0]; l.Func != "mid" || l.File != "mid.go" || l.Line != 3 {
		t.Errorf("%+v", l)
	}
	for _, l := range lines {
		if l.Func == "do_syscall_64" && (l.File != "" || l.Line != 0) {
			t.Errorf("a line where there is none: %+v", l)
		}
	}
}

// TestHotForgets: shares are of the last intervals, sums of all.
func TestHotForgets(t *testing.T) {
	h := newHot()
	old := []*profile.Location{frames("old")}
	h.add(profileOf(old, old, old), time.Second)
	for range recentSlices {
		h.add(profileOf([]*profile.Location{frames("new")}), time.Second)
	}
	got := fmt.Sprint(h.rows(false))
	if want := fmt.Sprint([]Row{{"new", "", 0, 0.01, 0.01, 50 * time.Millisecond, 50 * time.Millisecond}, {"old", "", 0, 0, 0, 30 * time.Millisecond, 30 * time.Millisecond}}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if name, share := h.hottest(); name != "new" || share != 50.0/80 {
		t.Errorf("%s, %v", name, share)
	}
	if h.length() != recentSlices*time.Second {
		t.Errorf("the last %v", h.length())
	}
}

func TestHotIsBounded(t *testing.T) {
	h := newHot()
	for round := range 3 {
		var stacks [][]*profile.Location
		for i := range maxPlaces / 2 {
			stacks = append(stacks, []*profile.Location{frames(fmt.Sprint(round, "-", i))})
		}
		h.add(profileOf(stacks...), time.Second)
	}
	if len(h.funcs) > maxPlaces+1 || h.funcs[other()].flat == 0 {
		t.Errorf("%d functions, others %v", len(h.funcs), h.funcs[other()])
	}
	var sum time.Duration
	for _, s := range h.funcs {
		sum += s.flat
	}
	if sum != h.total {
		t.Errorf("%v in functions, %v in all", sum, h.total)
	}
	if rows := h.rows(false); len(rows) != maxRows {
		t.Errorf("%d rows", len(rows))
	}
}

func TestHotKnowsNothingYet(t *testing.T) {
	h := newHot()
	if name, share := h.hottest(); name != "" || share != 0 || len(h.rows(false)) != 0 || h.share(func(s *slice) time.Duration { return s.total }) != 0 {
		t.Errorf("%q, %v, %v", name, share, h.rows(false))
	}
}
