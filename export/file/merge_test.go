package file

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// stacks is a CPU profile of functions f0 … fn and their samples.
func stacks(samples ...int64) *profile.Profile {
	m := &profile.Mapping{ID: 1, Start: 0x1000, Limit: 0x9000, File: "/bin/a", BuildID: "b"}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1e7, TimeNanos: 5, DurationNanos: 1e9,
		Mapping: []*profile.Mapping{m},
	}
	for i, n := range samples {
		f := &profile.Function{ID: uint64(i + 1), Name: fmt.Sprint("main.f", i)}
		l := &profile.Location{ID: uint64(i + 1), Mapping: m, Address: 0x1000 + uint64(i), Line: []profile.Line{{Function: f, Line: 1}}}
		p.Function, p.Location = append(p.Function, f), append(p.Location, l)
		if n != 0 {
			p.Sample = append(p.Sample, &profile.Sample{Location: []*profile.Location{l, p.Location[0]}, Value: []int64{n, n * 1e7}})
		}
	}
	return p
}

func TestMerger(t *testing.T) {
	var m Merger
	var all []*profile.Profile
	const n = 3*groupLen + 5
	for i := range int64(n) {
		p := stacks(i, 1, 0, i%2)
		p.TimeNanos = 1000 - i
		p.Comments = []string{"pprofd 1", export.SamplesComment(10, 1)}
		all = append(all, p.Copy())
		if err := m.Add(p, []export.Label{{Name: "host", Value: "h"}, {Name: "pid", Value: fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := m.Profile()
	if err != nil {
		t.Fatal(err)
	}
	want, err := profile.Merge(all)
	if err != nil {
		t.Fatal(err)
	}
	want.Comments = []string{"pprofd 1", export.SamplesComment(10*n, n), `labels {host="h"}`, fmt.Sprintf("merged from %d profiles", n)}
	if d := gocmp.Diff(want.String(), got.String()); d != "" || m.Merged() != n || len(m.Labels()) != 1 {
		t.Error(d)
	}
	if got.DurationNanos != n*1e9 || got.TimeNanos != 1000-n+1 {
		t.Errorf("%d, %d", got.TimeNanos, got.DurationNanos)
	}
}

func TestMergerOfOneAndNone(t *testing.T) {
	var m Merger
	if p, err := m.Profile(); p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
	if err := m.Add(stacks(1, 2), nil); err != nil {
		t.Fatal(err)
	}
	heap := stacks(1)
	heap.SampleType = []*profile.ValueType{{Type: "inuse_space", Unit: "bytes"}}
	if err := m.Add(heap, nil); err == nil || !strings.Contains(err.Error(), "one has samples/count, cpu/nanoseconds, another inuse_space/bytes") {
		t.Error(err)
	}
	if p, err := m.Profile(); err != nil || p.String() != stacks(1, 2).String() {
		t.Errorf("%v, %v", p, err)
	}
}

// Four times as many profiles of the same stacks take no more memory.
func TestMergersMemory(t *testing.T) {
	const functions = 600
	samples := make([]int64, functions)
	for i := range samples {
		samples[i] = int64(i)
	}
	var encoded bytes.Buffer
	if err := stacks(samples...).Write(&encoded); err != nil {
		t.Fatal(err)
	}
	peak := func(profiles int) (most uint64) {
		var m Merger
		for range profiles {
			p, err := profile.ParseData(encoded.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Add(p, nil); err != nil {
				t.Fatal(err)
			}
			if len(m.group) == groupLen {
				var s runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&s)
				most = max(most, s.HeapAlloc)
			}
		}
		return most
	}
	few, many := peak(2*groupLen), peak(8*groupLen)
	t.Logf("%d kB, %d kB", few>>10, many>>10)
	if many > few+few/5 {
		t.Errorf("%d bytes for %d profiles, %d for four times as many", few, 2*groupLen, many)
	}
}

func TestDiff(t *testing.T) {
	before, after := stacks(100, 50, 30, 0, 7), stacks(100, 80, 10, 5, 7)
	before.Comments, after.Comments = []string{"b"}, []string{"a"}
	after.TimeNanos, after.DurationNanos = 77, 2e9
	want := []DiffRow{
		{Func: "main.f1", Before: 50e7, After: 80e7, Cum: 30e7},
		{Func: "main.f2", Before: 30e7, After: 10e7, Cum: -20e7},
		{Func: "main.f3", Before: 0, After: 5e7, Cum: 5e7},
	}
	if d := gocmp.Diff(want, DiffTop(before, after, 0)); d != "" {
		t.Error(d)
	}
	if d := gocmp.Diff(want[:1], DiffTop(before, after, 1)); d != "" {
		t.Error(d)
	}
	var table bytes.Buffer
	if err := WriteDiff(&table, before, after, 2); err != nil {
		t.Fatal(err)
	}
	const wantTable = `    before      after     change        % cum change
     500ms      800ms     +300ms   +60.0%     +300ms  main.f1
     300ms      100ms     -200ms   -66.7%     -200ms  main.f2
     1.87s      2.02s     +150ms    +8.0%     +150ms  (all)
`
	if d := gocmp.Diff(wantTable, table.String()); d != "" {
		t.Error(d)
	}
	got, err := Diff(before, after)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]int64)
	for _, s := range got.Sample {
		values[s.Location[0].Line[0].Function.Name] = s.Value[0]
	}
	if d := gocmp.Diff(map[string]int64{"main.f1": 30, "main.f2": -20, "main.f3": 5}, values); d != "" {
		t.Error(d)
	}
	if got.TimeNanos != 77 || got.DurationNanos != 2e9 || len(got.Comments) != 1 || got.Comments[0] != "a" {
		t.Errorf("%d, %d, %q", got.TimeNanos, got.DurationNanos, got.Comments)
	}
	heap := stacks(1)
	heap.SampleType = []*profile.ValueType{{Type: "inuse_space", Unit: "bytes"}}
	if _, err := Diff(stacks(1), heap); err == nil || !strings.Contains(err.Error(), "different kinds") {
		t.Error(err)
	}
}

func TestGrowth(t *testing.T) {
	for _, c := range []struct {
		was, is int64
		want    string
	}{{0, 0, "0%"}, {0, 5, "new"}, {5, 0, "-100.0%"}, {-5, 5, "+200.0%"}, {1, 1000, "x1000"}, {3, 4, "+33.3%"}} {
		if got := growth(c.was, c.is); got != c.want {
			t.Errorf("%d -> %d: %q", c.was, c.is, got)
		}
	}
}

func TestReadProfile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var zipped, plain bytes.Buffer
	p := stacks(1, 2)
	p.Comments = []string{"x", `labels {service_name="web"}`}
	if err := p.Write(&zipped); err != nil {
		t.Fatal(err)
	}
	if err := p.WriteUncompressed(&plain); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"gzip": zipped.Bytes(), "plain": plain.Bytes()} {
		got, labels, err := ReadProfile(write(name, b))
		if err != nil || len(got.Sample) != 2 || len(labels) != 1 || labels[0].Value != "web" || len(got.Comments) != 1 {
			t.Errorf("%s: %v, %v, %v", name, got, labels, err)
		}
	}
	var twice bytes.Buffer // a few kilobytes could become terabytes
	z := gzip.NewWriter(&twice)
	if _, err := z.Write(zipped.Bytes()); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		write("twice", twice.Bytes()): "is compressed twice", write("empty", nil): "is empty", dir: "is a directory", filepath.Join(dir, "none"): "no such file",
		write("text", []byte("hello")): "unrecognized profile format", write("half", zipped.Bytes()[:zipped.Len()/2]): "unexpected EOF",
	} {
		if _, _, err := ReadProfile(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
