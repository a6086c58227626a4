package parca

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// maxSeries bounds what Options.SampleLabels makes of a profile, whose program chooses the values.
const maxSeries = 64

var errNoProfile = errors.New("there is no profile")

// part is a series of a profile: pprof, and the labels that are not of the process.
type part struct {
	labels []export.Label
	gzip   []byte
}

// prepare makes of p what a server takes: none where nothing is left, one mostly.
func (x *Exporter) prepare(p *export.Profile) ([]part, error) {
	e := p.Encoded
	if e == nil {
		if p.Data == nil {
			return nil, errNoProfile
		}
		var err error
		own := *p // another exporter may have p at the same time
		if e, err = own.Encode(); err != nil {
			return nil, err
		}
	}
	if e.Samples == 0 {
		return nil, nil
	}
	k := kindOf(p)
	if k.types == nil && (len(x.o.SampleLabels) == 0 || !e.Labels) {
		if h, err := readHeader(e); err != nil {
			return nil, err
		} else if h.fits(k) {
			return []part{{gzip: e.Gzip}}, nil
		}
	}
	data, err := profile.ParseData(e.Gzip) // ours, whoever else has p
	if err != nil {
		return nil, err
	}
	adapt(data, p, k)
	return x.split(data)
}

// adapt makes d what the kind is at the server.
func adapt(d *profile.Profile, p *export.Profile, k kind) {
	keepTypes(d, k.types)
	for _, t := range append(slices.Clone(d.SampleType), d.PeriodType) {
		t.Type, t.Unit = export.LabelName(t.Type), export.LabelName(t.Unit)
	}
	if d.TimeNanos <= 0 {
		d.TimeNanos = p.Start.UnixNano()
	}
	switch {
	case k.instant:
		d.DurationNanos = 0
	case d.DurationNanos <= 0:
		d.DurationNanos = max(1, p.Duration.Nanoseconds())
	}
}

// keepTypes leaves those of the types that there are; all, where there is none.
func keepTypes(d *profile.Profile, types []string) {
	var keep []int
	for i, t := range d.SampleType {
		if slices.Contains(types, t.Type) {
			keep = append(keep, i)
		}
	}
	if len(keep) == 0 || len(keep) == len(d.SampleType) {
		return
	}
	d.SampleType, d.DefaultSampleType = pick(d.SampleType, keep), ""
	for _, s := range d.Sample {
		s.Value = pick(s.Value, keep)
	}
	d.Sample = slices.DeleteFunc(d.Sample, func(s *profile.Sample) bool {
		return !slices.ContainsFunc(s.Value, func(v int64) bool { return v != 0 })
	})
}

func pick[T any](all []T, which []int) []T {
	list := make([]T, len(which))
	for i, n := range which {
		list[i] = all[n]
	}
	return list
}

// split makes a part of each combination of the values of the labels of samples that are wanted.
func (x *Exporter) split(d *profile.Profile) ([]part, error) {
	groups := make(map[string][]*profile.Sample)
	for _, s := range d.Sample {
		k := x.groupOf(s)
		groups[k] = append(groups[k], s)
	}
	keys := byWeight(groups)
	for _, k := range keys[min(len(keys), maxSeries-1):] {
		if k != x.groupOf(nil) {
			groups[x.groupOf(nil)] = append(groups[x.groupOf(nil)], groups[k]...)
			delete(groups, k)
		}
	}
	var parts []part
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		d.Sample = groups[k]
		e, err := export.Encode(d.Compact())
		if err != nil {
			return nil, err
		}
		if e.Samples > 0 {
			parts = append(parts, part{x.labelsOf(k), e.Gzip})
		}
	}
	return parts, nil
}

// groupOf is what samples of the same part have in common: the values of the labels that are wanted. nil: that have none.
func (x *Exporter) groupOf(s *profile.Sample) string {
	values := make([]string, len(x.o.SampleLabels))
	for i, name := range x.o.SampleLabels {
		if s != nil && len(s.Label[name]) > 0 {
			values[i] = strings.ReplaceAll(s.Label[name][0], separator, " ")
		}
	}
	return strings.Join(values, separator)
}

const separator = "\x00"

func (x *Exporter) labelsOf(group string) (list []export.Label) {
	if len(x.o.SampleLabels) == 0 {
		return nil
	}
	for i, value := range strings.Split(group, separator) {
		list = append(list, export.Label{Name: x.o.SampleLabels[i], Value: value})
	}
	return list
}

// byWeight are the groups, that of the largest sum first.
func byWeight(groups map[string][]*profile.Sample) []string {
	sums := make(map[string]int64, len(groups))
	for k, samples := range groups {
		for _, s := range samples {
			sums[k] += s.Value[0]
		}
	}
	return slices.SortedFunc(maps.Keys(groups), func(a, b string) int {
		return cmp.Or(cmp.Compare(sums[b], sums[a]), strings.Compare(a, b))
	})
}

// unzip returns what e holds.
func unzip(e *export.Encoded) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(e.Gzip))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(e.Raw + bytes.MinRead)
	if _, err := io.Copy(&b, z); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
