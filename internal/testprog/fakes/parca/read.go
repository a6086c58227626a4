package parca

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/google/pprof/profile"
	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pprofd/pprofd/export/parca/profilestorepb"
)

// Stored is a profile that was taken.
type Stored struct {
	Name      string            // __name__
	Labels    map[string]string // others
	Types     []string          // as queries name them: process_cpu:samples:count:cpu:nanoseconds:delta
	Sums      []int64           // of the values of each type
	TimeNanos int64
	Duration  int64 // nanoseconds; 0: of an instant
	Profile   *profile.Profile
	Metadata  metadata.MD // of the request
}

// Sum is that of the values of a type of samples; 0 if there is none of that name.
func (s *Stored) Sum(sampleType string) int64 {
	for i, t := range s.Profile.SampleType {
		if t.Type == sampleType {
			return s.Sums[i]
		}
	}
	return 0
}

// selector is what may stand before {} in a query.
var selector = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

// read checks a request as the real server does.
func (s *Server) read(r *profilestorepb.WriteRawRequest) ([]Stored, error) {
	var all []Stored
	for _, series := range r.Series {
		if series.Labels == nil {
			s.harm("no labels message: it dies of a nil dereference")
			return nil, status.Error(codes.Unavailable, "error reading from server: EOF")
		}
		name, labels, err := readLabels(series.Labels)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		for _, sample := range series.Samples {
			st, err := s.readSample(sample, name)
			if err != nil {
				return nil, err
			}
			if st != nil {
				st.Labels = labels
				all = append(all, *st)
			}
		}
	}
	if !r.Normalized {
		s.harm("addresses are not normalized, and there is nothing to normalize them by")
	}
	return all, nil
}

func readLabels(set *profilestorepb.LabelSet) (name string, labels map[string]string, err error) {
	labels = make(map[string]string)
	seen := make(map[string]bool)
	for _, l := range set.Labels {
		switch {
		case l.GetName() == "":
			return "", nil, errors.New("label name is empty")
		case seen[l.Name]:
			return "", nil, fmt.Errorf("duplicate label %q", l.Name)
		}
		seen[l.Name] = true
		if l.Name == "__name__" {
			name = l.Value
		} else if l.Value != "" {
			labels[l.Name] = l.Value
		}
	}
	if name == "" {
		return "", nil, errors.New("missing __name__ label")
	}
	return name, labels, nil
}

// readSample returns nil where there is nothing to store.
func (s *Server) readSample(sample *profilestorepb.RawSample, name string) (*Stored, error) {
	raw, err := unzip(sample.RawProfile)
	if err != nil {
		return nil, status.Errorf(codes.Unknown, "unzip: %v", err)
	}
	var p googlev1.Profile
	if err := proto.Unmarshal(raw, &p); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "failed to parse profile: %v", err)
	}
	if err := validate(&p); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "invalid profile: %v", err)
	}
	if n := len(sample.ExecutableInfo); n != 0 && n != len(p.Mapping) {
		return nil, status.Errorf(codes.InvalidArgument, "invalid profile: %d mappings, but %d executable infos", len(p.Mapping), n)
	}
	if !s.harmless(&p) {
		return nil, status.Error(codes.Unavailable, "error reading from server: EOF")
	}
	if len(p.Sample) == 0 {
		return nil, nil
	}
	types := typesOf(&p, name)
	for i, id := range types {
		if !selector.MatchString(id) {
			return nil, status.Errorf(codes.Unknown, "invalid profile type at row %d (%s)", i, id)
		}
	}
	parsed, err := profile.ParseData(sample.RawProfile)
	if err != nil {
		s.harm("what it answers to queries cannot be parsed: %v", err)
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return &Stored{Name: name, Types: types, Sums: sums(&p), TimeNanos: p.TimeNanos, Duration: p.DurationNanos, Profile: parsed}, nil
}

func unzip(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func typesOf(p *googlev1.Profile, name string) (ids []string) {
	text := func(i int64) string { return p.StringTable[i] }
	for _, t := range p.SampleType {
		id := fmt.Sprintf("%s:%s:%s:%s:%s", name, text(t.Type), text(t.Unit), text(p.PeriodType.GetType()), text(p.PeriodType.GetUnit()))
		if p.DurationNanos != 0 {
			id += ":delta"
		}
		ids = append(ids, id)
	}
	return ids
}

func sums(p *googlev1.Profile) []int64 {
	list := make([]int64, len(p.SampleType))
	for _, s := range p.Sample {
		for i, v := range s.Value {
			list[i] += v
		}
	}
	return list
}
