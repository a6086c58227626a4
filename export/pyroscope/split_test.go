package pyroscope

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

// TestUntouched: what is as the server wants it goes out byte by byte.
func TestUntouched(t *testing.T) {
	p := encoded(t, cpuProfile(t, func(m *maker) { m.many(500, 20) }))
	var got []byte
	e := newExporter(t, Options{URL: "http://127.0.0.1:1"})
	e.send = func(_ context.Context, r *request) error { got = r.gzip; return nil }
	send(t, e, p)
	if !bytes.Equal(got, p.Encoded.Gzip) {
		t.Error("it was changed")
	}
	p = encoded(t, cpuProfile(t, func(m *maker) { m.add("f;main", 1, "endpoint", "/a") }))
	send(t, e, p)
	if !bytes.Equal(got, p.Encoded.Gzip) {
		t.Error("one whose labels are all kept was changed")
	}
}

func TestNothingToSend(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	e := newExporter(t, Options{URL: s.URL()})
	m := newMaker("heap", time.Now())
	m.add("f;main", 1)
	m.p.Sample[0].Value = []int64{5, 80, 0, 0} // all of it was freed
	send(t, e, m.profile("heap"))
	send(t, e, cpuProfile(t, func(*maker) {}))
	if r := s.Requests(); len(r) != 0 {
		t.Errorf("%d requests", len(r))
	}
}

