package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	fakeotlp "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
	fakeparca "github.com/pprofd/pprofd/internal/testprog/fakes/parca"
	fakepyroscope "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

// TestAgentDeliversContention: what is in files of where processes waited, and of what their goroutines did and where their time went, arrives everywhere under the
// names that servers know, each event, nanosecond and goroutine of it once.
func TestAgentDeliversContention(t *testing.T) {
	bin := ownPrograms(t, "contend")
	p := testprog.Start(t, bin+"/contend", "-busy", "-life", "5m")
	pyroscope, ingest := fakepyroscope.Start(t, fakepyroscope.Options{}), fakepyroscope.Start(t, fakepyroscope.Options{})
	parca, otlp := fakeparca.Start(t, fakeparca.Options{}), fakeotlp.Start(t, fakeotlp.Options{})
	addr := freeAddress(t)
	a := startAgent(t, bin, nil, "--listen", addr, "--parca", parca.Addr, "--config", writeConfig(t, fmt.Sprintf(`cpu: {enabled: false}
block: {interval: 1s}
mutex: {interval: 1s}
goroutine: {enabled: true, interval: 1s}
wall: {enabled: true}
pyroscope: [{url: %q, name: push}, {url: %q, name: ingest, api: ingest}]
otlp: {endpoint: %q, experimental: true, name: otlp}
`, pyroscope.URL(), ingest.URL(), otlp.GRPC())))
	until(t, "three files of each kind", func() bool {
		return !slices.ContainsFunc([]string{"block", "mutex", "goroutine", "wall"}, func(kind string) bool { return len(a.files(t, kind, p.PID)) <= 2 })
	})
	for _, kind := range []string{"block", "mutex"} {
		name := fmt.Sprintf(`pprofd_contention_profiles{kind=%q,state="on"}`, kind)
		until(t, name, func() bool { return metric(t, addr, name) == 1 })
	}
	a.end(t)
	for kind, types := range map[string][]string{
		"block": {"contentions", "delay"}, "mutex": {"contentions", "delay"}, "goroutine": {"goroutine"}, "wall": {"samples", "wall"},
	} {
		for value, sampleType := range types {
			files := sent{}
			for _, f := range a.files(t, kind, p.PID) {
				p := readProfile(t, f)
				files[fmt.Sprint(p.TimeNanos)] = sumOf(p, value)
				if short := p.DurationNanos < 1e8 && kind != "goroutine" && kind != "wall"; short || sumOf(p, value) == 0 {
					t.Errorf("%s: %d of %s in %d ns", f, sumOf(p, value), sampleType, p.DurationNanos)
				}
			}
			for server, there := range map[string]sent{
				"push": waitsAtPyroscope(pyroscope, kind, sampleType), "ingest": waitsAtPyroscope(ingest, kind, sampleType),
				"parca": waitsAtParca(parca, kind, sampleType), "otlp": waitsAtOTLP(otlp, kind, sampleType),
			} {
				wantSame(t, server+", "+kind+" "+sampleType, files, there)
			}
		}
	}
	if list := append(pyroscope.Complaints(), ingest.Complaints()...); len(list) > 0 || len(otlp.Refused()) > 0 {
		t.Errorf("complaints: %q, %v", list, otlp.Refused())
	}
}

func waitsAtPyroscope(s *fakepyroscope.Server, kind, sampleType string) sent {
	all, name, period := sent{}, kind, ":contentions:count"
	switch kind {
	case "goroutine":
		name, period = "goroutines", ":goroutine:count"
	case "wall":
		period = ":wall:nanoseconds"
	}
	for _, x := range s.Series(true) {
		if strings.HasPrefix(x.Type, name+":"+sampleType+":") && strings.HasSuffix(x.Type, period) {
			all[fmt.Sprint(x.Time)] += x.Total
		}
	}
	return all
}

func waitsAtParca(s *fakeparca.Server, kind, sampleType string) sent {
	all := sent{}
	for _, x := range s.Stored() {
		if x.Name == kind {
			all[fmt.Sprint(x.TimeNanos)] = x.Sum(sampleType)
		}
	}
	return all
}

func waitsAtOTLP(s *fakeotlp.Server, kind, sampleType string) sent {
	all := sent{}
	for _, x := range s.Profiles() {
		if x.Kind() == kind && x.Type == sampleType {
			all[fmt.Sprint(x.Time.UnixNano())] = x.Sum
		}
	}
	return all
}
