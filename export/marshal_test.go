package export

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/pprof/profile"
)

// TestMarshalIsTheLibrarys holds Marshal against the library's own encoding, byte for byte.
func TestMarshalIsTheLibrarys(t *testing.T) {
	var m Marshaler // one for all: what it keeps must not show
	check := func(p *profile.Profile, of any) {
		t.Helper()
		var want bytes.Buffer
		if err := p.WriteUncompressed(&want); err != nil {
			t.Fatal(err)
		}
		if got := m.Marshal(p); !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("%v: %d bytes, of the library %d:\n%x\n%x", of, len(got), want.Len(), got, want.Bytes())
		}
	}
	check(&profile.Profile{}, "empty")
	check(unusual(), "unusual")
	for seed := range uint64(2000) {
		check(random(rand.New(rand.NewPCG(seed, 1))), seed)
	}
	large := random(rand.New(rand.NewPCG(1, 2)))
	for i := range 2 * maxStrings {
		large.Comments = append(large.Comments, fmt.Sprint("comment ", i))
	}
	check(large, "more strings than are kept")
	check(unusual(), "unusual, again")
}

// TestMarshalKeepsMemory: for a profile without labels and comments it allocates nothing, and no string of it stays alive.
func TestMarshalKeepsMemory(t *testing.T) {
	var m Marshaler
	p := random(rand.New(rand.NewPCG(3, 4)))
	p.Comments = nil
	if n := testing.AllocsPerRun(100, func() { m.Marshal(p) }); n != 0 {
		t.Errorf("%v allocations a profile", n)
	}
	for _, s := range m.text.list[:cap(m.text.list)] {
		if s != "" {
			t.Fatalf("%q is kept", s)
		}
	}
}

// random is a profile that has a bit of everything, valid or not, with numbers of all lengths.
func random(r *rand.Rand) *profile.Profile {
	number := func() uint64 { return r.Uint64() >> r.UintN(64) }
	text := func() string {
		return fmt.Sprintf("%.*s", r.IntN(40), fmt.Sprintf("some text %d with more words behind it", r.IntN(30)))
	}
	valueType := func() *profile.ValueType { return &profile.ValueType{Type: text(), Unit: text()} }
	p := &profile.Profile{
		TimeNanos: int64(number()), DurationNanos: int64(number()), Period: int64(number()) - 1,
		DropFrames: text(), KeepFrames: text(), DefaultSampleType: text(), DocURL: text(),
	}
	for range r.IntN(4) {
		p.SampleType = append(p.SampleType, valueType())
		p.Comments = append(p.Comments, text())
		p.Mapping = append(p.Mapping, &profile.Mapping{
			ID: number(), Start: number(), Limit: number(), Offset: number(), File: text(), BuildID: text(),
			HasFunctions: r.IntN(2) == 0, HasFilenames: r.IntN(2) == 0, HasLineNumbers: r.IntN(2) == 0, HasInlineFrames: r.IntN(2) == 0,
		})
	}
	if r.IntN(4) > 0 {
		p.PeriodType = valueType()
	}
	for range r.IntN(30) {
		f := &profile.Function{ID: number(), Name: text(), Filename: text(), StartLine: int64(number())}
		if f.SystemName = f.Name; r.IntN(3) == 0 {
			f.SystemName = text()
		}
		p.Function = append(p.Function, f)
	}
	for range r.IntN(30) {
		p.Location = append(p.Location, randomLocation(r, p, number))
	}
	for range r.IntN(30) {
		p.Sample = append(p.Sample, randomSample(r, p, number, text))
	}
	return p
}

func randomLocation(r *rand.Rand, p *profile.Profile, number func() uint64) *profile.Location {
	l := &profile.Location{ID: number(), Address: number(), IsFolded: r.IntN(2) == 0}
	if n := len(p.Mapping); n > 0 && r.IntN(3) > 0 {
		l.Mapping = p.Mapping[r.IntN(n)]
	}
	for range r.IntN(5) {
		line := profile.Line{Line: int64(number()), Column: int64(r.IntN(2))}
		if n := len(p.Function); n > 0 && r.IntN(5) > 0 {
			line.Function = p.Function[r.IntN(n)]
		}
		l.Line = append(l.Line, line)
	}
	return l
}

func randomSample(r *rand.Rand, p *profile.Profile, number func() uint64, text func() string) *profile.Sample {
	s := &profile.Sample{}
	for range r.IntN(5) {
		s.Value = append(s.Value, int64(number()))
	}
	if n := len(p.Location); n > 0 {
		for range r.IntN(4) * r.IntN(4) * r.IntN(40) {
			s.Location = append(s.Location, p.Location[r.IntN(n)])
		}
	}
	for range r.IntN(4) * r.IntN(2) {
		if s.Label == nil {
			s.Label, s.NumLabel, s.NumUnit = make(map[string][]string), make(map[string][]int64), make(map[string][]string)
		}
		k, n := text(), text()
		s.Label[k] = append(s.Label[k], text())
		s.NumLabel[n] = append(s.NumLabel[n], int64(number()))
		s.NumUnit[n] = append(s.NumUnit[n], text())
	}
	for n := range s.NumUnit {
		if r.IntN(3) == 0 {
			delete(s.NumUnit, n)
		}
	}
	return s
}

// BenchmarkMarshal is of a profile as it comes from a process: 200 stacks, 500 locations, 300 functions.
func BenchmarkMarshal(b *testing.B) {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range uint64(300) {
		name := fmt.Sprintf("github.com/some/project/package%d.(*Type%d).Method%d", i/30, i/10, i)
		p.Function = append(p.Function, &profile.Function{
			ID: i + 1, Name: name, SystemName: name, Filename: fmt.Sprintf("/src/github.com/some/project/package%d/file%d.go", i/30, i/10),
		})
	}
	for i := range uint64(500) {
		p.Location = append(p.Location, &profile.Location{ID: i + 1, Address: i << 12, Line: []profile.Line{{Function: p.Function[i%300], Line: int64(i)}}})
	}
	for range 200 {
		s := &profile.Sample{Value: []int64{1, 10101010}}
		for range 15 {
			s.Location = append(s.Location, p.Location[r.IntN(500)])
		}
		p.Sample = append(p.Sample, s)
	}
	b.Run("pprofd", func(b *testing.B) {
		var m Marshaler
		for b.Loop() {
			m.Marshal(p)
		}
	})
	b.Run("library", func(b *testing.B) {
		for b.Loop() {
			if err := p.WriteUncompressed(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
