package export

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/pprof/profile"
	"github.com/klauspost/compress/gzip" // in three fifths of the time of compress/gzip
)

// Encoded is a profile as it travels: pprof that every receiver takes. The string table begins with "", the numbers of mappings,
// functions and locations are 1..N in order, all text is valid UTF-8, no stack is empty, no sample is all zero or has a
// negative value, and there are a period type and a time. It is not changed once it is made.
type Encoded struct {
	Gzip    []byte
	Raw     int   // bytes before compression
	Samples int   // stacks with their values
	Depth   int   // frames of the deepest stack, inlined calls counted
	Labels  bool  // samples have labels that are text
	Total   int64 // sum of the first value of all samples: samples of CPU time, objects of memory
}

var (
	errNoProfile    = errors.New("there is no profile")
	errNoPeriodType = errors.New("the profile says neither what a sample counts nor what its period is")
	errNoTime       = errors.New("the profile does not say when it begins")
)

// Encode makes p.Encoded, once. It does not change p.Data. Where that has no time, it is p.Start.
func (p *Profile) Encode() (*Encoded, error) {
	if p.Encoded != nil {
		return p.Encoded, nil
	}
	if p.Data == nil {
		return nil, errNoProfile
	}
	d := p.Data
	if d.TimeNanos <= 0 && !p.Start.IsZero() {
		d = d.Copy()
		d.TimeNanos = p.Start.UnixNano()
	}
	e, err := Encode(d)
	if err != nil {
		return nil, fmt.Errorf("%s profile of process %d: encode: %w", p.Kind, p.PID, err)
	}
	p.Encoded = e
	return e, nil
}

// Decode returns p.Data, or what p.Encoded holds: the caller's own then. p is not changed.
func (p *Profile) Decode() (*profile.Profile, error) {
	if p.Data != nil {
		return p.Data, nil
	}
	if p.Encoded == nil {
		return nil, errNoProfile
	}
	d, err := profile.ParseData(p.Encoded.Gzip)
	if err != nil {
		return nil, fmt.Errorf("%s profile of process %d: decode: %w", p.Kind, p.PID, err)
	}
	return d, nil
}

// coder is what encoding needs: a compressor takes 800 KB.
type coder struct {
	raw bytes.Buffer
	zip *gzip.Writer
}

var coders = sync.Pool{New: func() any {
	zip, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level exists
	return &coder{zip: zip}
}}

const maxKept = 1 << 20 // a buffer that one large profile needed is not kept for ever

// Encode brings p into the form that Encoded describes; p itself stays as it is.
func Encode(p *profile.Profile) (*Encoded, error) {
	if p.PeriodType == nil || p.PeriodType.Type == "" || len(p.SampleType) == 0 {
		return nil, errNoPeriodType
	}
	if p.TimeNanos <= 0 {
		return nil, errNoTime
	}
	if !normal(p) {
		p = normalized(p)
	}
	if err := p.CheckValid(); err != nil {
		return nil, err
	}
	c := coders.Get().(*coder)
	defer coders.Put(c)
	if c.raw.Cap() > maxKept {
		c.raw = bytes.Buffer{}
	}
	c.raw.Reset()
	if err := p.WriteUncompressed(&c.raw); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(c.raw.Len()/3 + 64)
	c.zip.Reset(&out)
	_, err := c.zip.Write(c.raw.Bytes())
	if err = errors.Join(err, c.zip.Close()); err != nil {
		return nil, err
	}
	e := &Encoded{Gzip: out.Bytes(), Raw: c.raw.Len(), Samples: len(p.Sample)}
	for _, s := range p.Sample {
		e.Total += s.Value[0]
		e.Depth = max(e.Depth, depth(s))
		e.Labels = e.Labels || len(s.Label) > 0
	}
	return e, nil
}

func depth(s *profile.Sample) (n int) {
	for _, l := range s.Location {
		n += max(1, len(l.Line))
	}
	return n
}

// normal says whether p can be encoded as it is.
func normal(p *profile.Profile) bool {
	for i, m := range p.Mapping {
		if m.ID != uint64(i+1) || !valid(m.File, m.BuildID) {
			return false
		}
	}
	for i, f := range p.Function {
		if f.ID != uint64(i+1) || !valid(f.Name, f.SystemName, f.Filename) {
			return false
		}
	}
	for i, l := range p.Location {
		if l.ID != uint64(i+1) {
			return false
		}
	}
	return !slices.ContainsFunc(p.Sample, func(s *profile.Sample) bool { return !counts(s) || len(s.Location) == 0 || !validLabels(s) }) &&
		!slices.ContainsFunc(types(p), func(t *profile.ValueType) bool { return !valid(t.Type, t.Unit) }) &&
		valid(p.Comments...) && valid(p.DefaultSampleType, p.DocURL, p.DropFrames, p.KeepFrames)
}

