package export

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// unusual is a profile with everything that a server refuses or trips over.
func unusual() *profile.Profile {
	m := &profile.Mapping{ID: 7, File: "/bin/a\xff", BuildID: "abc"}
	f := &profile.Function{ID: 9, Name: "main.\xf0", SystemName: "main.f", Filename: "a.go"}
	l := &profile.Location{ID: 3, Mapping: m, Address: 16, Line: []profile.Line{{Function: f, Line: 1}, {Function: f, Line: 2}}}
	return &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10, TimeNanos: 1, DurationNanos: 2,
		Mapping: []*profile.Mapping{m}, Function: []*profile.Function{f}, Location: []*profile.Location{l},
		Sample: []*profile.Sample{
			{Location: []*profile.Location{l}, Value: []int64{1, 10}, Label: map[string][]string{"k\xfe": {"v\xfe"}, "": {"x"}},
				NumLabel: map[string][]int64{"n\xfe": {4}, "": {5}}, NumUnit: map[string][]string{"n\xfe": {"u\xfe"}, "": {"x"}}},
			{Value: []int64{2, 20}},
			{Location: []*profile.Location{l}, Value: []int64{0, 0}},
			{Location: []*profile.Location{l}, Value: []int64{5, -1}},
		},
	}
}

func TestEncodeMakesWhatServersTake(t *testing.T) {
	p := &Profile{Kind: "cpu", PID: 1, Data: unusual()}
	before := p.Data.String()
	e, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if p.Data.String() != before {
		t.Error("the profile was changed, which others may be reading")
	}
	if again, err := p.Encode(); err != nil || again != e {
		t.Errorf("encoded a second time: %p, %p, %v", e, again, err)
	}
	got, err := (&Profile{Encoded: e}).Decode()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sample) != 2 || e.Samples != 2 || e.Total != 3 || e.Depth != 2 || !e.Labels {
		t.Errorf("%+v, %d samples", e, len(got.Sample))
	}
	for _, s := range got.Sample {
		if len(s.Location) == 0 {
			t.Error("a sample has no stack")
		}
		for k := range maps.Keys(s.NumLabel) {
			if k == "" || !utf8.ValidString(k) || !utf8.ValidString(s.NumUnit[k][0]) {
				t.Errorf("number %q in %q", k, s.NumUnit[k])
			}
		}
		for k := range maps.Keys(s.Label) {
			if k == "" || !utf8.ValidString(k) || !utf8.ValidString(s.Label[k][0]) {
				t.Errorf("label %q = %q", k, s.Label[k])
			}
		}
	}
	for i, l := range got.Location {
		if l.ID != uint64(i+1) {
			t.Errorf("location %d has number %d", i, l.ID)
		}
	}
	if f := got.Function; f[0].ID != 1 || f[0].Name != "main.\uFFFD" || got.Mapping[0].File != "/bin/a\uFFFD" || got.Mapping[0].ID != 1 {
		t.Errorf("%+v, %+v", f[0], got.Mapping[0])
	}
	if raw := unpacked(t, e.Gzip); len(raw) != e.Raw {
		t.Errorf("%d bytes, said to be %d", len(raw), e.Raw)
	}
}

// TestEncodeHasATime: servers take none for 1970.
func TestEncodeHasATime(t *testing.T) {
	d := unusual()
	d.TimeNanos = 0
	p := &Profile{Kind: "cpu", PID: 1, Data: d, Start: time.Unix(5, 7)}
	e, err := p.Encode()
	if err != nil || d.TimeNanos != 0 {
		t.Fatal(d.TimeNanos, err)
	}
	got, err := (&Profile{Encoded: e}).Decode()
	if err != nil || got.TimeNanos != 5e9+7 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := (&Profile{Kind: "cpu", Data: d}).Encode(); err == nil || !strings.Contains(err.Error(), "when it begins") {
		t.Error(err)
	}
}

// TestEncodeText: all of it is valid.
func TestEncodeText(t *testing.T) {
	for name, spoil := range map[string]func(*profile.Profile){
		"type":    func(p *profile.Profile) { p.SampleType[0].Type = "a\xff" },
		"unit":    func(p *profile.Profile) { p.PeriodType.Unit = "a\xff" },
		"default": func(p *profile.Profile) { p.DefaultSampleType = "a\xff" },
		"drop":    func(p *profile.Profile) { p.DropFrames = "a\xff" },
		"number":  func(p *profile.Profile) { p.Sample[0].NumLabel = map[string][]int64{"a\xff": {1}} },
		"units": func(p *profile.Profile) {
			p.Sample[0].NumLabel, p.Sample[0].NumUnit = map[string][]int64{"a": {1}}, map[string][]string{"a": {"a\xff"}}
		},
	} {
		p := normalized(unusual())
		spoil(p)
		e, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if raw := unpacked(t, e.Gzip); bytes.Contains(raw, []byte("a\xff")) || !bytes.Contains(raw, []byte("a\uFFFD")) {
			t.Errorf("%s: %q", name, raw)
		}
	}
}

func unpacked(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestEncodeOrdinary: a profile without faults is written as it is.
func TestEncodeOrdinary(t *testing.T) {
	p := normalized(unusual())
	var want bytes.Buffer
	if err := p.WriteUncompressed(&want); err != nil {
		t.Fatal(err)
	}
	e, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	if !normal(p) || !bytes.Equal(unpacked(t, e.Gzip), want.Bytes()) {
		t.Error("it was changed")
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*profile.Profile){
		"no period type":    func(p *profile.Profile) { p.PeriodType = nil },
		"no time":           func(p *profile.Profile) { p.TimeNanos = 0 },
		"a time before any": func(p *profile.Profile) { p.TimeNanos = -5 },
		"empty period type": func(p *profile.Profile) { p.PeriodType.Type = "" },
		"no sample types":   func(p *profile.Profile) { p.SampleType = nil },
		"missing values":    func(p *profile.Profile) { p.Sample[0].Value = p.Sample[0].Value[:1] },
	} {
		p := normalized(unusual())
		spoil(p)
		if _, err := Encode(p); err == nil {
			t.Errorf("%s: was encoded", name)
		}
	}
	if _, err := (&Profile{}).Encode(); err == nil {
		t.Error("nothing was encoded")
	}
	if _, err := (&Profile{}).Decode(); err == nil {
		t.Error("nothing was decoded")
	}
	if _, err := (&Profile{Encoded: &Encoded{Gzip: []byte("x")}}).Decode(); err == nil {
		t.Error("garbage was decoded")
	}
}

func TestLabelName(t *testing.T) {
	for in, want := range map[string]string{
		"pod": "pod", "_x9": "_x9", "a.b-c/d": "a_b_c_d", "9lives": "_9lives", "": "_", "größe": "gr__e", "a:b": "a_b", "A9": "A9",
	} {
		got := LabelName(in)
		if in == "größe" {
			want = "gr" + strings.Repeat("_", len("öß")) + "e"
		}
		if got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	p := normalized(unusual())
	p.Sample = slices.Repeat(p.Sample, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(p); err != nil {
			b.Fatal(err)
		}
	}
}
