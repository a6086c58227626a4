package main

import (
	"bytes"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/testprog"
)

// handmade has one sample a line: "weight frame frame ...", innermost first.
func handmade(t *testing.T, lines ...string) *profile.Profile {
	t.Helper()
	var b builder
	for _, line := range lines {
		fields := strings.Fields(line)
		s := builtSample{count: int64(len(fields[0]))}
		for _, name := range fields[1:] {
			s.frames = append(s.frames, stackFrame{name: name})
		}
		b.samples = append(b.samples, s)
	}
	p, err := b.profile(&profile.Mapping{Start: 1, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSameMix: of the profile more is in a path whose stacks are rare; a wrong stack stays wrong whatever the mix.
func TestSameMix(t *testing.T) {
	const common, rare = "a main.(*worker).x main.runFor main.work", "main.(*worker).y main.runFor main.work"
	truth := handmade(t, "********* "+common, "* b "+rare)
	next := handmade(t, "********* "+common, "* c "+rare)
	for _, c := range []struct {
		what      string
		got       *profile.Profile
		raw, same float64
	}{
		{"the mix of the next profile", next, 0.9, 0.9},
		{"more of what is rare", handmade(t, "***** "+common, "***** c "+rare), 0.5, 0.9},
		{"none of what is rare", handmade(t, "***** "+common), 1, 0.9},
		{"wrong in its path", handmade(t, "***** "+common, "***** d main.(*worker).x main.runFor main.work"), 0.5, 0.45},
		{"not unwound to the root", handmade(t, "***** "+common, "***** a [broken]"), 0.5, 0.45},
	} {
		raw := testprog.Compare(truth, c.got, nil).Stacks
		if same, _ := sameMix(truth, c.got, next, &testprog.CompareOptions{}); math.Abs(same-c.same) > 1e-9 || math.Abs(raw-c.raw) > 1e-9 {
			t.Errorf("%s: %v, with the same mix %v; want %v, %v", c.what, raw, same, c.raw, c.same)
		}
	}
}

// TestRecursion: the whole stack counts, beyond what the runtime keeps.
func TestRecursion(t *testing.T) {
	calls := func(n int) string { return strings.Repeat(" main.recurse", n) }
	const root = " main.(*worker).deep main.runFor main.work"
	for what, c := range map[string]struct {
		stack      string
		whole, all int64
	}{
		"at the bottom":             {"* main.frameless" + calls(201) + root, 1, 1},
		"one call lost":             {"* main.frameless" + calls(200) + root, 0, 1},
		"on the way":                {"*" + calls(30) + root, 1, 1},
		"the root lost":             {"* main.frameless" + calls(201), 0, 1},
		"cut":                       {"* main.frameless" + calls(126) + " [truncated]", 0, 1},
		"the method value's name":   {"* main.frameless" + calls(201) + " main.(*worker).deep-fm main.runFor main.main.gowrap1 main.work", 1, 1},
		"a function of another way": {"* main.frameless main.caller" + root, 0, 0},
	} {
		if whole, all := judgeRecursion(handmade(t, c.stack)); whole != c.whole || all != c.all {
			t.Errorf("%s: %d of %d, want %d of %d", what, whole, all, c.whole, c.all)
		}
	}
}

// measured is a row's measurement, from what pprofd found in its only window, the process's own profile and its next.
func measured(t *testing.T, got, truth, next *profile.Profile) attempt {
	t.Helper()
	w, err := compare(taken{agent: ours, window: 1, profile: got}, []*profile.Profile{nil, truth, next}, &testprog.CompareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return attempt{Row: "golocal/default", Windows: []window{w}}
}

// TestVerdict: a row below the goal says where its stacks leave the truth, or that the mix is another.
func TestVerdict(t *testing.T) {
	truth := handmade(t, "********* leaf caller main.(*worker).x main.runFor main.work", "* b main.(*worker).y main.runFor main.work")
	next := handmade(t, "********* leaf caller main.(*worker).x main.runFor main.work", "* c main.(*worker).y main.runFor main.work")
	right := measured(t, next, truth, next)
	wrong := measured(t, handmade(t, "********* leaf main.(*worker).x main.runFor main.work"), truth, next)
	mix := measured(t, handmade(t, "* leaf caller main.(*worker).x main.runFor main.work", "* c main.(*worker).y main.runFor main.work"), truth, next)
	for _, c := range []struct {
		attempts []attempt
		missed   bool
		want     []string
	}{
		{nil, false, []string{"not measured yet"}},
		{[]attempt{{Why: "does not build: no"}}, false, []string{"not measured: does not build: no"}},
		{[]attempt{right}, false, []string{"ok +0.0"}},
		{[]attempt{wrong}, true, []string{"MISSED -90.0", "leaf called by main.(*worker).x", "1 of 4 frames shared"}},
		{[]attempt{mix}, true, []string{"MISSED -40.0", "same mix +0.0", "short bursts", "main.(*worker).y 10.00 % instead of 50.00 %"}},
		{[]attempt{wrong, right, right}, false, []string{"ok +0.0", "(first -90.0, again +0.0)"}},
	} {
		text := verdict(c.attempts)
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%q lacks %q", text, want)
			}
		}
		if judge(c.attempts).missed != c.missed {
			t.Errorf("%q: missed is %v", text, !c.missed)
		}
	}
}

// TestState: a row that was measured is not measured again, by the same build; one that misses is, once.
func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "state")
	r := rowOf(t, "golocal/default")
	truth := handmade(t, "* a main.work")
	good, bad := measured(t, truth, truth, truth), measured(t, handmade(t, "* x main.work"), truth, truth)
	open := func(build string) *state {
		s, err := openState(path, build, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	add := func(s *state, a attempt) {
		if err := s.add(a); err != nil {
			t.Fatal(err)
		}
	}
	s := open("abc")
	if !s.wants(r, 0) || s.wants(r, 1) {
		t.Error("a row that was never measured is to be measured once")
	}
	add(s, bad)
	if s = open("abc"); s.wants(r, 0) || !s.wants(r, 1) || len(s.of(r)) != 1 {
		t.Errorf("a row that missed is to be measured again, %+v", s.of(r))
	}
	add(s, good)
	if s = open("abc"); s.wants(r, 0) || s.wants(r, 1) {
		t.Error("a row is measured a third time")
	}
	if s = open("def"); !s.wants(r, 0) {
		t.Error("another build is taken for the same")
	}
	anyBuild, err := openState(path, "def", true)
	if err != nil {
		t.Fatal(err)
	}
	defer anyBuild.Close()
	if anyBuild.wants(r, 0) || len(anyBuild.of(r)) != 2 {
		t.Errorf("what another build measured does not count: %+v", anyBuild.of(r))
	}
	if s = open("abc" + changedTree); !s.wants(r, 0) || len(s.of(r)) != 0 {
		t.Error("a changed tree is taken for its commit")
	}
	add(s, good)
	if s = open("abc" + changedTree); !s.wants(r, 0) {
		t.Error("a changed tree is taken for another one")
	}
}

// TestTable: each row has its line, and those that could not be measured their reason.
func TestTable(t *testing.T) {
	rows, err := chooseRows("^golocal/(default|race)$")
	if err != nil {
		t.Fatal(err)
	}
	truth := handmade(t, "* a main.work")
	s := &state{attempts: map[string][]attempt{"golocal/default": {measured(t, truth, truth, truth)}, "golocal/race": {{Why: "does not run: no memory"}}}}
	var out bytes.Buffer
	b := board.New(&out)
	for _, r := range rows {
		for _, a := range s.of(r) {
			lines(b, r, a)
		}
	}
	table(b, rows, s)
	for _, want := range []string{
		"BenchmarkAccuracy/go=local/mode=default/agent=pprofd 1 100 stacks-% 100 ceiling-%",
		"golocal/race         not measured: does not run: no memory", "# 2 rows, 0 missed the goal, 1 not measured",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
