package otlp

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/pprofd/pprofd/export"
)

const scopeName = "github.com/pprofd/pprofd"

// meant is how the sample types begin that are sent of a kind; of others, all are. Profiles of a heap and of allocations have the
// same four types, which a receiver could not tell apart.
var meant = map[string]string{"heap": "inuse_", "allocs": "alloc_"}

// named are kinds whose sample types others have, too: their profiles have an attribute pprofd.kind, by which they can be told apart.
var named = map[string]bool{"block": true, "mutex": true, "wall": true}

// instant are kinds that show a moment.
var instant = map[string]bool{"heap": true, "goroutine": true}

// conversion is one profile on its way.
type conversion struct {
	p     *export.Profile
	d     *profile.Profile
	types []int // of d.SampleType
	o     *Options
}

// Export sends p; a profile without samples is not worth a request. A profile some of whose sample types are rejected counts as
// rejected.
func (x *Exporter) Export(ctx context.Context, p *export.Profile) error {
	c, err := newConversion(p, &x.o)
	if err != nil {
		return &export.DeliveryError{Retry: export.Never, Reason: "invalid", Err: err}
	}
	return x.ship(ctx, c, c.d.Sample, 0)
}

// ship sends samples, in as few requests as the server takes. Parts are numbered as the nodes of a tree, of which 0 is the root: a
// number means the same samples always, even where the server's limit has changed since they were sent before.
func (x *Exporter) ship(ctx context.Context, c *conversion, samples []*profile.Sample, part uint64) error {
	if len(samples) == 0 {
		return nil
	}
	request, err := c.request(samples, part)
	if err != nil {
		return &export.DeliveryError{Retry: export.Never, Reason: "invalid", Err: err}
	}
	if len(request) > x.o.MaxRequest {
		err = &export.DeliveryError{Retry: export.Never, Reason: tooLarge, Err: fmt.Errorf("%w: %d bytes", errTooLarge, len(request))}
	} else {
		err = x.send(ctx, request)
	}
	if e := export.RetryOf(err); e != nil && e.Reason == tooLarge && len(samples) > 1 {
		half := len(samples) / 2
		if err := x.ship(ctx, c, samples[:half], 2*part+1); err != nil {
			return err
		}
		return x.ship(ctx, c, samples[half:], 2*part+2)
	}
	return err
}

func (x *Exporter) send(ctx context.Context, request []byte) error {
	ctx, cancel := context.WithTimeout(ctx, x.o.Timeout)
	defer cancel()
	a, err := x.to.send(ctx, request)
	switch {
	case err != nil:
		return fmt.Errorf("otlp: %s: %w", x.o.Endpoint, err)
	case a.rejected > 0:
		return &export.DeliveryError{Retry: export.Never, Reason: "rejected", Err: fmt.Errorf("otlp: %s: %d of a profile's sample types rejected: %s", x.o.Endpoint, a.rejected, a.message)}
	case a.message != "":
		x.warnings.add(a.message)
	}
	return nil
}

func newConversion(p *export.Profile, o *Options) (*conversion, error) {
	if p.Encoded == nil { // what only an encoded profile is promised is needed, and p is not to be changed
		e, err := (&export.Profile{Kind: p.Kind, PID: p.PID, Start: p.Start, Data: p.Data}).Encode()
		if err != nil {
			return nil, err
		}
		p = &export.Profile{Kind: p.Kind, PID: p.PID, StartTicks: p.StartTicks, Comm: p.Comm, Service: p.Service, Labels: p.Labels, Start: p.Start, Duration: p.Duration, Encoded: e}
	}
	d, err := (&export.Profile{Kind: p.Kind, PID: p.PID, Encoded: p.Encoded}).Decode()
	if err != nil {
		return nil, err
	}
	c := &conversion{p: p, d: d, o: o}
	prefix := meant[p.Kind]
	for i, t := range d.SampleType {
		if strings.HasPrefix(t.Type, prefix) {
			c.types = append(c.types, i)
		}
	}
	if len(c.types) == 0 {
		return nil, fmt.Errorf("%s profile of process %d: none of its sample types is %s*", p.Kind, p.PID, prefix)
	}
	if instant[p.Kind] {
		d.DurationNanos = 0
	}
	if d.TimeNanos == 0 {
		d.TimeNanos = p.Start.UnixNano()
	}
	d.Sample = slices.DeleteFunc(d.Sample, func(s *profile.Sample) bool {
		return !slices.ContainsFunc(c.types, func(i int) bool { return s.Value[i] != 0 })
	})
	return c, nil
}

// request is an ExportProfilesServiceRequest with these samples.
func (c *conversion) request(samples []*profile.Sample, part uint64) ([]byte, error) {
	all := pprofile.NewProfiles()
	rp := all.ResourceProfiles().AppendEmpty()
	rp.SetSchemaUrl(schema)
	program := ""
	if len(c.d.Mapping) > 0 {
		program = c.d.Mapping[0].File
	}
	putResource(c.p, program, rp.Resource().Attributes())
	sp := rp.ScopeProfiles().AppendEmpty()
	sp.SetSchemaUrl(schema)
	c.scope(sp.Scope())
	t := newDictionary(all.Dictionary(), c.d)
	list, at := t.rows(samples), uint64(max(0, c.d.TimeNanos))+part
	for _, n := range c.types {
		to := sp.Profiles().AppendEmpty()
		to.SetTime(pcommon.Timestamp(at))
		to.SetProfileID(c.id(n, at))
		c.profile(to, t, n, list)
	}
	return (&pprofile.ProtoMarshaler{}).MarshalProfiles(all)
}

