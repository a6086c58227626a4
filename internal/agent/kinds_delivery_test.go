package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/profiler"
)

// shape is what the profiles of a kind have: sample types, period type and whether they are of a window, as its maker makes them.
type shape struct {
	types  []string // type:unit
	period string
	window bool
}

func memoryTypes() []string {
	return []string{"alloc_objects:count", "alloc_space:bytes", "inuse_objects:count", "inuse_space:bytes"}
}

var shapes = map[string]shape{
	profiler.KindCPU:       {[]string{"samples:count", "cpu:nanoseconds"}, "cpu:nanoseconds", true},
	profiler.KindHeap:      {memoryTypes(), "space:bytes", false},
	profiler.KindAllocs:    {memoryTypes(), "space:bytes", true},
	profiler.KindGoroutine: {[]string{"goroutine:count"}, "goroutine:count", false},
	profiler.KindBlock:     {[]string{"contentions:count", "delay:nanoseconds"}, "contentions:count", true},
	profiler.KindMutex:     {[]string{"contentions:count", "delay:nanoseconds"}, "contentions:count", true},
	profiler.KindWall:      {[]string{"samples:count", "wall:nanoseconds"}, "wall:nanoseconds", true},
}

func valueType(text string) *profile.ValueType {
	name, unit, _ := strings.Cut(text, ":")
	return &profile.ValueType{Type: name, Unit: unit}
}

// kindProfile is one of a kind: two samples at one place, with the labels that tell of what goroutines do, and values that no other kind has.
func kindProfile(number int, kind string, at time.Time) *export.Profile {
	s := shapes[kind]
	list, _ := windowOf(0, 1, at)
	p := list[0]
	p.Kind, p.Data.PeriodType, p.Data.SampleType = kind, valueType(s.period), nil
	var values []int64
	for i, text := range s.types {
		p.Data.SampleType = append(p.Data.SampleType, valueType(text))
		values = append(values, int64(1000*(number+1)+i))
	}
	if !s.window {
		p.Duration, p.Data.DurationNanos = 0, 0
	}
	for i, reason := range []string{"select", "chan receive"} {
		one := &profile.Sample{Location: p.Data.Location, Value: slices.Clone(values), Label: map[string][]string{"state": {"waiting"}, "reason": {reason}}}
		if i > 0 {
			clear(one.Value)
			one.Value[0] = 1
		}
		p.Data.Sample = append(p.Data.Sample[:i], one)
	}
	return p
}

// sumsOf are the values of a kind that a server is to have, by type:unit.
func sumsOf(number int, kind string, prefix string) map[string]int64 {
	sums := make(map[string]int64)
	for i, text := range shapes[kind].types {
		if strings.HasPrefix(text, prefix) {
			sums[text] = int64(1000*(number+1) + i)
			if i == 0 {
				sums[text]++
			}
		}
	}
	return sums
}

// served is what a kind is called at the servers, and which of its sample types they get (facts: servers.md).
type served struct{ pyroscope, parca, otlp, prefix string }

var names = map[string]served{
	profiler.KindCPU:       {"process_cpu", "process_cpu", "cpu", ""},
	profiler.KindHeap:      {"memory", "memory", "heap", "inuse_"},
	profiler.KindAllocs:    {"memory", "memory", "allocs", "alloc_"},
	profiler.KindGoroutine: {"goroutines", "goroutine", "goroutine", ""},
	profiler.KindBlock:     {"block", "block", "block", ""},
	profiler.KindMutex:     {"mutex", "mutex", "mutex", ""},
	profiler.KindWall:      {"wall", "wall", "wall", ""},
}

// wantedAt are the sums that a receiver is to have, by what it calls them.
func wantedAt(name string, kinds []string) map[string]int64 {
	want := make(map[string]int64)
	for i, kind := range kinds {
		n := names[kind]
		for text, sum := range sumsOf(i, kind, n.prefix) {
			switch name {
			case "pyroscope", "ingest":
				want[fmt.Sprintf("%s:%s:%s", n.pyroscope, text, shapes[kind].period)] = sum
			case "parca":
				id := fmt.Sprintf("%s:%s:%s", n.parca, text, shapes[kind].period)
				if shapes[kind].window {
					id += ":delta"
				}
				want[id] = sum
			default:
				want[fmt.Sprintf("%s:%s:%s:%v", n.otlp, text, shapes[kind].period, shapes[kind].window)] = sum
			}
		}
	}
	return want
}

// gotAt is what a receiver has.
func gotAt(r receiver) map[string]int64 {
	got := make(map[string]int64)
	switch r := r.(type) {
	case *pyroscopeReceiver:
		for _, s := range r.Series(false) {
			got[s.Type] += s.Total
		}
	case *parcaReceiver:
		for _, p := range r.last.Stored() {
			for i, id := range p.Types {
				got[id] += p.Sums[i]
			}
		}
	case *otlpReceiver:
		for _, p := range r.last.Profiles() {
			got[fmt.Sprintf("%s:%s:%s:%s:%s:%v", p.Kind(), p.Type, p.Unit, p.PeriodType, p.PeriodUnit, p.Duration > 0)] += p.Sum
		}
	}
	return got
}

// TestServersKinds: profiles of each kind arrive at each server under the names that it knows, with the sums that they had, once, also where
// the first attempts fail.
func TestServersKinds(t *testing.T) {
	kinds := slices.Sorted(maps.Keys(shapes))
	for name, r := range receivers(t, fastNow) {
		for _, f := range []fault{"", "503", "Unavailable", resets, loses} {
			if grpcCodes[f] != 0 && !r.overGRPC() || statusOf(f) != 0 && r.overGRPC() {
				continue
			}
			t.Run(name+" "+string(f), func(t *testing.T) {
				t.Parallel()
				testKinds(t, name, f, kinds)
			})
		}
	}
}

func testKinds(t *testing.T, name string, f fault, kinds []string) {
	d := newDelivery(t, 100)
	r := receivers(t, d.servers.clock)[name]
	r.listen(t)
	taken := f != "" && r.fail(f, 2)
	d.configure(r.section())
	at, _ := d.servers.clock() // of the first: no two of them begin at the same moment
	for i, kind := range kinds {
		if err := d.servers.take(kindProfile(i, kind, at.Add(time.Duration(i)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.servers.commit(); err != nil {
		t.Fatal(err)
	}
	d.await("all is delivered", func() bool { return d.stats().Pending.Profiles == 0 })
	if st := d.stats(); len(st.Dropped) > 0 || st.Delivered.Profiles != int64(len(kinds)) || f != "" && st.Failures == 0 {
		t.Errorf("%+v", st)
	}
	want, got := wantedAt(name, kinds), gotAt(r)
	for id, sum := range got {
		times := sum / max(want[id], 1) // what was taken without an answer comes twice
		if want[id] == 0 || sum != times*want[id] || times != 1 && !taken {
			t.Errorf("%s: %d, want %d", id, sum, want[id])
		}
	}
	for id, sum := range want {
		if _, ok := got[id]; !ok {
			t.Errorf("%s has not come: %d", id, sum)
		}
	}
}
