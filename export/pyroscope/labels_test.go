package pyroscope

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

func cpuProfile(t *testing.T, fill func(*maker)) *export.Profile {
	t.Helper()
	m := newMaker("cpu", time.Now())
	fill(m)
	return m.profile("cpu")
}

func one(m *maker) { m.add("f;main", 1) }

// sent is what the server has of p.
func sent(t *testing.T, o Options, p *export.Profile) (*fake.Server, Stats) {
	t.Helper()
	s := fake.Start(t, fake.Options{Limits: fake.Limits{Rate: -1}})
	o.URL = s.URL()
	e := newExporter(t, o)
	check := unchanged(t, p)
	send(t, e, p)
	check()
	contented(t, s)
	return s, e.Stats()
}

func TestLabelsOfTheProcess(t *testing.T) {
	for _, api := range []string{APIPush, APIIngest} {
		t.Run(api, func(t *testing.T) {
			p := cpuProfile(t, one)
			p.Service = "täglich, {neu}"
			p.Labels = []export.Label{
				{Name: "__type__", Value: "mine"}, {Name: "a.b", Value: "1"}, {Name: "a_b", Value: "2"}, {Name: "empty", Value: ""},
				{Name: "größe", Value: "x\xff,y}"}, {Name: "long", Value: strings.Repeat("é", 2000)}, {Name: "pyroscope_spy", Value: "other"},
				{Name: "service_name", Value: "not this"}, {Name: "9lives", Value: "9"},
			}
			s, stats := sent(t, Options{API: api}, p)
			x := only(t, s, "cpu").Labels
			value := "x\uFFFD,y}"
			service := p.Service
			if api == APIIngest {
				value, service = "x\uFFFD_y_", "täglich_ {neu_" // there is no way to quote
			}
			for name, want := range map[string]string{
				"__name__": "process_cpu", "service_name": service, "pid": "4242", "pyroscope_spy": "pprofd", "a_b": "1", "gr____e": value, "_9lives": "9",
			} {
				if x[name] != want {
					t.Errorf("%s is %q, not %q", name, x[name], want)
				}
			}
			if v := x["long"]; len(v) != maxValue || !utf8.ValidString(v) {
				t.Errorf("%d bytes, not %d", len(v), maxValue)
			}
			if got, want := keys(x), "_9lives __name__ a_b gr____e long pid pyroscope_spy service_name"; got != want {
				t.Errorf("labels %s, not %s", got, want)
			}
			if stats.Labels != 3 { // __type__, the second a_b, pyroscope_spy
				t.Errorf("%d labels are said to be left out, not 3", stats.Labels)
			}
		})
	}
}

// TestIdentity: of two profiles with equal labels and time the server loses one.
func TestIdentity(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	e := newExporter(t, Options{URL: s.URL()})
	at := time.Now()
	for pid := 1; pid <= 3; pid++ {
		m := newMaker("cpu", at)
		one(m)
		p := m.profile("cpu")
		p.PID, p.Service, p.Labels = pid, "", nil
		send(t, e, p)
		send(t, e, p) // again, as if the answer were lost
	}
	if got := s.Sum("samples", false); got != 6 {
		t.Errorf("%d samples were taken, not 6", got)
	}
	if got := s.Sum("samples", true); got != 3 {
		t.Errorf("%d samples are left, not one of each process", got)
	}
	if x := s.Series(true)[0].Labels; x["service_name"] != "prog" || x["pid"] != "1" {
		t.Errorf("labels %v", x)
	}
}

func TestServiceName(t *testing.T) {
	for _, c := range []struct {
		p    export.Profile
		want string
	}{
		{export.Profile{Service: "s", Comm: "c"}, "s"},
		{export.Profile{Service: " ", Labels: []export.Label{{Name: "service_name", Value: "l"}}, Comm: "c"}, "l"},
		{export.Profile{Comm: "c"}, "c"},
		{export.Profile{}, "unknown_service"},
	} {
		if got := service(&c.p); got != c.want {
			t.Errorf("%+v is called %q, not %q", c.p, got, c.want)
		}
	}
}

