package export

import (
	"math/bits"
	"slices"

	"github.com/google/pprof/profile"
)

// Marshaler makes pprof's protobuf of profiles: byte for byte what profile.WriteUncompressed writes, in a fifth of its time, for it
// makes everything in one pass, and keeps its memory from one profile to the next. It does not write to a profile: others may be
// reading it. The zero value is ready for use; it is not safe for concurrent use.
type Marshaler struct {
	out  []byte
	text stringTable
	keys []string
}

// What one large profile needed is not kept for ever.
const (
	maxKept    = 1 << 20 // bytes
	maxStrings = 1 << 14
)

// Fields of messages in pprof's profile.proto, where they are used more than once.
const (
	fieldSample = 2
	fieldLabel  = 3
	fieldLine   = 4
)

// Marshal returns the bytes of p, which are valid up to the next call.
func (m *Marshaler) Marshal(p *profile.Profile) []byte {
	m.begin()
	b := m.out[:0]
	for _, t := range p.SampleType {
		b = m.valueType(b, 1, t)
	}
	for _, s := range p.Sample {
		b = m.sample(b, s)
	}
	for _, v := range p.Mapping {
		b = m.mapping(b, v)
	}
	for _, l := range p.Location {
		b = location(b, l)
	}
	for _, f := range p.Function {
		b = m.function(b, f)
	}
	b = m.rest(b, p)
	m.out = b
	m.text.end()
	return b
}

func (m *Marshaler) begin() {
	if cap(m.out) > maxKept {
		m.out = nil
	}
	m.text.begin()
}

// rest is what follows the functions: the table of strings, and what the profile says of itself.
func (m *Marshaler) rest(b []byte, p *profile.Profile) []byte {
	drop, keep := m.text.number(p.DropFrames), m.text.number(p.KeepFrames)
	var periodType profile.ValueType
	if p.PeriodType != nil {
		periodType = profile.ValueType{Type: p.PeriodType.Type, Unit: p.PeriodType.Unit}
	}
	m.text.number(periodType.Type)
	m.text.number(periodType.Unit)
	comments := make([]int64, len(p.Comments))
	for i, c := range p.Comments {
		comments[i] = m.text.number(c)
	}
	defaultType, doc := m.text.number(p.DefaultSampleType), m.text.number(p.DocURL)
	for _, s := range m.text.list {
		b = varint(tag(b, 6, wireBytes), uint64(len(s)))
		b = append(b, s...)
	}
	b = integer(b, 7, drop)
	b = integer(b, 8, keep)
	b = integer(b, 9, p.TimeNanos)
	b = integer(b, 10, p.DurationNanos)
	if periodType.Type != "" || periodType.Unit != "" {
		b = m.valueType(b, 11, &periodType)
	}
	b = integer(b, 12, p.Period)
	b = integers(b, 13, comments)
	b = varint(tag(b, 14, wireVarint), uint64(defaultType)) // also where it is 0
	return integer(b, 15, doc)
}

func (m *Marshaler) valueType(b []byte, field byte, t *profile.ValueType) []byte {
	b, at := open(b, field)
	b = integer(b, 1, m.text.number(t.Type))
	b = integer(b, 2, m.text.number(t.Unit))
	return shut(b, at)
}

func (m *Marshaler) sample(b []byte, s *profile.Sample) []byte {
	b, at := open(b, fieldSample)
	b = stack(b, s.Location)
	b = integers(b, 2, s.Value)
	if len(s.Label) > 0 {
		b = m.labels(b, s.Label)
	}
	if len(s.NumLabel) > 0 {
		b = m.numLabels(b, s)
	}
	return shut(b, at)
}

func (m *Marshaler) labels(b []byte, labels map[string][]string) []byte {
	m.keys = sortedKeys(m.keys[:0], labels)
	for _, k := range m.keys {
		for _, v := range labels[k] {
			var at int
			b, at = open(b, fieldLabel)
			b = integer(b, 1, m.text.number(k))
			b = integer(b, 2, m.text.number(v))
			b = shut(b, at)
		}
	}
	return b
}

func (m *Marshaler) numLabels(b []byte, s *profile.Sample) []byte {
	m.keys = sortedKeys(m.keys[:0], s.NumLabel)
	for _, k := range m.keys {
		key, units := m.text.number(k), s.NumUnit[k]
		for i, v := range s.NumLabel[k] {
			var at int
			b, at = open(b, fieldLabel)
			b = integer(b, 1, key)
			b = integer(b, 3, v)
			if i < len(units) {
				b = integer(b, 4, m.text.number(units[i]))
			}
			b = shut(b, at)
		}
	}
	return b
}

