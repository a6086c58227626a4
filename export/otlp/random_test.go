package otlp

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
)

// TestRandomProfiles: whatever a profile is like that can be encoded, the server has nothing against it, and it comes back.
func TestRandomProfiles(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	x := exporter(t, s, Options{})
	for seed := range uint64(60) {
		d := random(rand.New(rand.NewPCG(seed, 1)))
		d.TimeNanos += int64(seed) * 1000
		n := len(s.Taken())
		if err := x.Export(t.Context(), &export.Profile{Kind: "cpu", Service: "s", Data: d}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want := merged(t, encoded(t, d))
		if len(want.Sample) == 0 {
			continue
		}
		if diff := cmp.Diff(describe(want), describe(back(t, s.Taken()[n]))); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

// random is a profile with what is unusual and permitted: things that are there twice, empty, or nowhere used; text that is none.
func random(r *rand.Rand) *profile.Profile {
	word := func() string {
		return []string{"", "a", "b", "main.f[go.shape.int]", "\xff", "größe", "/src/a.go", "x.s", "[kernel.kallsyms]", "a/b"}[r.IntN(10)]
	}
	d := small()
	d.Sample, d.Mapping, d.Function, d.Location = nil, nil, nil, nil
	for i := range 1 + r.IntN(4) {
		d.Mapping = append(d.Mapping, &profile.Mapping{ID: uint64(i + 1), File: word(), BuildID: word(), Start: uint64(r.IntN(2)), HasFunctions: r.IntN(2) == 0})
	}
	for i := range 1 + r.IntN(8) {
		d.Function = append(d.Function, &profile.Function{ID: uint64(i + 1), Name: "f" + word(), SystemName: word(), Filename: word(), StartLine: int64(r.IntN(2))})
	}
	for i := range 1 + r.IntN(10) {
		l := &profile.Location{ID: uint64(i + 1), Address: uint64(1 + r.IntN(4)), IsFolded: r.IntN(3) == 0}
		if r.IntN(3) > 0 {
			l.Mapping = d.Mapping[r.IntN(len(d.Mapping))]
		}
		for range r.IntN(3) {
			l.Line = append(l.Line, profile.Line{Function: d.Function[r.IntN(len(d.Function))], Line: int64(r.IntN(3)), Column: int64(r.IntN(2))})
		}
		d.Location = append(d.Location, l)
	}
	for range r.IntN(20) {
		s := &profile.Sample{Value: []int64{int64(r.IntN(3)), int64(r.IntN(3)) - 1}}
		for range r.IntN(4) {
			s.Location = append(s.Location, d.Location[r.IntN(len(d.Location))])
		}
		for range r.IntN(3) {
			if s.Label == nil {
				s.Label = map[string][]string{}
			}
			s.Label["l"+word()] = []string{"v" + word()}
		}
		d.Sample = append(d.Sample, s)
	}
	return d
}

// TestAlmostTheSame: what differs in one thing only stays two; what differs in its number only becomes one.
func TestAlmostTheSame(t *testing.T) {
	for name, differ := range map[string]func(m *profile.Mapping, f *profile.Function, l *profile.Location){
		"number":      nil,
		"start":       func(m *profile.Mapping, _ *profile.Function, _ *profile.Location) { m.Start++ },
		"limit":       func(m *profile.Mapping, _ *profile.Function, _ *profile.Location) { m.Limit++ },
		"offset":      func(m *profile.Mapping, _ *profile.Function, _ *profile.Location) { m.Offset++ },
		"file":        func(m *profile.Mapping, _ *profile.Function, _ *profile.Location) { m.File += "x" },
		"build id":    func(m *profile.Mapping, _ *profile.Function, _ *profile.Location) { m.BuildID += "00" },
		"flag":        func(m *profile.Mapping, _ *profile.Function, _ *profile.Location) { m.HasFilenames = true },
		"name":        func(_ *profile.Mapping, f *profile.Function, _ *profile.Location) { f.Name += "x" },
		"system name": func(_ *profile.Mapping, f *profile.Function, _ *profile.Location) { f.SystemName += "x" },
		"source":      func(_ *profile.Mapping, f *profile.Function, _ *profile.Location) { f.Filename += "x" },
		"start line":  func(_ *profile.Mapping, f *profile.Function, _ *profile.Location) { f.StartLine++ },
		"address":     func(_ *profile.Mapping, _ *profile.Function, l *profile.Location) { l.Address++ },
		"line":        func(_ *profile.Mapping, _ *profile.Function, l *profile.Location) { l.Line[0].Line++ },
		"column":      func(_ *profile.Mapping, _ *profile.Function, l *profile.Location) { l.Line[0].Column++ },
		"fewer lines": func(_ *profile.Mapping, _ *profile.Function, l *profile.Location) { l.Line = l.Line[:1] },
		"folded":      func(_ *profile.Mapping, _ *profile.Function, l *profile.Location) { l.IsFolded = true },
	} {
		d := small()
		d.Sample = d.Sample[1:]
		m, f, l := *d.Mapping[0], *d.Function[0], *d.Location[0]
		m.ID, f.ID, l.ID, l.Mapping = 4, 5, 6, &m
		l.Line = []profile.Line{{Function: &f, Line: 4, Column: 2}, {Function: d.Function[1], Line: 10}}
		want := 3 // the zero value, [lost], and both in one
		if differ != nil {
			differ(&m, &f, &l)
			want = 4
		}
		d.Mapping, d.Function, d.Location = append(d.Mapping, &m), append(d.Function, &f), append(d.Location, &l)
		d.Sample = append(d.Sample, &profile.Sample{Location: []*profile.Location{&l}, Value: []int64{5, 50}})
		all := sent(t, &export.Profile{Kind: "cpu", Service: "s", Data: d}, Options{})
		if n := all.Dictionary().LocationTable().Len(); n != want {
			t.Errorf("%s: %d locations, should be %d", name, n, want)
		}
		if diff := cmp.Diff(describe(merged(t, encoded(t, d))), describe(back(t, all))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestKeysOfZeroValues: the table's first entries are found by their contents, too.
func TestKeysOfZeroValues(t *testing.T) {
	all := pprofile.NewProfiles()
	d := newDictionary(all.Dictionary(), &profile.Profile{Mapping: make([]*profile.Mapping, 1), Location: make([]*profile.Location, 1)})
	if n := d.mapping(&profile.Mapping{ID: 1}); n != 0 {
		t.Errorf("a mapping without anything is number %d", n)
	}
	if n := d.location(&profile.Location{ID: 1}); n != 0 {
		t.Errorf("a location without anything is number %d", n)
	}
	if n := d.attribute("a", "", func() {}); all.Dictionary().AttributeTable().At(int(n)).Value().Type() != pcommon.ValueTypeStr {
		t.Error("what is no value has no text instead")
	}
}
