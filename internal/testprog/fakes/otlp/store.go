package otlp

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// Profile is one that was taken: one sample type of one window of one process.
type Profile struct {
	ID                     [16]byte
	Service                string
	Resource               map[string]any
	Type, Unit             string // of its samples
	PeriodType, PeriodUnit string
	Period                 int64
	Time                   time.Time
	Duration               time.Duration
	Samples                int
	Sum                    int64
	Times                  int    // it was taken so many times
	Named                  string // the attribute pprofd.kind
}

// Kind is the kind of profiles that has such samples: cpu, heap, allocs; what is named; else the type of the samples.
func (p *Profile) Kind() string {
	switch {
	case p.Named != "":
		return p.Named
	case p.Type == "samples", p.Type == "cpu":
		return "cpu"
	case strings.HasPrefix(p.Type, "inuse_"):
		return "heap"
	case strings.HasPrefix(p.Type, "alloc_"):
		return "allocs"
	}
	return p.Type
}

// key tells profiles apart as a receiver does that knows labels, type and time.
type key struct {
	resource, kind string
	at             pcommon.Timestamp
}

// takeProfiles keeps what a request has, or says why not.
func (s *Server) takeProfiles(all pprofile.Profiles, f Fault) error {
	if err := check(all); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Rejected > 0 {
		return nil
	}
	d := all.Dictionary()
	for _, rp := range all.ResourceProfiles().All() {
		for _, sp := range rp.ScopeProfiles().All() {
			for _, p := range sp.Profiles().All() {
				if err := s.take(read(d, rp.Resource().Attributes().AsRaw(), p), p.ProfileID()); err != nil {
					return err
				}
			}
		}
	}
	kept := pprofile.NewProfiles()
	all.CopyTo(kept)
	s.taken = append(s.taken, kept)
	return nil
}

// take keeps p, once. mu is held.
func (s *Server) take(p *Profile, id pprofile.ProfileID) error {
	k := key{describe(p.Resource), p.Type + "/" + p.Unit, pcommon.NewTimestampFromTime(p.Time)}
	if was, ok := s.ids[id]; ok && was != k {
		return fmt.Errorf("two profiles have the id %x: %+v and %+v", id, was, k)
	}
	s.ids[id] = k
	old := s.profiles[k]
	switch {
	case old == nil:
		p.Times = 1
		s.profiles[k] = p
	case old.Sum != p.Sum || old.Samples != p.Samples || old.ID != p.ID:
		return fmt.Errorf("two profiles of the same process, type and time: %+v and %+v", old, p)
	default:
		old.Times++
	}
	return nil
}

func describe(m map[string]any) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%q=%q,", k, fmt.Sprint(m[k]))
	}
	return b.String()
}

func read(d pprofile.ProfilesDictionary, resource map[string]any, p pprofile.Profile) *Profile {
	text := func(n int32) string { return d.StringTable().At(int(n)) }
	r := &Profile{
		ID: p.ProfileID(), Resource: resource, Service: fmt.Sprint(resource["service.name"]),
		Type: text(p.SampleType().TypeStrindex()), Unit: text(p.SampleType().UnitStrindex()),
		PeriodType: text(p.PeriodType().TypeStrindex()), PeriodUnit: text(p.PeriodType().UnitStrindex()), Period: p.Period(),
		Time: p.Time().AsTime(), Duration: time.Duration(p.DurationNano()), Samples: p.Samples().Len(),
	}
	for _, i := range p.AttributeIndices().All() {
		if a := d.AttributeTable().At(int(i)); text(a.KeyStrindex()) == "pprofd.kind" {
			r.Named = a.Value().Str()
		}
	}
	for _, s := range p.Samples().All() {
		for _, v := range s.Values().All() {
			r.Sum += v
		}
		if s.Values().Len() == 0 {
			r.Sum += int64(s.TimestampsUnixNano().Len())
		}
	}
	return r
}