// types are those of samples and of the period.
func types(p *profile.Profile) []*profile.ValueType {
	return append(slices.Clip(p.SampleType), p.PeriodType)
}

func valid(texts ...string) bool {
	return !slices.ContainsFunc(texts, func(s string) bool { return !utf8.ValidString(s) })
}

func validLabels(s *profile.Sample) bool {
	for k, v := range s.Label {
		if k == "" || !valid(k) || !valid(v...) {
			return false
		}
	}
	for k := range s.NumLabel {
		if k == "" || !valid(k) || !valid(s.NumUnit[k]...) {
			return false
		}
	}
	return true
}

// counts says whether a receiver keeps s: it has something, and less than nothing of nothing.
func counts(s *profile.Sample) (some bool) {
	for _, v := range s.Value {
		if v < 0 {
			return false
		}
		some = some || v > 0
	}
	return some
}

// normalized is a copy of p that is normal.
func normalized(p *profile.Profile) *profile.Profile {
	p = p.Copy()
	for i, m := range p.Mapping {
		m.ID = uint64(i + 1)
		clean(&m.File, &m.BuildID)
	}
	for i, f := range p.Function {
		f.ID = uint64(i + 1)
		clean(&f.Name, &f.SystemName, &f.Filename)
	}
	for i := range p.Comments {
		clean(&p.Comments[i])
	}
	for _, t := range types(p) {
		clean(&t.Type, &t.Unit)
	}
	clean(&p.DefaultSampleType, &p.DocURL, &p.DropFrames, &p.KeepFrames)
	p.Sample = slices.DeleteFunc(p.Sample, func(s *profile.Sample) bool { return !counts(s) })
	var unknown *profile.Location
	for _, s := range p.Sample {
		if len(s.Location) == 0 {
			if unknown == nil {
				unknown = placeholder(p)
			}
			s.Location = []*profile.Location{unknown}
		}
		if !validLabels(s) {
			cleanLabels(s)
		}
	}
	for i, l := range p.Location {
		l.ID = uint64(i + 1)
	}
	return p
}

func clean(texts ...*string) {
	for _, s := range texts {
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
}

func cleanLabels(s *profile.Sample) {
	labels := make(map[string][]string, len(s.Label))
	for k, list := range s.Label {
		clean(&k)
		if k == "" {
			continue
		}
		for _, v := range list {
			clean(&v)
			labels[k] = append(labels[k], v)
		}
	}
	s.Label = labels
	cleanNumbers(s)
}

func cleanNumbers(s *profile.Sample) {
	numbers, units := make(map[string][]int64, len(s.NumLabel)), make(map[string][]string, len(s.NumUnit))
	for k, list := range s.NumLabel {
		of := slices.Clone(s.NumUnit[k])
		for i := range of {
			clean(&of[i])
		}
		if clean(&k); k == "" || numbers[k] != nil { // of two names that are the same now, one is left
			continue
		}
		numbers[k] = list
		if of != nil {
			units[k] = of
		}
	}
	s.NumLabel, s.NumUnit = numbers, units
}

// placeholder is the frame of samples without a stack: servers leave those out of their pictures.
func placeholder(p *profile.Profile) *profile.Location {
	f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: "[unknown]", SystemName: "[unknown]"}
	l := &profile.Location{Line: []profile.Line{{Function: f}}}
	p.Function, p.Location = append(p.Function, f), append(p.Location, l)
	return l
}

// labelName is what every receiver takes as the name of a label.
var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// LabelName makes name one that every receiver takes, if it is none: letters, digits and _.
func LabelName(name string) string {
	if labelName.MatchString(name) {
		return name
	}
	b := []byte(name)
	for i, c := range b {
		if !labelName.Match([]byte{'_', c}) {
			b[i] = '_'
		}
	}
	if len(b) == 0 || b[0] >= '0' && b[0] <= '9' {
		b = append([]byte{'_'}, b...)
	}
	return string(b)
}
