package otlp

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
)

// TestParts: a profile that is too large arrives in several requests, whole.
func TestParts(t *testing.T) {
	for _, protocol := range protocols {
		for name, o := range map[string]Options{"known limit": {MaxRequest: 60_000}, "unknown limit": {}} {
			s := fake.Start(t, fake.Options{MaxRequest: 60_000})
			o.Protocol = protocol
			x := exporter(t, s, o)
			d := many(1999)
			d.Sample = append(d.Sample, d.Sample[0]) // a stack that is there twice counts twice, and no oftener
			for range 2 {                            // the second time, nothing is new
				if err := x.Export(t.Context(), &export.Profile{Kind: "cpu", Service: "s", Data: d}); err != nil {
					t.Fatalf("%s, %s: %v", protocol, name, err)
				}
			}
			parts := len(s.Profiles()) / 2
			if sum := s.Sum("s", "samples"); sum != 2000 || parts < 3 {
				t.Errorf("%s, %s: %d samples in %d parts", protocol, name, sum, parts)
			}
			for _, p := range s.Profiles() {
				after := p.Time.Sub(time.Unix(0, d.TimeNanos))
				if p.Times != 2 || after == 0 || after > 10*time.Microsecond {
					t.Errorf("%s, %s: a part, %v later than the profile, was taken %d times", protocol, name, after, p.Times)
				}
			}
		}
	}
}

// TestOneSampleTooLarge: what no part can be small enough for.
func TestOneSampleTooLarge(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	x := exporter(t, s, Options{MaxRequest: 200})
	e := export.RetryOf(x.Export(t.Context(), &export.Profile{Kind: "cpu", Service: "s", Data: small()}))
	if e == nil || e.Retry != export.Never || e.Reason != "too_large" || s.Requests() != 0 {
		t.Errorf("%+v", e)
	}
}

// many has n stacks.
func many(n int) *profile.Profile {
	d := small()
	d.Sample = nil
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		f := &profile.Function{ID: uint64(len(d.Function) + 1), Name: fmt.Sprintf("pkg.f%d", i/8), Filename: "f.go"}
		l := &profile.Location{ID: uint64(len(d.Location) + 1), Mapping: d.Mapping[0], Address: 0x1000 + uint64(i), Line: []profile.Line{{Function: f, Line: int64(i%8 + 1)}}}
		d.Function, d.Location = append(d.Function, f), append(d.Location, l)
		s := &profile.Sample{Value: []int64{1, 10}, Location: []*profile.Location{l}}
		for len(s.Location) < 20 {
			s.Location = append(s.Location, d.Location[r.IntN(len(d.Location))])
		}
		d.Sample = append(d.Sample, s)
	}
	return d
}
