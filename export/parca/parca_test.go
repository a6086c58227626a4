package parca

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

func TestKinds(t *testing.T) {
	s, x := connected(t, Options{})
	cpu := []string{"process_cpu:samples:count:cpu:nanoseconds:delta", "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta"}
	inuse := []string{"memory:inuse_objects:count:space:bytes", "memory:inuse_space:bytes:space:bytes"}
	allocs := []string{"memory:alloc_objects:count:space:bytes:delta", "memory:alloc_space:bytes:space:bytes:delta"}
	contention := with(3, &profile.ValueType{Type: "contentions", Unit: "count"}, &profile.ValueType{Type: "delay", Unit: "nanoseconds"})
	contention.PeriodType = &profile.ValueType{Type: "contentions", Unit: "count"}
	goroutine := with(3, &profile.ValueType{Type: "goroutine", Unit: "count"})
	goroutine.PeriodType = &profile.ValueType{Type: "goroutine", Unit: "count"}
	odd := with(3, &profile.ValueType{Type: "off-cpu time", Unit: "ns/s"})
	odd.PeriodType.Unit = ""
	none := cpuData(3)
	none.DurationNanos, none.TimeNanos = 0, 0
	for name, c := range map[string]struct {
		kind  string
		data  *profile.Profile
		types []string
		sums  []int64
	}{
		"CPU":                             {"cpu", cpuData(3), cpu, []int64{6, 60}},
		"a heap: what is in use":          {"heap", heapData(3), inuse, []int64{600, 6000}},
		"allocations":                     {"allocs", heapData(3), allocs, []int64{6, 60}},
		"goroutines":                      {"goroutine", goroutine, []string{"goroutine:goroutine:count:goroutine:count"}, []int64{6}},
		"mutexes":                         {"mutex", contention, []string{"mutex:contentions:count:contentions:count:delta", "mutex:delay:nanoseconds:contentions:count:delta"}, []int64{6, 60}},
		"blocking":                        {"block", contention, []string{"block:contentions:count:contentions:count:delta", "block:delay:nanoseconds:contentions:count:delta"}, []int64{6, 60}},
		"a kind that is not known":        {"page-faults", cpuData(3), []string{"page_faults:samples:count:cpu:nanoseconds:delta", "page_faults:cpu:nanoseconds:cpu:nanoseconds:delta"}, []int64{6, 60}},
		"names that queries cannot have":  {"off_cpu", odd, []string{"off_cpu:off_cpu_time:ns_s:cpu:_:delta"}, []int64{6}},
		"CPU, neither time nor duration":  {"cpu", none, cpu, []int64{6, 60}},
		"allocations by probes: two only": {"allocs", allocsData(), allocs, []int64{6, 60}},
	} {
		t.Run(name, func(t *testing.T) {
			got := one(t, s, x, profileOf(t, c.kind, c.data))
			if d := gocmp.Diff(c.types, got.Types) + gocmp.Diff(c.sums, got.Sums); d != "" {
				t.Error(d)
			}
			if got.TimeNanos != start.UnixNano() {
				t.Errorf("time %d", got.TimeNanos)
			}
			if got.Profile.Mapping[0].BuildID != "abc123" || got.Profile.Sample[0].Location[0].Address == 0 {
				t.Errorf("%v", got.Profile.Mapping[0])
			}
		})
	}
}

func allocsData() *profile.Profile {
	p := with(3, &profile.ValueType{Type: "alloc_objects", Unit: "count"}, &profile.ValueType{Type: "alloc_space", Unit: "bytes"})
	p.PeriodType = &profile.ValueType{Type: "space", Unit: "bytes"}
	return p
}

