package pyroscope

import (
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	profilev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
)

// Series is what was made of one profile: of each of its sample types and sets of labels one.
type Series struct {
	API     string // push or ingest
	Tenant  string
	Labels  map[string]string // with those of samples, without __delta__
	Type    string            // NAME:TYPE:UNIT:PERIOD TYPE:PERIOD UNIT
	Time    int64             // time_nanos
	Total   int64
	Stacks  map[string]int64 // value by stack: functions from the leaf to the root, with ";" between them
	Spans   map[string]int64 // value by span_id, where samples have one
	Traces  map[string]int64 // value by trace_id
	Numbers bool             // samples had labels that are numbers, which are gone
	Size    int              // of the profile that it was in, not compressed
	At      time.Time        // it came
}

// ID is the series and the time: of two with the same ID one is lost, when the real server gets to it.
func (s *Series) ID() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %d", s.Tenant, s.Type, s.Time)
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		fmt.Fprintf(&b, " %q=%q", name, s.Labels[name])
	}
	return b.String()
}

// Series are all that were taken, in their order. once leaves out all but the first of equal ID, as the real server does.
func (s *Server) Series(once bool) []Series {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !once {
		return slices.Clone(s.series)
	}
	seen := map[string]bool{}
	var out []Series
	for _, x := range s.series {
		if id := x.ID(); !seen[id] {
			seen[id] = true
			out = append(out, x)
		}
	}
	return out
}

// Sum adds up all series of a sample type ("cpu", "alloc_space").
func (s *Server) Sum(sampleType string, once bool) (total int64) {
	for _, x := range s.Series(once) {
		if strings.Split(x.Type, ":")[1] == sampleType {
			total += x.Total
		}
	}
	return total
}

// Forget forgets all that was taken, asked and complained of.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.series, s.requests, s.complaints = nil, nil, nil
}

// queryable are names of labels that a reader finds without asking for more.
var queryable = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

var serverOwned = regexp.MustCompile(`^__(profile_type|type|unit|period_type|period_unit|service_name|order|sampled)__$`)

// keep makes series of in. If one has labels that are not allowed, none is kept.
func (s *Server) keep(in *incoming) error {
	groups, known := map[string]*group{}, map[string]*group{}
	var order []string
	for _, x := range in.p.Sample {
		raw := fmt.Sprint(x.Label)
		if len(x.Label) == 0 {
			raw = ""
		}
		g := known[raw]
		if g == nil {
			labels := in.merged(x)
			key := fmt.Sprint(labels)
			if g = groups[key]; g == nil {
				g = &group{labels: labels}
				groups[key] = g
				order = append(order, key)
			}
			known[raw] = g
		}
		g.samples = append(g.samples, x)
	}
	for _, key := range order {
		if err := s.checkLabels(groups[key].labels); err != nil {
			return err
		}
	}
	var made []Series
	for _, key := range order {
		for i := range in.p.SampleType {
			if x := in.series(groups[key], i); x.Total != 0 {
				x.At = s.o.Now()
				made = append(made, x)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.series = append(s.series, made...)
	return nil
}

// group are the samples of one series.
type group struct {
	labels  []Label
	samples []*profilev1.Sample
}

// merged are the labels of the series that x belongs to: those of the profile win.
func (in *incoming) merged(x *profilev1.Sample) []Label {
	labels := slices.Clone(in.labels)
	for _, l := range x.Label {
		name, text := in.text(l.Key), in.text(l.Str)
		has := slices.ContainsFunc(labels, func(l Label) bool { return l.Name == name && l.Value != "" })
		if text == "" || has || name == "span_id" || name == "trace_id" || name == "profile_id" {
			continue
		}
		labels = append(labels, Label{name, text})
	}
	slices.SortFunc(labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	return labels
}

func (s *Server) checkLabels(labels []Label) error {
	l := &s.o.Limits
	if len(labels) > l.Labels {
		return invalid("profile series '%v' has %d label names; limit %d", labels, len(labels), l.Labels)
	}
	name, service, last := false, false, ""
	for _, x := range labels {
		switch {
		case x.Name == "":
			return invalid("invalid label name ''")
		case x.Name == last:
			return invalid("profile with labels '%v' has duplicate label name: '%s'", labels, x.Name)
		case len(x.Name) > l.Name:
			return invalid("profile with labels '%v' has label name too long: '%s'", labels, x.Name)
		case len(x.Value) > l.Value:
			return invalid("profile with labels '%v' has label value too long: '%s'", labels, x.Value)
		}
		name = name || x.Name == "__name__" && x.Value != ""
		service = service || x.Name == "service_name" && x.Value != ""
		last = x.Name
		if !queryable.MatchString(x.Name) {
			s.complain(fmt.Sprintf("label %q is hidden from most readers", x.Name))
		}
		if serverOwned.MatchString(x.Name) {
			s.complain(fmt.Sprintf("label %q belongs to the server", x.Name))
		}
	}
	switch {
	case !name:
		return invalid("invalid labels '%v' with error: invalid metric name", labels)
	case !service:
		return invalid("invalid labels '%v' with error: service name is not provided", labels)
	}
	return nil
}

// series is that of sample type i.
func (in *incoming) series(g *group, i int) Series {
	t, period := in.p.SampleType[i], in.p.PeriodType
	if period == nil {
		period = &profilev1.ValueType{}
	}
	x := Series{
		API: in.api, Tenant: in.tenant, Time: in.p.TimeNanos, Size: in.size, Labels: map[string]string{},
		Stacks: map[string]int64{}, Spans: map[string]int64{}, Traces: map[string]int64{},
	}
	for _, l := range g.labels {
		x.Labels[l.Name] = l.Value
	}
	delete(x.Labels, "__delta__")
	x.Type = strings.Join([]string{x.Labels["__name__"], in.text(t.Type), in.text(t.Unit), in.text(period.Type), in.text(period.Unit)}, ":")
	names := in.names()
	for _, s := range g.samples {
		v := s.Value[i]
		x.Total += v
		var stack []string
		for _, id := range s.LocationId {
			stack = append(stack, names[id]...)
		}
		x.Stacks[strings.Join(stack, ";")] += v
		for _, l := range s.Label {
			x.Numbers = x.Numbers || l.Str == 0
			x.span(in.text(l.Key), in.text(l.Str), v)
		}
	}
	return x
}

func (s *Series) span(name, id string, v int64) {
	_, err := hex.DecodeString(id)
	switch {
	case err != nil:
	case (name == "span_id" || name == "profile_id") && len(id) == 16:
		s.Spans[id] += v
	case name == "trace_id" && len(id) == 32:
		s.Traces[id] += v
	}
}

// names are the functions of each location, the inlined ones first.
func (in *incoming) names() map[uint64][]string {
	functions := map[uint64]string{}
	for _, f := range in.p.Function {
		functions[f.Id] = in.text(f.Name)
	}
	out := map[uint64][]string{}
	for _, l := range in.p.Location {
		for _, line := range l.Line {
			out[l.Id] = append(out[l.Id], functions[line.FunctionId])
		}
		if len(l.Line) == 0 {
			out[l.Id] = []string{fmt.Sprintf("%#x", l.Address)}
		}
	}
	return out
}