func sortedKeys[V any](dst []string, m map[string]V) []string {
	for k := range m {
		dst = append(dst, k)
	}
	slices.Sort(dst)
	return dst
}

func (m *Marshaler) mapping(b []byte, v *profile.Mapping) []byte {
	b, at := open(b, 3)
	b = unsigned(b, 1, v.ID)
	b = unsigned(b, 2, v.Start)
	b = unsigned(b, 3, v.Limit)
	b = unsigned(b, 4, v.Offset)
	b = integer(b, 5, m.text.number(v.File))
	b = integer(b, 6, m.text.number(v.BuildID))
	b = flag(b, 7, v.HasFunctions)
	b = flag(b, 8, v.HasFilenames)
	b = flag(b, 9, v.HasLineNumbers)
	b = flag(b, 10, v.HasInlineFrames)
	return shut(b, at)
}

func location(b []byte, l *profile.Location) []byte {
	b, at := open(b, 4)
	b = unsigned(b, 1, l.ID)
	if l.Mapping != nil {
		b = unsigned(b, 2, l.Mapping.ID)
	}
	b = unsigned(b, 3, l.Address)
	for i := range l.Line {
		b = line(b, &l.Line[i])
	}
	b = flag(b, 5, l.IsFolded)
	return shut(b, at)
}

func line(b []byte, l *profile.Line) []byte {
	b, at := open(b, fieldLine)
	if l.Function != nil {
		b = unsigned(b, 1, l.Function.ID)
	}
	b = integer(b, 2, l.Line)
	b = integer(b, 3, l.Column)
	return shut(b, at)
}

func (m *Marshaler) function(b []byte, f *profile.Function) []byte {
	b, at := open(b, 5)
	b = unsigned(b, 1, f.ID)
	name := m.text.number(f.Name)
	system := name
	if f.SystemName != f.Name {
		system = m.text.number(f.SystemName)
	}
	b = integer(b, 2, name)
	b = integer(b, 3, system)
	b = integer(b, 4, m.text.same(f.Filename))
	b = integer(b, 5, f.StartLine)
	return shut(b, at)
}

// stack is a sample's: packed where it has more than two locations, as the library does it.
func stack(b []byte, list []*profile.Location) []byte {
	if len(list) <= 2 {
		for _, l := range list {
			b = varint(tag(b, 1, wireVarint), l.ID)
		}
		return b
	}
	b, at := open(b, 1)
	for _, l := range list {
		b = varint(b, l.ID)
	}
	return shut(b, at)
}

func integers(b []byte, field byte, list []int64) []byte {
	if len(list) <= 2 {
		for _, v := range list {
			b = varint(tag(b, field, wireVarint), uint64(v))
		}
		return b
	}
	b, at := open(b, field)
	for _, v := range list {
		b = varint(b, uint64(v))
	}
	return shut(b, at)
}

// What follows is the wire format of protobuf. Fields whose value is 0 are left out. Those of profiles have numbers below 16, whose
// tags are one byte.
const (
	wireVarint = 0
	wireBytes  = 2
)

func tag(b []byte, field, wire byte) []byte { return append(b, field<<3|wire) }

// varint begins with the lowest seven bits.
func varint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func integer(b []byte, field byte, v int64) []byte { return unsigned(b, field, uint64(v)) }

func unsigned(b []byte, field byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return varint(tag(b, field, wireVarint), v)
}

func flag(b []byte, field byte, v bool) []byte {
	if !v {
		return b
	}
	return append(tag(b, field, wireVarint), 1)
}

// open begins a message within another, with room for a length below 128, which nearly all have; at is where it begins.
func open(b []byte, field byte) (_ []byte, at int) {
	b = append(b, field<<3|wireBytes, 0)
	return b, len(b)
}

// shut ends a message.
func shut(b []byte, at int) []byte {
	n := len(b) - at
	if n < 0x80 {
		b[at-1] = byte(n)
		return b
	}
	more := (bits.Len(uint(n))+6)/7 - 1
	var room [9]byte
	b = append(b, room[:more]...)
	copy(b[at+more:], b[at:at+n])
	varint(b[:at-1], uint64(n))
	return b
}