// What is right already is sent as it is: nothing is parsed.
func TestBytesAreKept(t *testing.T) {
	for _, kind := range []string{"cpu", "mutex"} {
		p := profileOf(t, kind, cpuData(50))
		x := newExporter(t, Options{Address: "localhost:1"})
		parts, err := x.prepare(p)
		if err != nil || len(parts) != 1 || &parts[0].gzip[0] != &p.Encoded.Gzip[0] {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestProfileIsNotChanged(t *testing.T) {
	s, x := connected(t, Options{SampleLabels: []string{"handler"}})
	for _, kind := range []string{"cpu", "heap", "allocs"} {
		p := profileOf(t, kind, heapData(5))
		p.Data, p.Encoded = heapData(5), nil
		before := p.Data.String()
		if n := len(send(t, s, x, p)); n != 5 {
			t.Errorf("%s: %d series", kind, n)
		}
		if p.Data.String() != before || p.Encoded != nil {
			t.Errorf("%s: the profile was changed, which others may be reading", kind)
		}
	}
}

// A server keeps nothing of these: it is not bothered.
func TestNothingIsNotSent(t *testing.T) {
	s, x := connected(t, Options{})
	freed := heapData(3)
	for _, sample := range freed.Sample {
		sample.Value[2], sample.Value[3] = 0, 0
	}
	for kind, d := range map[string]*profile.Profile{"cpu": cpuData(0), "heap": freed} {
		if all := send(t, s, x, profileOf(t, kind, d)); len(all) != 0 || s.Requests() != 0 {
			t.Errorf("%s: %d stored by %d requests", kind, len(all), s.Requests())
		}
	}
}

func TestFreedSitesAreLeftOut(t *testing.T) {
	s, x := connected(t, Options{})
	d := heapData(100)
	for _, sample := range d.Sample[10:] {
		sample.Value[2], sample.Value[3] = 0, 0
	}
	got := one(t, s, x, profileOf(t, "heap", d)).Profile
	if len(got.Sample) != 10 || len(got.Function) != 11 {
		t.Errorf("%d samples, %d functions", len(got.Sample), len(got.Function))
	}
}

func TestLabels(t *testing.T) {
	s, x := connected(t, Options{})
	label := func(pairs ...string) (list []export.Label) {
		for pair := range slices.Chunk(pairs, 2) {
			list = append(list, export.Label{Name: pair[0], Value: pair[1]})
		}
		return list
	}
	long := strings.Repeat("ü", maxValue)
	for name, c := range map[string]struct {
		service, comm string
		pid           int
		labels        []export.Label
		want          map[string]string
	}{
		"of a process":        {"shop", "api", 7, label("host", "h", "pid", "7"), map[string]string{"service_name": "shop", "host": "h", "node": "h", "pid": "7"}},
		"of record":           {"", "api", 7, nil, map[string]string{"service_name": "api", "pid": "7"}},
		"of several":          {"", "", 0, nil, map[string]string{"service_name": "unknown_service"}},
		"an instance":         {"s", "", 7, label("instance", "i"), map[string]string{"service_name": "s", "instance": "i"}},
		"a node":              {"s", "", 0, label("host", "h", "node", "n"), map[string]string{"service_name": "s", "host": "h", "node": "n"}},
		"odd names":           {"s", "", 0, label("a-b", "1", "a.b", "2", "9", "3", "größe", "4"), map[string]string{"service_name": "s", "a_b": "1", "_9": "3", "gr____e": "4"}},
		"empty, the server's": {"s", "", 0, label("a", "", "__name__", "x", "__b", "1", "service_name", "x"), map[string]string{"service_name": "s"}},
		"a service as label":  {"", "c", 0, label("service_name", "l"), map[string]string{"service_name": "l"}},
		"long":                {"s", "", 0, label("a", long), map[string]string{"service_name": "s", "a": long[:maxValue]}},
		"no UTF-8":            {"s\xff", "", 0, label("a", "\xfe"), map[string]string{"service_name": "s\uFFFD", "a": "\uFFFD"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := profileOf(t, "cpu", cpuData(1))
			p.Service, p.Comm, p.PID, p.Labels = c.service, c.comm, c.pid, c.labels
			got := one(t, s, x, p)
			if d := gocmp.Diff(c.want, got.Labels); d != "" || got.Name != "process_cpu" {
				t.Error(got.Name, d)
			}
		})
	}
}

func TestSampleLabels(t *testing.T) {
	s, x := connected(t, Options{SampleLabels: []string{"handler", "tenant-id", "pid"}})
	d := cpuData(4)
	d.Sample[1].Label = nil
	d.Sample[2].Label = map[string][]string{"handler": {"/1", "second"}, "tenant-id": {"a\x00b"}, "other": {"x"}, "pid": {"1"}}
	d.Sample[3].Label = map[string][]string{"handler": {"/1"}}
	got := make(map[string]int64)
	for _, st := range send(t, s, x, profileOf(t, "cpu", d)) {
		if st.Labels["pid"] != "42" || st.TimeNanos != start.UnixNano() || st.Duration != 1e10 || len(st.Types) != 2 {
			t.Errorf("%+v", st)
		}
		got[fmt.Sprintf("%s %s", st.Labels["handler"], st.Labels["tenant_id"])] = st.Sum("samples")
	}
	if d := gocmp.Diff(map[string]int64{"/1 ": 1 + 4, " ": 2, "/1 a b": 3}, got); d != "" {
		t.Error(d)
	}
	if s.Requests() != 1 {
		t.Errorf("%d requests: what is one profile is stored in whole or not", s.Requests())
	}
}

// A program may set a label to a new value for each request.
func TestSampleLabelsOfManyValues(t *testing.T) {
	s, x := connected(t, Options{SampleLabels: []string{"handler"}})
	const stacks = 1000
	var sum int64
	series := make(map[string]bool)
	for _, st := range send(t, s, x, profileOf(t, "cpu", cpuData(stacks))) {
		series[st.Labels["handler"]] = true
		sum += st.Sum("samples")
	}
	if len(series) != maxSeries || sum != stacks*(stacks+1)/2 || !series["/1000"] || series["/1"] || !series[""] {
		t.Errorf("%d series of %d samples: %v", len(series), sum, slices.Sorted(maps.Keys(series)))
	}
}

// What was changed on its way through a disk is not sent, for it might do harm to the server; or what counts is as it was.
func TestDamagedBytes(t *testing.T) {
	s, x := connected(t, Options{})
	p := profileOf(t, "cpu", cpuData(20))
	whole := p.Encoded.Gzip
	sent := 0
	for i := range whole {
		e := *p.Encoded
		e.Gzip = bytes.Clone(whole)
		e.Gzip[i] ^= 1 << (i % 8)
		p.Encoded = &e
		s.Forget()
		err := x.Export(t.Context(), p)
		if err == nil {
			sent++
			if st := s.Stored(); len(st) != 1 || st[0].Sum("samples") != 210 {
				t.Fatalf("byte %d: %+v", i, st)
			}
			continue
		}
		if e := export.RetryOf(err); e == nil || e.Retry != export.Never || e.Reason != "invalid" {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	if sent > 10 {
		t.Errorf("of %d profiles with a wrong byte %d were sent: only the header of gzip has bytes without a meaning", len(whole), sent)
	}
	for _, e := range []*export.Encoded{nil, {Samples: 1}, {Samples: 1, Gzip: whole[:len(whole)/2]}} {
		p.Encoded = e
		if e := export.RetryOf(x.Export(t.Context(), p)); e == nil || e.Retry != export.Never {
			t.Errorf("%v", e)
		}
	}
}

func TestTooLarge(t *testing.T) {
	s, x := connected(t, Options{})
	p := profileOf(t, "cpu", cpuData(100))
	x.max = len(p.Encoded.Gzip)
	e := export.RetryOf(x.Export(t.Context(), p))
	if e == nil || e.Retry != export.Never || e.Reason != tooLarge || s.Requests() != 0 {
		t.Errorf("%+v", e)
	}
}

func TestConcurrentUse(t *testing.T) {
	s, x := connected(t, Options{SampleLabels: []string{"none"}})
	p := profileOf(t, "cpu", cpuData(100))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if err := x.Export(t.Context(), p); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.Stored()); n != 80 {
		t.Errorf("%d stored", n)
	}
}

func TestClosed(t *testing.T) {
	s, x := connected(t, Options{})
	p := profileOf(t, "cpu", cpuData(1))
	one(t, s, x, p)
	y, err := New(Options{Address: s.Addr})
	if err != nil {
		t.Fatal(err)
	}
	if err := y.Close(); err != nil {
		t.Error(err)
	}
	var e *export.DeliveryError
	if err := y.Export(t.Context(), p); !errors.As(err, &e) || e.Retry != export.Later {
		t.Errorf("%v", err)
	}
}
