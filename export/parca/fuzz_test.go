package parca

import (
	"bytes"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// FuzzHeader holds what is read of a header against google/pprof: what fits is sent without being parsed.
func FuzzHeader(f *testing.F) {
	for _, p := range []*profile.Profile{cpuData(2), heapData(3), cpuData(0)} {
		var b bytes.Buffer
		if err := p.WriteUncompressed(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{0x32, 1, 'x'})
	f.Add([]byte{0x0a, 2, 8, 1, 0x32, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := parseHeader(raw)
		p, errParse := profile.ParseUncompressed(raw)
		if err != nil || errParse != nil {
			return
		}
		if len(h.types) != len(p.SampleType) || h.time != p.TimeNanos || h.duration != p.DurationNanos {
			t.Fatalf("%+v, %v", h, p)
		}
		for i, st := range p.SampleType {
			if h.texts[h.types[i].name] != st.Type || h.texts[h.types[i].unit] != st.Unit {
				t.Errorf("type %d: %+v, %+v", i, h, st)
			}
		}
		if p.PeriodType != nil && (h.texts[h.period.name] != p.PeriodType.Type || h.texts[h.period.unit] != p.PeriodType.Unit) {
			t.Errorf("period: %+v, %+v", h, p.PeriodType)
		}
		for _, k := range []kind{{}, {instant: true}} {
			if h.fits(k) && (p.PeriodType == nil || p.PeriodType.Type == "" || p.TimeNanos <= 0 || (p.DurationNanos == 0) != k.instant || p.PeriodType.Unit != export.LabelName(p.PeriodType.Unit)) {
				t.Errorf("fits: %v", p)
			}
		}
	})
}
