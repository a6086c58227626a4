package pyroscope

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// types are the headers of profiles, as the Go runtime and pprofd write them.
var types = map[string][]string{
	"cpu":       {"samples/count", "cpu/nanoseconds", "cpu/nanoseconds"},
	"heap":      {"alloc_objects/count", "alloc_space/bytes", "inuse_objects/count", "inuse_space/bytes", "space/bytes"},
	"allocs":    {"alloc_objects/count", "alloc_space/bytes", "inuse_objects/count", "inuse_space/bytes", "space/bytes"},
	"goroutine": {"goroutine/count", "goroutine/count"},
	"mutex":     {"contentions/count", "delay/nanoseconds", "contentions/count"},
	"block":     {"contentions/count", "delay/nanoseconds", "contentions/count"},
	"wall":      {"wall/nanoseconds", "wall/nanoseconds"},
	"off_cpu":   {"off_cpu/nanoseconds", "off_cpu/nanoseconds"},
}

// maker makes profiles whose contents are known.
type maker struct {
	p         *profile.Profile
	functions map[string]*profile.Location
}

func newMaker(kind string, at time.Time) *maker {
	list := types[kind]
	if list == nil {
		list = []string{kind + "/count", kind + "/count"}
	}
	var all []*profile.ValueType
	for _, s := range list {
		name, unit, _ := strings.Cut(s, "/")
		all = append(all, &profile.ValueType{Type: name, Unit: unit})
	}
	last := len(all) - 1
	return &maker{functions: map[string]*profile.Location{}, p: &profile.Profile{
		SampleType: all[:last], PeriodType: all[last], Period: 10_000_000, TimeNanos: at.UnixNano(), DurationNanos: int64(10 * time.Second),
		Mapping: []*profile.Mapping{{ID: 1, Start: 0x400000, Limit: 0x800000, File: "/usr/bin/prog", BuildID: "abcdef", HasFunctions: true}},
	}}
}

func (m *maker) location(name string) *profile.Location {
	if l := m.functions[name]; l != nil {
		return l
	}
	id := uint64(len(m.p.Function) + 1)
	f := &profile.Function{ID: id, Name: name, SystemName: name, Filename: "/src/prog/main.go"}
	l := &profile.Location{ID: uint64(len(m.p.Location) + 1), Address: 0x400000 + 16*id, Mapping: m.p.Mapping[0], Line: []profile.Line{{Function: f, Line: int64(id)}}}
	m.p.Function, m.p.Location = append(m.p.Function, f), append(m.p.Location, l)
	m.functions[name] = l
	return l
}

// add adds a sample: the stack from the leaf on, with ";", and the same value for each type.
func (m *maker) add(stack string, v int64, labels ...string) {
	s := &profile.Sample{}
	for name := range strings.SplitSeq(stack, ";") {
		s.Location = append(s.Location, m.location(name))
	}
	for i := range m.p.SampleType {
		s.Value = append(s.Value, v*int64(i+1))
	}
	for i := 0; i < len(labels); i += 2 {
		if s.Label == nil {
			s.Label = map[string][]string{}
		}
		s.Label[labels[i]] = append(s.Label[labels[i]], labels[i+1])
	}
	m.p.Sample = append(m.p.Sample, s)
}

// many adds n samples with stacks of their own, of 3,000 functions.
func (m *maker) many(n, depth int) { m.manyOf(n, depth, 3000) }

func (m *maker) manyOf(n, depth, functions int) {
	locations := make([]*profile.Location, functions)
	for i := range locations {
		locations[i] = m.location(fmt.Sprintf("github.com/example/project/package%d.(*Type%d).Method%d", i%7, i%50, i))
	}
	for i := range n {
		s := &profile.Sample{Location: make([]*profile.Location, depth)}
		for j := range s.Location {
			s.Location[j] = locations[(i*31+j*17)%len(locations)]
		}
		for j := range m.p.SampleType {
			s.Value = append(s.Value, int64((i+1)*(j+1)))
		}
		m.p.Sample = append(m.p.Sample, s)
	}
}

func (m *maker) profile(kind string) *export.Profile {
	return &export.Profile{
		Kind: kind, PID: 4242, StartTicks: 99, Comm: "prog", Service: "shop", Start: time.Unix(0, m.p.TimeNanos), Duration: time.Duration(m.p.DurationNanos),
		Labels: []export.Label{{Name: "host", Value: "h1"}, {Name: "pid", Value: "4242"}}, Data: m.p,
	}
}

func newExporter(t testing.TB, o Options) *Exporter {
	t.Helper()
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func send(t testing.TB, e *Exporter, p *export.Profile) {
	t.Helper()
	if err := e.Export(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// encoded is p as it comes out of the spool.
func encoded(t testing.TB, p *export.Profile) *export.Profile {
	t.Helper()
	if _, err := p.Encode(); err != nil {
		t.Fatal(err)
	}
	q := *p
	q.Data = nil
	return &q
}

// only is the one series of a type that the server has.
func only(t *testing.T, s *fake.Server, sampleType string) fake.Series {
	t.Helper()
	var found []fake.Series
	for _, x := range s.Series(false) {
		if strings.Split(x.Type, ":")[1] == sampleType {
			found = append(found, x)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d series of %s, not 1: %v", len(found), sampleType, s.Series(false))
	}
	return found[0]
}

func contented(t *testing.T, s *fake.Server) {
	t.Helper()
	for _, c := range s.Complaints() {
		t.Errorf("the server took it, but: %s", c)
	}
}

// sum adds up the values of one type.
func sum(p *profile.Profile, sampleType string) (n int64) {
	i := slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool { return t.Type == sampleType })
	for _, s := range p.Sample {
		n += s.Value[i]
	}
	return n
}

// unchanged fails if what the exporter was given is not what it was.
func unchanged(t *testing.T, p *export.Profile) func() {
	t.Helper()
	before, labels := written(t, p.Data), slices.Clone(p.Labels)
	return func() {
		t.Helper()
		if !bytes.Equal(written(t, p.Data), before) || !slices.Equal(p.Labels, labels) {
			t.Error("the profile was changed, which others may be reading")
		}
	}
}

func written(t *testing.T, p *profile.Profile) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.WriteUncompressed(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// stacks adds up a sample type by stack, of those that a server keeps.
func stacks(p *profile.Profile, sampleType string) map[string]int64 {
	i := slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool { return t.Type == sampleType })
	out := map[string]int64{}
	for _, s := range p.Sample {
		var names []string
		for _, l := range s.Location {
			for _, line := range l.Line {
				names = append(names, line.Function.Name)
			}
		}
		if s.Value[i] != 0 {
			out[strings.Join(names, ";")] += s.Value[i]
		}
	}
	return out
}

func keys[V any](m map[string]V) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }
