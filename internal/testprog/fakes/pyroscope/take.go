package pyroscope

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	profilev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	"google.golang.org/protobuf/proto"
)

// Label of a series.
type Label struct{ Name, Value string }

// refusal is an error with the code that it is answered with.
type refusal struct {
	code connect.Code
	text string
}

func (r *refusal) Error() string { return r.text }

func invalid(format string, args ...any) error {
	return &refusal{connect.CodeInvalidArgument, fmt.Sprintf(format, args...)}
}

// incoming is one profile that came.
type incoming struct {
	api, tenant string
	labels      []Label
	raw         []byte
	config      map[string]struct {
		DisplayName string `json:"display-name"`
	}
	from int64 // of /ingest, unix nanoseconds
	p    *profilev1.Profile
	size int // not compressed
}

// take checks one profile as the real server does, in its order, and keeps it.
func (s *Server) take(in *incoming) error {
	if err := in.parse(s.o.Limits.Raw); err != nil {
		return err
	}
	if in.api == "ingest" {
		in.labels = append(in.labels, Label{"__name__", in.metric()})
		if time.Unix(0, in.p.TimeNanos).UTC().Year() == 1970 {
			in.p.TimeNanos = in.from
		}
	}
	if in.label("service_name") == nil {
		in.labels = append(in.labels, Label{"service_name", "unknown_service"})
	}
	size := in.size
	for _, l := range in.labels {
		size += len(l.Name) + len(l.Value)
	}
	if !s.limit.AllowN(s.o.Now(), size) {
		return &refusal{connect.CodeResourceExhausted, fmt.Sprintf("push rate limit exceeded while adding %d bytes", size)}
	}
	if err := s.validate(in); err != nil {
		return err
	}
	s.judge(in)
	if err := in.normalize(s.o.Limits.Depth); err != nil {
		return err
	}
	if len(in.p.Sample) == 0 { // it is well, and nothing is kept
		return nil
	}
	return s.keep(in)
}

// parse takes gzip or what is inside; garbage is the server's fault, says the server.
func (in *incoming) parse(limit int) error {
	b := in.raw
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return fmt.Errorf("gzip reset: %w", err)
		}
		if b, err = io.ReadAll(io.LimitReader(z, int64(limit)+1)); err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		if len(b) > limit {
			return invalid("uncompressed profile payload size exceeds limit of %d", limit)
		}
	}
	if len(b) == 0 {
		return errors.New("gzip reset: EOF")
	}
	in.p = &profilev1.Profile{}
	if err := proto.Unmarshal(b, in.p); err != nil {
		if strings.Contains(err.Error(), "UTF-8") {
			return invalid("malformed_profile: %v", err)
		}
		return err
	}
	in.size = proto.Size(in.p)
	return nil
}

func (in *incoming) label(name string) *Label {
	if i := slices.IndexFunc(in.labels, func(l Label) bool { return l.Name == name }); i >= 0 {
		return &in.labels[i]
	}
	return nil
}

// text is "" for what is not in the table: that has been checked, or will be.
func (in *incoming) text(i int64) string {
	if i < 0 || i >= int64(len(in.p.StringTable)) {
		return ""
	}
	return in.p.StringTable[i]
}

// metric is the __name__ of what came by /ingest: by sample types, and their display names.
func (in *incoming) metric() string {
	shown := map[string]string{"samples": "cpu", "goroutine": "goroutines", "contentions": "mutex_count", "delay": "mutex_duration"}
	if in.config != nil {
		shown = map[string]string{}
		for name, c := range in.config {
			shown[name] = c.DisplayName
		}
	}
	last := ""
	for _, t := range in.p.SampleType {
		if in.text(t.Type) == "wall" {
			return "wall"
		}
	}
	for _, t := range in.p.SampleType {
		last = in.text(t.Type)
		if d := shown[last]; d != "" {
			last = d
		}
		switch {
		case strings.Contains(last, "cpu"):
			return "process_cpu"
		case strings.Contains(last, "alloc_"), strings.Contains(last, "inuse_"), last == "space", last == "objects":
			return "memory"
		case strings.Contains(last, "mutex_"):
			return "mutex"
		case strings.Contains(last, "block_"):
			return "block"
		case strings.Contains(last, "goroutines"):
			return "goroutines"
		}
	}
	return last
}

