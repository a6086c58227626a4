package parca

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
	"google.golang.org/grpc"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/parca/profilestorepb"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/parca"
)

// TestRealParca sends to a real server (PARCA_BIN), and asks it what it has.
func TestRealParca(t *testing.T) {
	addr := fake.StartReal(t)
	x := newExporter(t, Options{Address: addr, SampleLabels: []string{"handler"}})
	at := time.Now().Add(-time.Minute)
	goroutine := with(3, &profile.ValueType{Type: "goroutine", Unit: "count"})
	goroutine.PeriodType = &profile.ValueType{Type: "goroutine", Unit: "count"}
	for kind, data := range map[string]*profile.Profile{"cpu": cpuData(3), "heap": heapData(3), "allocs": heapData(3), "goroutine": goroutine} {
		data.TimeNanos = at.UnixNano()
		p := profileOf(t, kind, data)
		p.Start = at
		if err := x.Export(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"goroutine:goroutine:count:goroutine:count false",
		"memory:alloc_objects:count:space:bytes true", "memory:alloc_space:bytes:space:bytes true",
		"memory:inuse_objects:count:space:bytes false", "memory:inuse_space:bytes:space:bytes false",
		"process_cpu:cpu:nanoseconds:cpu:nanoseconds true", "process_cpu:samples:count:cpu:nanoseconds true",
	}
	if d := gocmp.Diff(want, realTypes(t, addr)); d != "" {
		t.Error(d)
	}
	cpu := realQuery(t, addr, at, `process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta{service_name="shop",pid="42"}`)
	if sum(cpu) != 60 || len(cpu.Sample) != 3 {
		t.Errorf("CPU: %d in %d samples", sum(cpu), len(cpu.Sample))
	}
	if n := sum(realQuery(t, addr, at, `process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta{handler="/2"}`)); n != 20 {
		t.Errorf("a label of samples: %d", n)
	}
	heap := realQuery(t, addr, at, `memory:inuse_space:bytes:space:bytes{node="h1"}`)
	if sum(heap) != 6000 {
		t.Errorf("heap: %d", sum(heap))
	}
	checkAddresses(t, heap)
}

// Addresses and build IDs are those of the file.
func checkAddresses(t *testing.T, p *profile.Profile) {
	t.Helper()
	for _, l := range p.Location {
		if l.Address < 0x400000 || l.Address > 0x400200 || l.Mapping == nil || l.Mapping.BuildID != "abc123" || len(l.Line) != 1 {
			t.Errorf("%+v, %+v", l, l.Mapping)
		}
	}
}

func sum(p *profile.Profile) (n int64) {
	for _, s := range p.Sample {
		n += s.Value[0]
	}
	return n
}

func realTypes(t *testing.T, addr string) (ids []string) {
	t.Helper()
	var answer struct {
		Types []struct {
			Name, SampleType, SampleUnit, PeriodType, PeriodUnit string
			Delta                                                bool
		}
	}
	if err := json.Unmarshal(fake.Get(t, addr, "types", url.Values{}), &answer); err != nil {
		t.Fatal(err)
	}
	for _, a := range answer.Types {
		ids = append(ids, fmt.Sprintf("%s:%s:%s:%s:%s %v", a.Name, a.SampleType, a.SampleUnit, a.PeriodType, a.PeriodUnit, a.Delta))
	}
	slices.Sort(ids)
	return ids
}

func realQuery(t *testing.T, addr string, at time.Time, query string) *profile.Profile {
	t.Helper()
	var answer struct{ Pprof []byte }
	b := fake.Get(t, addr, "query", url.Values{
		"mode": {"MODE_MERGE"}, "report_type": {"REPORT_TYPE_PPROF"}, "merge.query": {query},
		"merge.start": {at.Add(-time.Second).UTC().Format(time.RFC3339Nano)}, "merge.end": {at.Add(time.Second).UTC().Format(time.RFC3339Nano)},
	})
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatal(err)
	}
	p, err := profile.ParseData(answer.Pprof)
	if err != nil {
		t.Fatalf("%s: %v: %.300s", query, err, b)
	}
	return p
}

// BenchmarkWindow sends the profiles of a window of 200 processes: 150 stacks of 30 frames each, of 600 functions.
func BenchmarkWindow(b *testing.B) {
	for _, kind := range []string{"cpu", "heap"} {
		b.Run(kind, func(b *testing.B) {
			x := newExporter(b, Options{Address: taker(b)})
			var all []*export.Profile
			bytes := 0
			for range 200 {
				p := profileOf(b, kind, typical(kind))
				bytes += len(p.Encoded.Gzip)
				all = append(all, p)
			}
			for b.Loop() {
				for _, p := range all {
					if err := x.Export(b.Context(), p); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(bytes)/float64(len(all)), "bytes/profile")
		})
	}
}

// taker is a server that takes all without a look.
func taker(b *testing.B) (addr string) {
	b.Helper()
	l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	profilestorepb.RegisterProfileStoreServiceServer(s, takes{})
	ended := make(chan error)
	go func() { ended <- s.Serve(l) }()
	b.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	return l.Addr().String()
}

type takes struct {
	profilestorepb.UnimplementedProfileStoreServiceServer
}

func (takes) WriteRaw(context.Context, *profilestorepb.WriteRawRequest) (*profilestorepb.WriteRawResponse, error) {
	return &profilestorepb.WriteRawResponse{}, nil
}

func typical(kind string) *profile.Profile {
	p := cpuData(600)
	if kind == "heap" {
		p = heapData(600)
	}
	p.Sample = p.Sample[:150]
	for i, s := range p.Sample {
		for f := range 30 {
			s.Location = append(s.Location, p.Location[1+(i*7+f*13)%600])
		}
	}
	return p
}
