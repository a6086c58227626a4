package otlp

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// dictionary fills a request's tables: each thing once, and only what is referred to. Number 0 of each table is its zero value.
type dictionary struct {
	out       pprofile.ProfilesDictionary
	texts     map[string]int32
	functions map[functionKey]int32
	// By their contents in bytes:
	mappings, locations, stacks, attributes, links map[string]int32
	// By numbers of pprof's, which are 1..N; 0: not seen yet.
	functionOf, mappingOf, locationOf []int32

	scratch []byte
	indices []int32
}

// Keys of zero values, which are in the tables already.
const (
	noMapping  = "\x00\x00\x00\x00"
	noLocation = "\x00\x00\x00"
)

type functionKey struct {
	name, system, file int32
	line               int64
}

func newDictionary(out pprofile.ProfilesDictionary, d *profile.Profile) *dictionary {
	t := &dictionary{
		out:        out,
		texts:      map[string]int32{"": 0},
		functions:  map[functionKey]int32{{}: 0},
		mappings:   map[string]int32{noMapping: 0},
		locations:  map[string]int32{noLocation: 0},
		stacks:     map[string]int32{},
		attributes: map[string]int32{},
		links:      map[string]int32{},
		functionOf: make([]int32, len(d.Function)+1),
		mappingOf:  make([]int32, len(d.Mapping)+1),
		locationOf: make([]int32, len(d.Location)+1),
	}
	out.StringTable().Append("")
	out.FunctionTable().AppendEmpty()
	out.MappingTable().AppendEmpty()
	out.LocationTable().AppendEmpty()
	out.StackTable().AppendEmpty()
	out.AttributeTable().AppendEmpty()
	out.LinkTable().AppendEmpty()
	return t
}

func (t *dictionary) text(s string) int32 {
	n, ok := t.texts[s]
	if !ok {
		n = int32(len(t.texts))
		t.texts[s] = n
		t.out.StringTable().Append(s)
	}
	return n
}

func (t *dictionary) function(f *profile.Function) int32 {
	if f == nil {
		return 0
	}
	if n := t.functionOf[f.ID]; n != 0 {
		return n
	}
	k := functionKey{t.text(f.Name), t.text(f.SystemName), t.text(f.Filename), f.StartLine}
	n, ok := t.functions[k]
	if !ok {
		n = int32(len(t.functions))
		t.functions[k] = n
		out := t.out.FunctionTable().AppendEmpty()
		out.SetNameStrindex(k.name)
		out.SetSystemNameStrindex(k.system)
		out.SetFilenameStrindex(k.file)
		out.SetStartLine(k.line)
	}
	t.functionOf[f.ID] = n
	return n
}

func (t *dictionary) mapping(m *profile.Mapping) int32 {
	if m == nil {
		return 0
	}
	if n := t.mappingOf[m.ID]; n != 0 {
		return n
	}
	file, attrs := t.text(m.File), t.mappingAttributes(m)
	k := t.key(append([]int64{int64(m.Start), int64(m.Limit), int64(m.Offset), int64(file)}, wide(attrs)...)...)
	n, ok := t.mappings[string(k)]
	if !ok {
		n = int32(len(t.mappings))
		t.mappings[string(k)] = n
		out := t.out.MappingTable().AppendEmpty()
		out.SetMemoryStart(m.Start)
		out.SetMemoryLimit(m.Limit)
		out.SetFileOffset(m.Offset)
		out.SetFilenameStrindex(file)
		out.AttributeIndices().FromRaw(attrs)
	}
	t.mappingOf[m.ID] = n
	return n
}

func (t *dictionary) mappingAttributes(m *profile.Mapping) (list []int32) {
	switch {
	case strings.Contains(m.BuildID, "/"): // ACTION/…/CONTENT
		list = append(list, t.attribute("process.executable.build_id.go", "", m.BuildID))
	case m.BuildID != "":
		// Also where the executable has Go's only: objfile makes of it what Go's linker makes its GNU build ID of since 1.24.
		list = append(list, t.attribute("process.executable.build_id.gnu", "", m.BuildID))
	}
	for _, has := range []struct {
		name string
		is   bool
	}{
		{"pprof.mapping.has_functions", m.HasFunctions},
		{"pprof.mapping.has_filenames", m.HasFilenames},
		{"pprof.mapping.has_line_numbers", m.HasLineNumbers},
		{"pprof.mapping.has_inline_frames", m.HasInlineFrames},
	} {
		if has.is {
			list = append(list, t.attribute(has.name, "", true))
		}
	}
	return list
}