func TestUnusable(t *testing.T) {
	e := newExporter(t, Options{URL: "http://127.0.0.1:1"})
	m := newMaker("cpu", time.Now())
	one(m)
	cpu := m.profile("heap") // it is not one
	for name, p := range map[string]*export.Profile{
		"nothing": {Kind: "cpu"}, "no pprof": {Kind: "heap", Encoded: &export.Encoded{Gzip: []byte("x"), Samples: 1}}, "another kind": cpu,
		"no period type": {Kind: "cpu", Data: &profile.Profile{}},
	} {
		if d := export.RetryOf(e.Export(t.Context(), p)); d == nil || d.Retry != export.Never || d.Reason != "invalid" {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// TestDeepStacks: what is cut is the middle, inlined calls counted; both ends stay.
func TestDeepStacks(t *testing.T) {
	for _, n := range []int{999, 1000, 1001, 1500, 5000} {
		for _, inlined := range []int{1, 3, 700, 1200} {
			t.Run(fmt.Sprint(n, "frames, inlined ", inlined), func(t *testing.T) {
				names := make([]string, n)
				for i := range names {
					names[i] = fmt.Sprint("f", i)
				}
				p := cpuProfile(t, func(m *maker) {
					m.add(strings.Join(names, ";"), 1)
					m.p.Sample[0].Location = fold(m, inlined)
					m.add("leaf;main", 2)
				})
				s, stats := sent(t, Options{}, p)
				for stack, v := range only(t, s, "samples").Stacks {
					if v == 2 {
						continue
					}
					got := strings.Split(stack, ";")
					want := slices.Clone(names)
					if n > 1000 {
						want = slices.Concat(names[:499], []string{"[truncated]"}, names[n-500:])
					}
					if !slices.Equal(got, want) {
						t.Errorf("%d frames: %v ... %v", len(got), got[:2], got[len(got)-2:])
					}
				}
				if cut := uint64(min(max(n-1000, 0), 1)); stats.Stacks != cut {
					t.Errorf("%d stacks are said to be cut, not %d", stats.Stacks, cut)
				}
			})
		}
	}
}

// fold makes of n locations in a row one with n calls.
func fold(m *maker, n int) []*profile.Location {
	var out []*profile.Location
	for part := range slices.Chunk(m.p.Sample[0].Location, n) {
		l := &profile.Location{ID: uint64(len(out) + 1), Address: part[0].Address, Mapping: part[0].Mapping}
		for _, one := range part {
			l.Line = append(l.Line, one.Line...)
		}
		out = append(out, l)
	}
	m.p.Location = out
	clear(m.functions)
	return out
}

// large is a profile that has to be sent in parts.
func large(t *testing.T) *export.Profile { return cpuProfile(t, func(m *maker) { m.many(31_000, 2) }) }

const largeSum = 31_000 * 31_001 / 2

func TestParts(t *testing.T) {
	s, stats := sent(t, Options{}, encodedKeepingData(t, large(t)))
	times := map[int64]bool{}
	size := 0
	for _, x := range s.Series(true) {
		if x.Type == samplesType {
			times[x.Time] = true
			size = max(size, x.Size)
		}
	}
	if len(times) != 4 || size > maxRaw || stats.Split != 1 {
		t.Errorf("%d parts with times of their own, at most %d bytes, %d split", len(times), size, stats.Split)
	}
	if got := s.Sum("samples", true); got != largeSum {
		t.Errorf("%d samples, not %d", got, largeSum)
	}
}

func encodedKeepingData(t *testing.T, p *export.Profile) *export.Profile {
	t.Helper()
	if _, err := p.Encode(); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPartsAgain: wherever sending ends, the next call goes on there; and another process, which knows nothing of it, makes the same
// parts, so that what is doubled can be told.
func TestPartsAgain(t *testing.T) {
	p := encoded(t, large(t))
	for n := range 4 {
		t.Run(fmt.Sprint(n, " are taken"), func(t *testing.T) {
			s := fake.Start(t, fake.Options{Limits: fake.Limits{Rate: -1}})
			e := newExporter(t, Options{URL: s.URL()})
			for range n {
				s.Fail(fake.Fault{What: fake.Through})
			}
			s.Fail(fake.Fault{Status: 503})
			if d := export.RetryOf(e.Export(t.Context(), p)); d == nil || d.Retry != export.Later {
				t.Fatalf("%v", d)
			}
			send(t, e, p)
			if got := s.Sum("samples", false); got != largeSum {
				t.Errorf("%d samples with what came twice, not %d", got, largeSum)
			}
			if len(e.progress) != 0 || len(e.oldest) != 0 {
				t.Error("it is not forgotten")
			}
			again := newExporter(t, Options{URL: s.URL()})
			send(t, again, p)
			if got := s.Sum("samples", true); got != largeSum {
				t.Errorf("%d samples after another process sent it, not %d", got, largeSum)
			}
			if got := s.Sum("samples", false); got != 2*largeSum {
				t.Errorf("%d samples were sent, not %d", got, 2*largeSum)
			}
		})
	}
}

// TestLostAnswer: a part that was taken, whose answer is lost, is sent again and removed there.
func TestLostAnswer(t *testing.T) {
	s := fake.Start(t, fake.Options{Limits: fake.Limits{Rate: -1}})
	e := newExporter(t, Options{URL: s.URL()})
	p := encoded(t, large(t))
	s.Fail(fake.Fault{What: fake.Through}, fake.Fault{What: fake.ResetAnswer, Take: true})
	if d := export.RetryOf(e.Export(t.Context(), p)); d == nil || d.Retry != export.Later {
		t.Fatalf("%v", d)
	}
	send(t, e, p)
	if got := s.Sum("samples", true); got != largeSum {
		t.Errorf("%d samples, not %d", got, largeSum)
	}
	if got := s.Sum("samples", false); got <= largeSum || got >= 2*largeSum {
		t.Errorf("%d samples came, of %d", got, largeSum)
	}
}

// TestSmallerLimits: a server that takes less than the usual gets parts, in whatever words it refuses.
func TestSmallerLimits(t *testing.T) {
	for name, l := range map[string]fake.Limits{
		"bytes":   {Raw: 300 << 10, Rate: -1},
		"samples": {Samples: 700, Rate: -1},
		"body":    {Body: 50 << 10, Rate: -1},
	} {
		for _, api := range []string{APIPush, APIIngest} {
			t.Run(name+" "+api, func(t *testing.T) {
				s := fake.Start(t, fake.Options{Limits: l})
				e := newExporter(t, Options{URL: s.URL(), API: api})
				m := newMaker("cpu", time.Now())
				m.many(3000, 40)
				p := encoded(t, m.profile("cpu"))
				send(t, e, p)
				if got, want := s.Sum("samples", true), int64(3000*3001/2); got != want {
					t.Errorf("%d samples, not %d", got, want)
				}
				if e.Stats().Split != 1 {
					t.Errorf("%+v", e.Stats())
				}
			})
		}
	}
}

// TestSmallerBurst: a server that never takes so much at once, and only says that it is too fast, gets less after a while; what is small is
// sent as it is, however often.
func TestSmallerBurst(t *testing.T) {
	both(t, func(t *testing.T, api string) {
		s := fake.Start(t, fake.Options{Limits: fake.Limits{Burst: 300 << 10, Rate: 1 << 30}})
		e := newExporter(t, Options{URL: s.URL(), API: api})
		for kind, total := range map[string]int64{"cpu": 3000 * 3001 / 2, "allocs": 3000 * 3001 / 2} {
			m := newMaker(kind, time.Now())
			m.manyOf(3000, 100, 500)
			p := encoded(t, m.profile(kind))
			calls := 0
			for err := e.Export(t.Context(), p); err != nil; err = e.Export(t.Context(), p) {
				if d := export.RetryOf(err); d == nil || d.Reason != "rate_limited" || calls > 12 {
					t.Fatalf("after %d calls: %v", calls, err)
				}
				calls++
			}
			name := map[string]string{"cpu": "samples", "allocs": "alloc_objects"}[kind]
			if got := s.Sum(name, false); calls < patience || got != total {
				t.Errorf("%d %s after %d calls, not %d", got, name, calls, total)
			}
		}
		if e.Stats().Split != 2 || len(e.progress) != 0 {
			t.Errorf("%+v, %d", e.Stats(), len(e.progress))
		}
		small := cpuProfile(t, one)
		for range 3 * patience {
			s.Fail(fake.Fault{Status: 429})
			judged(t, e.Export(t.Context(), small), verdict{export.Later, "rate_limited", ""})
		}
		send(t, e, small)
		if e.Stats().Split != 2 || len(e.progress) != 0 {
			t.Errorf("%+v, %d", e.Stats(), len(e.progress))
		}
	})
}

// TestTooLargeForEver: a server that refuses everything as too large is not asked for ever.
func TestTooLargeForEver(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	s.FailAll(fake.Fault{Status: 413})
	e := newExporter(t, Options{URL: s.URL()})
	err := e.Export(t.Context(), encoded(t, large(t)))
	if d := export.RetryOf(err); d == nil || d.Retry != export.Never || d.Reason != "too_large" {
		t.Errorf("%v", err)
	}
	if n := len(s.Requests()); n < 4 || n > 4*127 {
		t.Errorf("%d requests", n)
	}
	if len(e.progress) != 0 {
		t.Error("it is not forgotten")
	}
}

// TestRefusedPart: one part that is refused for ever does not keep the others.
func TestRefusedPart(t *testing.T) {
	s := fake.Start(t, fake.Options{Limits: fake.Limits{Rate: -1}})
	e := newExporter(t, Options{URL: s.URL()})
	s.Fail(fake.Fault{What: fake.Through}, fake.Fault{Status: 400})
	err := e.Export(t.Context(), encoded(t, large(t)))
	if d := export.RetryOf(err); d == nil || d.Retry != export.Never {
		t.Errorf("%v", err)
	}
	if got := len(s.Requests()); got != 4 {
		t.Errorf("%d requests for 4 parts", got)
	}
}

// TestOneLargeStack: a sample that is too large alone keeps its frames, with shorter names.
func TestOneLargeStack(t *testing.T) {
	p := cpuProfile(t, func(m *maker) {
		names := make([]string, 900)
		for i := range names {
			names[i] = strings.Repeat("généric", 400) + fmt.Sprint("/f", i)
		}
		m.add(strings.Join(names, ";"), 3)
		m.add("g;main", 4)
	})
	s, _ := sent(t, Options{}, p)
	if got := s.Sum("samples", true); got != 7 {
		t.Errorf("%d samples, not 7", got)
	}
	for _, x := range s.Series(true) {
		for stack, v := range x.Stacks {
			if frames := strings.Split(stack, ";"); v == 3 && (len(frames) != 900 || !strings.HasSuffix(frames[17], "/f17")) {
				t.Errorf("%d frames, %q", len(frames), frames[17])
			}
		}
	}
}

// TestProgressIsBounded: what is never sent again is forgotten one day.
func TestProgressIsBounded(t *testing.T) {
	e := newExporter(t, Options{URL: "http://127.0.0.1:1"})
	for i := range 3 * maxProgress {
		e.begun(identity{byte(i), byte(i >> 8)})
	}
	if len(e.progress) != maxProgress || len(e.oldest) != maxProgress {
		t.Errorf("%d, %d", len(e.progress), len(e.oldest))
	}
}

// TestCanceled: Export ends with its context.
func TestCanceled(t *testing.T) {
	for _, api := range []string{APIPush, APIIngest} {
		s := fake.Start(t, fake.Options{})
		s.FailAll(fake.Fault{What: fake.Hang})
		e := newExporter(t, Options{URL: s.URL(), API: api})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		begun := time.Now()
		err := e.Export(ctx, cpuProfile(t, one))
		cancel()
		if d := export.RetryOf(err); !errors.Is(err, context.DeadlineExceeded) || d == nil || d.Retry != export.Later || time.Since(begun) > 5*time.Second {
			t.Errorf("%s: after %v: %v", api, time.Since(begun), err)
		}
	}
}