// Profiles are all that were taken, without duplicates, by time.
func (s *Server) Profiles() []Profile {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Profile
	for _, p := range s.profiles {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b Profile) int {
		if c := a.Time.Compare(b.Time); c != 0 {
			return c
		}
		return strings.Compare(describe(a.Resource)+a.Type, describe(b.Resource)+b.Type)
	})
	return list
}

// Taken are the requests that were taken, in their order and with duplicates.
func (s *Server) Taken() []pprofile.Profiles {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken)
}

// Sum is that of all samples of a service and type, without duplicates.
func (s *Server) Sum(service, sampleType string) (sum int64) {
	for _, p := range s.Profiles() {
		if p.Service == service && p.Type == sampleType {
			sum += p.Sum
		}
	}
	return sum
}

// Point is the newest value of a metric with its attributes.
type Point struct {
	Resource   map[string]any
	Name       string
	Attributes map[string]any
	Kind       string // Gauge, Sum, Histogram, …
	Value      float64
	Count      uint64 // of a histogram or summary
	Start, At  time.Time
}

func (s *Server) takeMetrics(all pmetric.Metrics, f Fault) error {
	list, err := points(all)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Rejected > 0 {
		return nil
	}
	s.metrics++
	for _, p := range list {
		s.points[p.Name+" "+describe(p.Attributes)] = p
	}
	return nil
}

// points are what a request has, if there is nothing wrong with it.
func points(all pmetric.Metrics) (list []Point, err error) {
	for _, rm := range all.ResourceMetrics().All() {
		resource := rm.Resource().Attributes().AsRaw()
		if resource["service.name"] == nil || resource["service.name"] == "" {
			return nil, fmt.Errorf("the resource has no service.name")
		}
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				some := pointsOf(m)
				if m.Name() == "" || len(some) == 0 {
					return nil, fmt.Errorf("metric %q has no name or no points", m.Name())
				}
				for _, p := range some {
					p.Resource, p.Name, p.Kind = resource, m.Name(), m.Type().String()
					if age := time.Since(p.At); age < -time.Minute || age > time.Hour {
						return nil, fmt.Errorf("metric %q is of %v", m.Name(), p.At)
					}
					list = append(list, p)
				}
			}
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("there are no metrics")
	}
	return list, nil
}

func pointsOf(m pmetric.Metric) (list []Point) {
	number := func(all pmetric.NumberDataPointSlice) {
		for _, p := range all.All() {
			v := p.DoubleValue()
			if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
				v = float64(p.IntValue())
			}
			list = append(list, Point{Attributes: p.Attributes().AsRaw(), Value: v, Start: p.StartTimestamp().AsTime(), At: p.Timestamp().AsTime()})
		}
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		number(m.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		number(m.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		for _, p := range m.Histogram().DataPoints().All() {
			list = append(list, Point{Attributes: p.Attributes().AsRaw(), Value: p.Sum(), Count: p.Count(), Start: p.StartTimestamp().AsTime(), At: p.Timestamp().AsTime()})
		}
	case pmetric.MetricTypeSummary:
		for _, p := range m.Summary().DataPoints().All() {
			list = append(list, Point{Attributes: p.Attributes().AsRaw(), Value: p.Sum(), Count: p.Count(), Start: p.StartTimestamp().AsTime(), At: p.Timestamp().AsTime()})
		}
	}
	return list
}

// Metric finds the newest value of a metric that has these attributes (name, value, …) among its own.
func (s *Server) Metric(name string, attributes ...string) (Point, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.points {
		match := p.Name == name
		for i := 0; i+1 < len(attributes); i += 2 {
			match = match && p.Attributes[attributes[i]] == attributes[i+1]
		}
		if match {
			return p, true
		}
	}
	return Point{}, false
}

// MetricSets is how many sets of metrics were taken.
func (s *Server) MetricSets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.metrics
}