func (t *dictionary) location(l *profile.Location) int32 {
	if n := t.locationOf[l.ID]; n != 0 {
		return n
	}
	m, attrs := t.mapping(l.Mapping), t.locationAttributes(l)
	k := t.key(int64(m), int64(l.Address), int64(len(l.Line)))
	for _, line := range l.Line {
		k = binary.AppendVarint(k, int64(t.function(line.Function)))
		k = binary.AppendVarint(k, line.Line)
		k = binary.AppendVarint(k, line.Column)
	}
	for _, a := range attrs {
		k = binary.AppendVarint(k, int64(a))
	}
	t.scratch = k
	n, ok := t.locations[string(k)]
	if !ok {
		n = int32(len(t.locations))
		t.locations[string(k)] = n
		t.addLocation(l, m, attrs)
	}
	t.locationOf[l.ID] = n
	return n
}

func (t *dictionary) addLocation(l *profile.Location, mapping int32, attrs []int32) {
	out := t.out.LocationTable().AppendEmpty()
	out.SetMappingIndex(mapping)
	out.SetAddress(l.Address)
	out.AttributeIndices().FromRaw(attrs)
	out.Lines().EnsureCapacity(len(l.Line))
	for _, line := range l.Line {
		to := out.Lines().AppendEmpty()
		to.SetFunctionIndex(t.function(line.Function))
		to.SetLine(line.Line)
		to.SetColumn(line.Column)
	}
}

func (t *dictionary) locationAttributes(l *profile.Location) (list []int32) {
	if kind := frameType(l); kind != "" {
		list = append(list, t.attribute("profile.frame.type", "", kind))
	}
	if l.IsFolded {
		list = append(list, t.attribute("pprof.location.is_folded", "", true))
	}
	return list
}

// frameType is what a location is code of; "" where that is unknown, or there is no code.
func frameType(l *profile.Location) string {
	switch {
	case l.Mapping == nil || len(l.Line) == 0:
		return ""
	case strings.HasPrefix(l.Mapping.File, "[kernel"):
		return "kernel"
	}
	for _, line := range l.Line {
		if f := line.Function; f != nil && (strings.HasSuffix(f.Filename, ".go") || strings.HasSuffix(f.Filename, ".s")) {
			return "go"
		}
	}
	return "native"
}

func (t *dictionary) stack(locations []*profile.Location) int32 {
	t.indices = t.indices[:0]
	for _, l := range locations {
		t.indices = append(t.indices, t.location(l))
	}
	k := t.key(wide(t.indices)...)
	n, ok := t.stacks[string(k)]
	if !ok {
		n = int32(len(t.stacks) + 1)
		t.stacks[string(k)] = n
		t.out.StackTable().AppendEmpty().LocationIndices().FromRaw(t.indices)
	}
	return n
}

// attribute takes what pcommon.Value.FromRaw takes.
func (t *dictionary) attribute(name, unit string, value any) int32 {
	v := pcommon.NewValueEmpty()
	if err := v.FromRaw(value); err != nil {
		v.SetStr(err.Error())
	}
	k := t.key(int64(t.text(name)), int64(t.text(unit)), int64(v.Type()))
	k = append(k, v.AsString()...)
	t.scratch = k
	n, ok := t.attributes[string(k)]
	if !ok {
		n = int32(len(t.attributes) + 1)
		t.attributes[string(k)] = n
		out := t.out.AttributeTable().AppendEmpty()
		out.SetKeyStrindex(t.text(name))
		out.SetUnitStrindex(t.text(unit))
		v.MoveTo(out.Value())
	}
	return n
}

// Labels that lead to a span (OpenTelemetry's ids in hex).
const (
	traceLabel = "trace_id"
	spanLabel  = "span_id"
)

// link is the number of the span that the sample was taken in; 0 if its labels name none.
func (t *dictionary) link(s *profile.Sample) int32 {
	if len(s.Label[traceLabel]) != 1 || len(s.Label[spanLabel]) != 1 {
		return 0
	}
	var trace pcommon.TraceID
	var span pcommon.SpanID
	if !unhex(trace[:], s.Label[traceLabel][0]) || !unhex(span[:], s.Label[spanLabel][0]) {
		return 0
	}
	k := string(trace[:]) + string(span[:])
	n, ok := t.links[k]
	if !ok {
		n = int32(len(t.links) + 1)
		t.links[k] = n
		out := t.out.LinkTable().AppendEmpty()
		out.SetTraceID(trace)
		out.SetSpanID(span)
	}
	return n
}

// unhex says whether s is an id of to's length, and none that is all zero.
func unhex(to []byte, s string) bool {
	if len(s) != hex.EncodedLen(len(to)) {
		return false
	}
	_, err := hex.Decode(to, []byte(s))
	return err == nil && slices.ContainsFunc(to, func(b byte) bool { return b != 0 })
}

// key is a text that only these numbers have, valid until the next call.
func (t *dictionary) key(list ...int64) []byte {
	t.scratch = t.scratch[:0]
	for _, n := range list {
		t.scratch = binary.AppendVarint(t.scratch, n)
	}
	return t.scratch
}

func wide(list []int32) []int64 {
	w := make([]int64, len(list))
	for i, n := range list {
		w[i] = int64(n)
	}
	return w
}
