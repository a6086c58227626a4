package governor

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"
)

// input takes numbers of all kinds from fuzzed bytes; where they are used up there are zeros.
type input struct{ b []byte }

func (in *input) uint64() uint64 {
	var eight [8]byte
	n := copy(eight[:], in.b)
	in.b = in.b[n:]
	return binary.LittleEndian.Uint64(eight[:])
}

func (in *input) float() float64 { return math.Float64frombits(in.uint64()) }

// duration is of any size; the last byte scales it.
func (in *input) duration() time.Duration {
	d := in.uint64()
	return time.Duration(d) >> (d % 48)
}

// above is a finite number above 0.
func (in *input) above() float64 {
	if f := math.Abs(in.float()); positive(f) {
		return f
	}
	return 1
}

func (in *input) sensible() float64 { return min(max(in.above(), 1/most), most) }

func (in *input) kind(name string) Kind {
	k := Kind{Name: name, Share: in.sensible(), Unit: "1/B", Event: in.uint64()%2 == 0}
	if k.Event && in.uint64()%2 == 0 {
		return k
	}
	rates := []float64{in.above(), in.above(), in.above()}
	slices.Sort(rates)
	k.Floor, k.Start, k.Ceiling = rates[0], rates[1], rates[2]
	return k
}

func (in *input) config() Config {
	return Config{CPU: in.sensible(), Memory: int64(in.uint64() >> 1), Kinds: []Kind{in.kind("a"), in.kind("b"), in.kind("c")}}
}

func (in *input) observation() Observation {
	o := Observation{Window: in.duration(), CPUs: in.float(), Load: in.float(), RSS: int64(in.uint64()), Base: in.duration()}
	for _, name := range []string{"a", "b", "c"} {
		if in.uint64()%4 == 0 {
			continue
		}
		o.Kinds = append(o.Kinds, Spent{Name: name, Ticks: in.duration(), Hits: in.duration(), TicksAll: in.duration(), HitsAll: in.duration(), BPF: in.duration(),
			User: in.duration(), Events: in.uint64(), Lost: in.uint64(), Throttled: in.uint64(), Errors: in.uint64(), Rate: in.float()})
	}
	return o
}

// seed makes bytes of numbers.
func seed(list ...any) (b []byte) {
	for _, v := range list {
		switch v := v.(type) {
		case float64:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		case time.Duration: // so that it is not scaled
			b = binary.LittleEndian.AppendUint64(b, uint64(v-v%48))
		case int:
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
		}
	}
	return b
}

func FuzzNext(f *testing.F) {
	config := seed(0.02, 200<<20, 3., 1, 1., 99., 19., 1., 1, 0.01, 1., 0.1, 1., 0, 0)
	ms := time.Millisecond
	one := seed(time.Second, 4., 0.5, 50<<20, ms, 1, 2*ms, ms, 3*ms, 2*ms, 2*ms, 8*ms, 100, 1, 2, 3, 19., 1, ms, ms, ms, ms, ms, ms, 5, 0, 0, 0, 0.1, 0)
	f.Add(slices.Concat(config, one, one, one))
	f.Add(slices.Concat(config, seed(time.Second, math.Inf(1), math.NaN(), -1, -ms, 1, -ms, -ms, -ms, -ms, -ms, -1, -1, -1, -1, math.Inf(-1)), one))
	f.Add(slices.Concat(config, seed(time.Duration(1)), one))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &input{b}
		c := in.config()
		g, err := New(c)
		again, err2 := New(c)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		for range 64 {
			o := in.observation()
			d := g.Next(o)
			checkDecision(t, &c, &d)
			if e := again.Next(o); !slices.Equal(d.Kinds, e.Kinds) || !slices.Equal(d.Reasons, e.Reasons) {
				t.Fatalf("%+v and %+v of the same", d, e)
			}
		}
	})
}

func checkDecision(t *testing.T, c *Config, d *Decision) {
	t.Helper()
	if !finite(d.Spent) || d.Budget != c.CPU || d.Windows < 1 || len(d.Kinds) != len(c.Kinds) {
		t.Fatalf("%+v", d)
	}
	sum := 0.0
	for i, s := range d.Kinds {
		k := c.Kinds[i]
		sum += s.Allowed / c.CPU
		switch {
		case s.Name != k.Name, !(s.Rate >= k.Floor), !(s.Rate <= k.Ceiling), !(s.Rate <= s.Ceiling), !(s.Ceiling <= k.Ceiling):
			t.Fatalf("%+v of %+v", s, k)
		case !finite(s.Allowed), !(s.Keep > 0 && s.Keep <= 1), s.Off != (s.Retry > 0), s.Off != (s.Limit == 0), s.Limit < 0:
			t.Fatalf("%+v of %+v", s, k)
		}
	}
	if !(sum < 1+1e-6) {
		t.Fatalf("%v of the budget are given away: %+v", sum, d)
	}
}

func finite(f float64) bool { return f >= 0 && !math.IsInf(f, 0) }