// validate refuses what the real server refuses, before it looks at labels.
func (s *Server) validate(in *incoming) error {
	p, l := in.p, &s.o.Limits
	if len(p.SampleType) == 0 {
		return invalid("empty profile")
	}
	now := s.o.Now()
	switch at := time.Unix(0, p.TimeNanos); {
	case p.TimeNanos == 0:
		s.complain("time_nanos is 0: the server takes the time that it came at")
		p.TimeNanos = now.UnixNano()
	case p.TimeNanos < 0:
		s.complain("time_nanos is negative: nobody sees the profile")
	case !at.After(now.Add(-l.Older)), !at.Before(now.Add(l.Newer)):
		return invalid("profile with labels %v is outside of ingestion window (profile timestamp: %v)", in.labels, at)
	}
	switch {
	case in.size > l.Raw:
		return invalid("the profile with labels %v exceeds the size limit (max_profile_size_byte, actual: %d, limit: %d)", in.labels, in.size, l.Raw)
	case len(p.Sample) > l.Samples:
		return invalid("the profile with labels %v exceeds the samples count limit (max_profile_stacktrace_samples, actual: %d, limit: %d)", in.labels, len(p.Sample), l.Samples)
	}
	for _, sample := range p.Sample {
		if len(sample.Label) > l.SampleLabels {
			return invalid("%d labels of a sample (max_profile_stacktrace_sample_labels)", len(sample.Label))
		}
	}
	return in.wellFormed()
}

// wellFormed checks what the profile's parts refer to.
func (in *incoming) wellFormed() error {
	p := in.p
	if len(p.StringTable) == 0 || p.StringTable[0] != "" {
		return invalid("malformed_profile: string 0 should be empty string")
	}
	refs := map[string][]int64{}
	for _, t := range p.SampleType {
		refs["sample type"] = append(refs["sample type"], t.Type, t.Unit)
		if strings.Contains(in.text(t.Type), "-") {
			return invalid("malformed_profile: sample type contains -")
		}
	}
	if t := p.PeriodType; t != nil {
		refs["period type"] = []int64{t.Type, t.Unit}
	}
	for _, s := range p.Sample {
		if len(s.Value) != len(p.SampleType) {
			return invalid("malformed_profile: %d values of %d sample types", len(s.Value), len(p.SampleType))
		}
		for _, l := range s.Label {
			refs["label"] = append(refs["label"], l.Key, l.Str)
		}
	}
	for _, f := range p.Function {
		if f.Id == 0 {
			return invalid("malformed_profile: function id 0")
		}
		refs["function"] = append(refs["function"], f.Name, f.SystemName, f.Filename)
	}
	for _, m := range p.Mapping {
		refs["mapping"] = append(refs["mapping"], m.Filename, m.BuildId)
	}
	for _, l := range p.Location {
		if l.Id == 0 {
			return invalid("malformed_profile: location id 0")
		}
	}
	return in.inTable(refs)
}

func (in *incoming) inTable(refs map[string][]int64) error {
	for what, list := range refs {
		for _, i := range list {
			if i < 0 || i >= int64(len(in.p.StringTable)) {
				return invalid("malformed_profile: %s string index out of range", what)
			}
		}
	}
	for i, s := range in.p.StringTable {
		if !utf8.ValidString(s) {
			return invalid("malformed_profile: invalid UTF-8 string %d", i)
		}
	}
	return nil
}

// judge complains of what the real server takes, and should not have been sent.
func (s *Server) judge(in *incoming) {
	name, p := in.label("__name__"), in.p
	if name != nil && strings.Contains(name.Value, ":") {
		s.complain(fmt.Sprintf("__name__ %q has a colon: it cannot be asked for", name.Value))
	}
	if d := in.label("__delta__"); d == nil || d.Value != "false" {
		s.complain("__delta__ is not false: servers of version 1 take differences of allocations, and lose the first")
	}
	var types []string
	for _, t := range p.SampleType {
		types = append(types, in.text(t.Type))
	}
	if slices.Contains(types, "alloc_space") && slices.Contains(types, "inuse_space") {
		s.complain("allocations and what is in use in one profile: one is of a window, the other of a moment")
	}
	if p.PeriodType == nil || in.text(p.PeriodType.Type) == "" {
		s.complain("there is no period type: the server panics as soon as a sample is all zero")
	}
	for _, x := range p.Sample {
		if len(x.LocationId) == 0 {
			s.complain("an empty stack: it is in no flame graph")
			return
		}
		if len(x.LocationId) > s.o.Limits.Depth {
			s.complain(fmt.Sprintf("a stack of %d frames is cut at its leaf", len(x.LocationId)))
			return
		}
	}
}

// normalize drops what the real server drops without a word.
func (in *incoming) normalize(depth int) error {
	p := in.p
	known := make(map[uint64]bool, len(p.Location))
	for _, l := range p.Location {
		known[l.Id] = true
	}
	before := len(p.Sample)
	p.Sample = slices.DeleteFunc(p.Sample, func(x *profilev1.Sample) bool {
		some := false
		for _, v := range x.Value {
			if v < 0 {
				return true
			}
			some = some || v > 0
		}
		if over := len(x.LocationId) - depth; over > 0 {
			x.LocationId = x.LocationId[over:]
		}
		return !some || slices.ContainsFunc(x.LocationId, func(id uint64) bool { return !known[id] })
	})
	if len(p.Sample) < before && p.PeriodType == nil {
		return errors.New("panic: runtime error: invalid memory address or nil pointer dereference")
	}
	return nil
}
