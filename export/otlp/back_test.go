package otlp

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// back makes the pprof profile again that a request was made of. It is written from profiles.proto, and shares nothing with the
// conversion that it tests.
func back(t testing.TB, all pprofile.Profiles) *profile.Profile {
	t.Helper()
	if all.ResourceProfiles().Len() != 1 || all.ResourceProfiles().At(0).ScopeProfiles().Len() != 1 {
		t.Fatal("not one resource with one scope")
	}
	b := &backer{t: t, d: all.Dictionary(), p: &profile.Profile{}, functions: map[int32]*profile.Function{}, mappings: map[int32]*profile.Mapping{}, locations: map[int32]*profile.Location{}}
	list := all.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles()
	for i, p := range list.All() {
		b.p.SampleType = append(b.p.SampleType, &profile.ValueType{Type: b.text(p.SampleType().TypeStrindex()), Unit: b.text(p.SampleType().UnitStrindex())})
		for j, s := range p.Samples().All() {
			if i == 0 {
				b.p.Sample = append(b.p.Sample, b.sample(s))
			}
			b.p.Sample[j].Value = append(b.p.Sample[j].Value, s.Values().At(0))
		}
	}
	first := list.At(0)
	b.p.TimeNanos, b.p.DurationNanos, b.p.Period = int64(first.Time()), int64(first.DurationNano()), first.Period()
	b.p.PeriodType = &profile.ValueType{Type: b.text(first.PeriodType().TypeStrindex()), Unit: b.text(first.PeriodType().UnitStrindex())}
	for k, a := range b.attributes(first.AttributeIndices()) {
		switch k {
		case "pprof.profile.comment":
			for _, c := range a.Value().Slice().All() {
				b.p.Comments = append(b.p.Comments, c.Str())
			}
		case "pprofd.kind": // export.Profile has it
		case "pprof.profile.drop_frames":
			b.p.DropFrames = a.Value().Str()
		case "pprof.profile.keep_frames":
			b.p.KeepFrames = a.Value().Str()
		case "pprof.profile.doc_url":
			b.p.DocURL = a.Value().Str()
		default:
			t.Errorf("the profile has an attribute %q", k)
		}
	}
	if err := b.p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return b.p
}

type backer struct {
	t         testing.TB
	d         pprofile.ProfilesDictionary
	p         *profile.Profile
	functions map[int32]*profile.Function
	mappings  map[int32]*profile.Mapping
	locations map[int32]*profile.Location
}

func (b *backer) text(n int32) string { return b.d.StringTable().At(int(n)) }

func (b *backer) attributes(list pcommon.Int32Slice) map[string]pprofile.KeyValueAndUnit {
	m := map[string]pprofile.KeyValueAndUnit{}
	for _, n := range list.All() {
		a := b.d.AttributeTable().At(int(n))
		m[b.text(a.KeyStrindex())] = a
	}
	return m
}

func (b *backer) sample(s pprofile.Sample) *profile.Sample {
	r := &profile.Sample{}
	for _, n := range b.d.StackTable().At(int(s.StackIndex())).LocationIndices().All() {
		r.Location = append(r.Location, b.location(n))
	}
	for k, a := range b.attributes(s.AttributeIndices()) {
		b.label(r, k, a.Value(), b.text(a.UnitStrindex()))
	}
	if n := s.LinkIndex(); n != 0 {
		l := b.d.LinkTable().At(int(n))
		b.label(r, "trace_id", pcommon.NewValueStr(l.TraceID().String()), "")
		b.label(r, "span_id", pcommon.NewValueStr(l.SpanID().String()), "")
	}
	return r
}

func (b *backer) label(s *profile.Sample, k string, v pcommon.Value, unit string) {
	switch v.Type() {
	case pcommon.ValueTypeSlice:
		for _, e := range v.Slice().All() {
			b.label(s, k, e, unit)
		}
	case pcommon.ValueTypeInt:
		if s.NumLabel == nil {
			s.NumLabel, s.NumUnit = map[string][]int64{}, map[string][]string{}
		}
		s.NumLabel[k] = append(s.NumLabel[k], v.Int())
		if unit != "" {
			full := map[string]string{"By": "bytes", "ns": "nanoseconds"}
			if full[unit] != "" {
				unit = full[unit]
			}
			s.NumUnit[k] = append(s.NumUnit[k], unit)
		}
	case pcommon.ValueTypeStr:
		if s.Label == nil {
			s.Label = map[string][]string{}
		}
		s.Label[k] = append(s.Label[k], v.Str())
	default:
		b.t.Errorf("a label is of type %v", v.Type())
	}
}

