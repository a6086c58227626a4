package parca

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/parca"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

var start = time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)

// with makes a profile of some stacks, whose values are 1·i, 10·i, 100·i, ... of stack i.
func with(stacks int, types ...*profile.ValueType) *profile.Profile {
	m := &profile.Mapping{ID: 1, Start: 0x400000, Limit: 0x500000, File: "/bin/api", BuildID: "abc123"}
	root := &profile.Function{ID: 1, Name: "main.main", SystemName: "main.main", Filename: "/src/main.go"}
	p := &profile.Profile{
		SampleType: types, PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1e7,
		TimeNanos: start.UnixNano(), DurationNanos: 1e10, Mapping: []*profile.Mapping{m}, Function: []*profile.Function{root},
		Location: []*profile.Location{{ID: 1, Mapping: m, Address: 0x400010, Line: []profile.Line{{Function: root, Line: 1}}}},
	}
	for i := 1; i <= stacks; i++ {
		name := fmt.Sprintf("example.com/api/handlers.(*Server).handle%d", i)
		f := &profile.Function{ID: uint64(i + 1), Name: name, SystemName: name, Filename: fmt.Sprintf("/src/handlers/%d.go", i)}
		l := &profile.Location{ID: uint64(i + 1), Mapping: m, Address: 0x400100 + uint64(i), Line: []profile.Line{{Function: f, Line: int64(i)}}}
		s := &profile.Sample{Location: []*profile.Location{l, p.Location[0]}, Label: map[string][]string{"handler": {fmt.Sprint("/", i)}}}
		for v := int64(i); len(s.Value) < len(types); v *= 10 {
			s.Value = append(s.Value, v)
		}
		p.Function, p.Location, p.Sample = append(p.Function, f), append(p.Location, l), append(p.Sample, s)
	}
	return p
}

func cpuData(stacks int) *profile.Profile {
	return with(stacks, &profile.ValueType{Type: "samples", Unit: "count"}, &profile.ValueType{Type: "cpu", Unit: "nanoseconds"})
}

func heapData(stacks int) *profile.Profile {
	p := with(stacks, &profile.ValueType{Type: "alloc_objects", Unit: "count"}, &profile.ValueType{Type: "alloc_space", Unit: "bytes"},
		&profile.ValueType{Type: "inuse_objects", Unit: "count"}, &profile.ValueType{Type: "inuse_space", Unit: "bytes"})
	p.PeriodType = &profile.ValueType{Type: "space", Unit: "bytes"}
	p.DefaultSampleType = "inuse_space"
	return p
}

// profileOf is p as the queue hands it over.
func profileOf(t testing.TB, kind string, p *profile.Profile) *export.Profile {
	t.Helper()
	q := &export.Profile{
		Kind: kind, PID: 42, Comm: "api", Service: "shop", Start: start, Duration: time.Duration(p.DurationNanos), Data: p,
		Labels: []export.Label{{Name: "host", Value: "h1"}, {Name: "pid", Value: "42"}},
	}
	if _, err := q.Encode(); err != nil {
		t.Fatal(err)
	}
	q.Data = nil
	return q
}

func newExporter(t testing.TB, o Options) *Exporter {
	t.Helper()
	x, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// connected are a server and an exporter to it.
func connected(t testing.TB, o Options) (*fake.Server, *Exporter) {
	t.Helper()
	s := fake.Start(t, fake.Options{})
	o.Address = s.Addr
	return s, newExporter(t, o)
}

// send returns what the server stored of p.
func send(t testing.TB, s *fake.Server, x *Exporter, p *export.Profile) []fake.Stored {
	t.Helper()
	s.Forget()
	if err := x.Export(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return s.Stored()
}

func one(t testing.TB, s *fake.Server, x *Exporter, p *export.Profile) fake.Stored {
	t.Helper()
	all := send(t, s, x, p)
	if len(all) != 1 {
		t.Fatalf("%d profiles are stored", len(all))
	}
	return all[0]
}