// TestManyLabels: 30 are the most; those that tell processes apart stay, and the labels of samples have what room is left.
func TestManyLabels(t *testing.T) {
	for _, n := range []int{5, 24, 25, 26, 80} {
		for _, api := range []string{APIPush, APIIngest} {
			t.Run(fmt.Sprint(n, api), func(t *testing.T) {
				p := cpuProfile(t, func(m *maker) { m.add("f;main", 1, "endpoint", "/a", "method", "GET") })
				p.Labels = nil
				for i := range n {
					p.Labels = append(p.Labels, export.Label{Name: fmt.Sprintf("a%02d", i), Value: "v"})
				}
				p.Labels = append(p.Labels, export.Label{Name: "host", Value: "h"}, export.Label{Name: "pid", Value: "7"})
				s, stats := sent(t, Options{API: api}, p)
				x := only(t, s, "cpu").Labels
				if x["host"] != "h" || x["pid"] != "7" {
					t.Errorf("labels %v", x)
				}
				own := n + 2 + 4 // with name, delta, service and spy
				if got, want := len(x)+1, min(own+2, 30); got != want {
					t.Errorf("%d labels with __delta__, not %d", got, want)
				}
				if got, want := stats.Labels, uint64(max(own-30, 0)); got != want {
					t.Errorf("%d labels are said to be left out, not %d", got, want)
				}
				if got, want := stats.SampleLabels, uint64(max(0, 2-max(30-own, 0))); got != want {
					t.Errorf("%d labels of samples are said to be left out, not %d", got, want)
				}
			})
		}
	}
}

func TestSampleLabels(t *testing.T) {
	fill := func(m *maker) {
		for i := range 100 {
			m.add("f;main", 1, "endpoint", fmt.Sprint("/", i%4), "request", fmt.Sprint("r", i), "http.method", "GET", "__type__", "x", "pid", "9")
			m.p.Sample[i].NumLabel = map[string][]int64{"goid": {int64(i)}}
		}
	}
	for name, c := range map[string]struct {
		choice []string
		want   string // names of labels of samples
		series int
	}{
		"by itself":          {nil, "endpoint http_method", 4},
		"none":               {[]string{}, "", 1},
		"chosen":             {[]string{"endpoint", "absent"}, "endpoint", 4},
		"chosen, but a lot":  {[]string{"request"}, "request", maxSeries},
		"the server's names": {[]string{"__type__", "pid"}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, stats := sent(t, Options{SampleLabels: c.choice}, cpuProfile(t, fill))
			names := map[string]bool{}
			count := 0
			for _, x := range s.Series(false) {
				if x.Type != samplesType {
					continue
				}
				count++
				for n := range x.Labels {
					if !strings.HasPrefix(n, "__") && !slices.Contains(strings.Fields("host pid service_name pyroscope_spy"), n) {
						names[n] = true
					}
				}
				if x.Numbers {
					t.Error("numbers were sent")
				}
				if x.Labels["pid"] != "4242" {
					t.Errorf("pid %s is that of the sample", x.Labels["pid"])
				}
			}
			if keys(names) != c.want || count != c.series {
				t.Errorf("labels %q in %d series, not %q in %d", keys(names), count, c.want, c.series)
			}
			if got := s.Sum("samples", true); got != 100 {
				t.Errorf("%d samples, not 100", got)
			}
			if stats.SampleLabels == 0 {
				t.Error("nothing is said to be left out")
			}
		})
	}
}

// TestExcessSeries: the largest series stay.
func TestExcessSeries(t *testing.T) {
	s, _ := sent(t, Options{}, cpuProfile(t, func(m *maker) {
		for i := range 30 {
			for j := range 30 {
				m.add("f;main", int64(1+i*j), "a", fmt.Sprint(i), "b", fmt.Sprint(j))
			}
		}
	}))
	series := 0
	for _, x := range s.Series(true) {
		if x.Type != samplesType {
			continue
		}
		series++
		if x.Labels["a"] != "" && x.Total < 25*25 {
			t.Errorf("a series of %d samples has labels", x.Total)
		}
	}
	if want := int64(30*30 + 435*435); s.Sum("samples", true) != want || series != maxSeries {
		t.Errorf("%d samples in %d series, not %d in %d", s.Sum("samples", true), series, want, maxSeries)
	}
}

func TestSpans(t *testing.T) {
	s, _ := sent(t, Options{SampleLabels: []string{}}, cpuProfile(t, func(m *maker) {
		m.add("f;main", 1, "span_id", "00000000000000a1", "trace_id", "000000000000000000000000000000b1", "endpoint", "/a")
		m.add("f;main", 2, "profile_id", "00000000000000a2")
		m.add("f;main", 4, "span_id", "no span", "trace_id", "no trace")
	}))
	x := only(t, s, "samples")
	if x.Total != 7 || x.Spans["00000000000000a1"] != 1 || x.Spans["00000000000000a2"] != 2 || x.Traces["000000000000000000000000000000b1"] != 1 || len(x.Spans) != 2 {
		t.Errorf("%+v", x)
	}
}