func (b *backer) location(n int32) *profile.Location {
	if l := b.locations[n]; l != nil {
		return l
	}
	from := b.d.LocationTable().At(int(n))
	l := &profile.Location{ID: uint64(len(b.p.Location) + 1), Address: from.Address(), Mapping: b.mapping(from.MappingIndex())}
	for _, line := range from.Lines().All() {
		l.Line = append(l.Line, profile.Line{Function: b.function(line.FunctionIndex()), Line: line.Line(), Column: line.Column()})
	}
	_, l.IsFolded = b.attributes(from.AttributeIndices())["pprof.location.is_folded"]
	b.locations[n] = l
	b.p.Location = append(b.p.Location, l)
	return l
}

func (b *backer) mapping(n int32) *profile.Mapping {
	if n == 0 || b.mappings[n] != nil {
		return b.mappings[n]
	}
	from := b.d.MappingTable().At(int(n))
	m := &profile.Mapping{
		ID: uint64(len(b.p.Mapping) + 1), Start: from.MemoryStart(), Limit: from.MemoryLimit(), Offset: from.FileOffset(), File: b.text(from.FilenameStrindex()),
	}
	for k, a := range b.attributes(from.AttributeIndices()) {
		switch k {
		case "process.executable.build_id.gnu", "process.executable.build_id.go":
			m.BuildID = a.Value().Str()
		case "pprof.mapping.has_functions":
			m.HasFunctions = a.Value().Bool()
		case "pprof.mapping.has_filenames":
			m.HasFilenames = a.Value().Bool()
		case "pprof.mapping.has_line_numbers":
			m.HasLineNumbers = a.Value().Bool()
		case "pprof.mapping.has_inline_frames":
			m.HasInlineFrames = a.Value().Bool()
		default:
			b.t.Errorf("a mapping has an attribute %q", k)
		}
	}
	b.mappings[n] = m
	b.p.Mapping = append(b.p.Mapping, m)
	return m
}

func (b *backer) function(n int32) *profile.Function {
	if n == 0 || b.functions[n] != nil {
		return b.functions[n]
	}
	from := b.d.FunctionTable().At(int(n))
	f := &profile.Function{
		ID: uint64(len(b.p.Function) + 1), Name: b.text(from.NameStrindex()), SystemName: b.text(from.SystemNameStrindex()),
		Filename: b.text(from.FilenameStrindex()), StartLine: from.StartLine(),
	}
	b.functions[n] = f
	b.p.Function = append(b.p.Function, f)
	return f
}

// describe says all that a profile says, whatever its numbers and its order are.
func describe(p *profile.Profile) []string {
	var list []string
	for _, s := range p.Sample {
		var b strings.Builder
		for _, l := range s.Location {
			fmt.Fprintf(&b, "%#x folded=%v", l.Address, l.IsFolded)
			if m := l.Mapping; m != nil {
				fmt.Fprintf(&b, " in %q %s %x-%x+%x %v %v %v %v", m.File, m.BuildID, m.Start, m.Limit, m.Offset, m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames)
			}
			for _, line := range l.Line {
				if f := line.Function; f != nil {
					fmt.Fprintf(&b, " %q %q %q:%d:%d(%d)", f.Name, f.SystemName, f.Filename, line.Line, line.Column, f.StartLine)
				}
			}
			b.WriteString("; ")
		}
		fmt.Fprint(&b, s.Label, s.NumLabel, s.NumUnit, s.Value)
		list = append(list, b.String())
	}
	slices.Sort(list)
	head := fmt.Sprintln(p.Period, p.TimeNanos, p.DurationNanos, p.Comments, p.DropFrames, p.KeepFrames, p.DocURL)
	for _, t := range append(slices.Clone(p.SampleType), p.PeriodType) {
		head += t.Type + "/" + t.Unit + " "
	}
	return append(list, head)
}