// scope says how the profiles were one.
func (c *conversion) scope(s pcommon.InstrumentationScope) {
	s.SetName(scopeName)
	s.SetVersion(c.o.Version)
	order := s.Attributes().PutEmptySlice("pprof.scope.sample_type_order")
	for _, n := range c.types {
		order.AppendEmpty().SetInt(int64(n))
		if name := c.d.SampleType[n].Type; name == c.d.DefaultSampleType {
			s.Attributes().PutStr("pprof.scope.default_sample_type", name)
		}
	}
}

func (c *conversion) profile(to pprofile.Profile, t *dictionary, n int, list []row) {
	st, pt := c.d.SampleType[n], c.d.PeriodType
	to.SampleType().SetTypeStrindex(t.text(st.Type))
	to.SampleType().SetUnitStrindex(t.text(st.Unit))
	to.PeriodType().SetTypeStrindex(t.text(pt.Type))
	to.PeriodType().SetUnitStrindex(t.text(pt.Unit))
	to.SetPeriod(c.d.Period)
	to.SetDurationNano(uint64(max(0, c.d.DurationNanos)))
	to.AttributeIndices().FromRaw(t.profileAttributes(c.p.Kind, c.d))
	to.Samples().EnsureCapacity(len(list))
	for _, r := range list {
		s := to.Samples().AppendEmpty()
		s.SetStackIndex(r.stack)
		s.SetLinkIndex(r.link)
		s.AttributeIndices().FromRaw(r.attributes)
		s.Values().Append(r.values[n])
	}
}

// id is the same each time the profile is sent, and no other profile's.
func (c *conversion) id(n int, at uint64) (id pprofile.ProfileID) {
	h := sha256.New()
	add := func(texts ...string) {
		for _, s := range texts {
			h.Write(binary.AppendUvarint(nil, uint64(len(s))))
			h.Write([]byte(s))
		}
	}
	add(c.p.Kind, c.d.SampleType[n].Type, c.p.Service, c.p.Comm, fmt.Sprint(c.p.PID, c.p.StartTicks, at))
	for _, l := range c.p.Labels {
		add(l.Name, l.Value)
	}
	copy(id[:], h.Sum(nil))
	return id
}

func (t *dictionary) profileAttributes(kind string, d *profile.Profile) (list []int32) {
	if named[kind] {
		list = append(list, t.attribute("pprofd.kind", "", kind))
	}
	if len(d.Comments) > 0 {
		list = append(list, t.attribute("pprof.profile.comment", "", anySlice(d.Comments)))
	}
	for _, a := range []struct{ name, value string }{
		{"pprof.profile.doc_url", d.DocURL},
		{"pprof.profile.drop_frames", d.DropFrames},
		{"pprof.profile.keep_frames", d.KeepFrames},
	} {
		if a.value != "" {
			list = append(list, t.attribute(a.name, "", a.value))
		}
	}
	return list
}

// row is a sample, with the values of all sample types.
type row struct {
	stack, link int32
	attributes  []int32
	values      []int64
}

// rows are the samples; those that differ in nothing but values are one.
func (t *dictionary) rows(samples []*profile.Sample) []row {
	list := make([]row, 0, len(samples))
	seen := make(map[string]int, len(samples))
	for _, s := range samples {
		r := row{stack: t.stack(s.Location), link: t.link(s), values: s.Value}
		r.attributes = t.sampleAttributes(s, r.link != 0)
		k := t.key(append([]int64{int64(r.stack), int64(r.link)}, wide(r.attributes)...)...)
		if n, ok := seen[string(k)]; ok {
			sum := slices.Clone(list[n].values)
			for i, v := range r.values {
				sum[i] += v
			}
			list[n].values = sum
			continue
		}
		seen[string(k)] = len(list)
		list = append(list, r)
	}
	return list
}

// sampleAttributes are the labels, by name. The format permits several values of one label, and both texts and numbers.
func (t *dictionary) sampleAttributes(s *profile.Sample, linked bool) (list []int32) {
	if len(s.Label)+len(s.NumLabel) == 0 {
		return nil
	}
	names := slices.Collect(maps.Keys(s.Label))
	for name := range s.NumLabel {
		if _, ok := s.Label[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if linked && (name == traceLabel || name == spanLabel) {
			continue
		}
		values := append(anySlice(s.Label[name]), anySlice(s.NumLabel[name])...)
		var value any = values
		switch len(values) {
		case 0:
			continue
		case 1:
			value = values[0]
		}
		list = append(list, t.attribute(name, unitOf(s.NumUnit[name]), value))
	}
	return list
}

// ucum are the names that attributes' units should have (UCUM) of those that pprof uses.
var ucum = map[string]string{"bytes": "By", "nanoseconds": "ns", "microseconds": "us", "milliseconds": "ms", "seconds": "s"}

// unitOf is the unit that all numbers of a label have.
func unitOf(units []string) string {
	if len(units) == 0 || slices.ContainsFunc(units, func(u string) bool { return u != units[0] }) {
		return ""
	}
	if u := ucum[units[0]]; u != "" {
		return u
	}
	return units[0]
}

func anySlice[T any](list []T) []any {
	all := make([]any, len(list))
	for i, v := range list {
		all[i] = v
	}
	return all
}
