package pyroscope

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

// scenario is a profile, and what a server is to have of it.
type scenario struct {
	name string
	make func(*testing.T) (*export.Profile, []want)
	push bool // /ingest cannot say it
}

// want is a sum of a profile type over the series that have labels, and if a function is given, of the stacks that begin with it (the leaf).
type want struct {
	typ    string
	labels map[string]string
	leaf   string
	total  int64
}

// live is a profile of this very process, and what it adds up to there, by profile types.
func live(kind string, sampleTypes map[string]string) func(*testing.T) (*export.Profile, []want) {
	return func(t *testing.T) (*export.Profile, []want) {
		p := runtimeProfile(t, kind)
		var all []want
		for name, typ := range sampleTypes {
			all = append(all, want{typ: typ, total: sum(p, name)})
		}
		return &export.Profile{Kind: kind, PID: 1, Comm: "test", Service: "live", Start: time.Unix(0, p.TimeNanos), Data: p}, all
	}
}

var started = sync.OnceFunc(func() {
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	var mu sync.Mutex
	mu.Lock()
	done := make(chan bool)
	go func() { mu.Lock(); close(done) }()
	time.Sleep(20 * time.Millisecond)
	mu.Unlock()
	<-done
	runtime.GC()
	runtime.GC()
})

// runtimeProfile is one that the Go runtime writes itself.
func runtimeProfile(t *testing.T, kind string) *profile.Profile {
	t.Helper()
	started()
	var b bytes.Buffer
	if kind == "cpu" {
		if err := pprof.StartCPUProfile(&b); err != nil {
			t.Fatal(err)
		}
		for end := cpuTime(t) + 200*time.Millisecond; cpuTime(t) < end; { // the machine may be busy
			pprof.Do(t.Context(), pprof.Labels("endpoint", "/a b"), func(context.Context) { burn() })
		}
		pprof.StopCPUProfile()
	} else if err := pprof.Lookup(kind).WriteTo(&b, 0); err != nil {
		t.Fatal(err)
	}
	p, err := profile.ParseData(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if p.TimeNanos == 0 { // runtime/pprof has no time in goroutine, block and mutex profiles
		p.TimeNanos = time.Now().UnixNano()
	}
	if len(p.Sample) == 0 {
		t.Fatalf("the %s profile of the runtime is empty", kind)
	}
	return p
}

// cpuTime is what this process has used.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var sink []byte

func burn() {
	for range 100 {
		sink = bytes.Repeat([]byte("x"), 4096)
	}
}

const (
	cpuType     = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
	samplesType = "process_cpu:samples:count:cpu:nanoseconds"
)

func memoryType(name string) string {
	unit := "bytes"
	if strings.HasSuffix(name, "objects") {
		unit = "count"
	}
	return "memory:" + name + ":" + unit + ":space:bytes"
}

func scenarios() []scenario {
	now := time.Now().Add(-time.Minute)
	made := func(kind string, fill func(*maker), wants ...want) func(*testing.T) (*export.Profile, []want) {
		return func(*testing.T) (*export.Profile, []want) {
			m := newMaker(kind, now)
			fill(m)
			return m.profile(kind), wants
		}
	}
	three := func(m *maker) { m.add("f;main", 1); m.add("g;main", 2); m.add("main", 4) }
	pid := map[string]string{"pid": "4242", "host": "h1"}
	all := []scenario{
		{"cpu", made("cpu", three, want{samplesType, pid, "", 7}, want{cpuType, nil, "g", 4}), false},
		{"heap is what is in use", made("heap", three, want{memoryType("inuse_objects"), pid, "", 21},
			want{memoryType("inuse_space"), nil, "g", 8}, want{memoryType("alloc_space"), nil, "", 0}), false},
		{"allocs is what was allocated", made("allocs", three, want{memoryType("alloc_objects"), nil, "", 7},
			want{memoryType("alloc_space"), pid, "g", 4}, want{memoryType("inuse_space"), nil, "", 0}), false},
		{"goroutines", made("goroutine", three, want{"goroutines:goroutine:count:goroutine:count", pid, "", 7}), false},
		{"mutex", made("mutex", three, want{"mutex:delay:nanoseconds:contentions:count", pid, "", 14}), false},
		{"block", made("block", three, want{"block:delay:nanoseconds:contentions:count", pid, "", 14},
			want{"mutex:delay:nanoseconds:contentions:count", nil, "", 0}), false},
		{"wall", made("wall", three, want{"wall:wall:nanoseconds:wall:nanoseconds", pid, "", 7}), false},
		{"off-CPU", made("off_cpu", three, want{"off_cpu:off_cpu:nanoseconds:off_cpu:nanoseconds", pid, "", 7}), true},
		{"a kind that nobody knows", made("gpu.busy", three, want{"gpu_busy:gpu.busy:count:gpu.busy:count", pid, "", 7}), true},
		{"labels of samples are series", made("cpu", func(m *maker) {
			m.add("f;main", 1, "endpoint", "/a, {b}")
			m.add("f;main", 2, "endpoint", "/c")
			m.add("f;main", 4)
		}, want{samplesType, map[string]string{"endpoint": "/a, {b}"}, "", 1}, want{samplesType, map[string]string{"endpoint": "/c"}, "", 2},
			want{samplesType, pid, "", 7}), false},
		{"spans", made("cpu", func(m *maker) {
			m.add("f;main", 1, "span_id", "00000000000000a1", "trace_id", "000000000000000000000000000000b1")
			m.add("f;main", 2, "profile_id", "00000000000000a2")
			m.add("f;main", 4, "span_id", "not one")
		}, want{samplesType, map[string]string{"span_id": "00000000000000a1"}, "", 1},
			want{samplesType, map[string]string{"span_id": "00000000000000a2"}, "", 2}, want{samplesType, pid, "", 7}), false},
		{"a stack that is too deep", made("cpu", func(m *maker) { m.add(deep(1500), 3); m.add("leaf;main", 1) }, want{samplesType, nil, "leaf", 4}), false},
		{"too many samples", made("cpu", func(m *maker) { m.many(16_000, 3) }, want{samplesType, pid, "", 16_000 * 16_001 / 2}), false},
		{"too many bytes", made("heap", func(m *maker) { m.many(10_000, 130) }, want{memoryType("inuse_objects"), pid, "", 3 * 10_000 * 10_001 / 2}), false},
	}
	return append(all, liveScenarios()...)
}

func liveScenarios() (all []scenario) {
	for kind, sampleTypes := range map[string]map[string]string{
		"cpu":       {"samples": samplesType, "cpu": cpuType},
		"heap":      {"inuse_objects": memoryType("inuse_objects"), "inuse_space": memoryType("inuse_space")},
		"allocs":    {"alloc_objects": memoryType("alloc_objects"), "alloc_space": memoryType("alloc_space")},
		"goroutine": {"goroutine": "goroutines:goroutine:count:goroutine:count"},
		"mutex":     {"delay": "mutex:delay:nanoseconds:contentions:count"},
		"block":     {"contentions": "block:contentions:count:contentions:count", "delay": "block:delay:nanoseconds:contentions:count"},
	} {
		all = append(all, scenario{name: "the runtime's own profile: " + kind, make: live(kind, sampleTypes)})
	}
	return all
}

// deep is a stack of n frames.
func deep(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("frame%d", i)
	}
	names[0], names[n-1] = "leaf", "main"
	return strings.Join(names, ";")
}

// TestScenarios sends each of them to the fake, by both interfaces.
func TestScenarios(t *testing.T) {
	for _, api := range []string{APIPush, APIIngest} {
		t.Run(api, func(t *testing.T) {
			for _, c := range scenarios() {
				if c.push && api == APIIngest {
					continue // the server derives the name from sample types, and has none for these
				}
				t.Run(c.name, func(t *testing.T) {
					s := fake.Start(t, fake.Options{Limits: fake.Limits{Rate: -1}})
					e := newExporter(t, Options{URL: s.URL(), API: api})
					p, wants := c.make(t)
					check := unchanged(t, p)
					send(t, e, p)
					check()
					contented(t, s)
					for _, w := range wants {
						if got := fakeSum(s, p.Service, w); got != w.total {
							t.Errorf("%s of %v, leaf %q: %d, not %d", w.typ, w.labels, w.leaf, got, w.total)
						}
					}
					sameStacks(t, s, p, wants[0].typ)
				})
			}
		})
	}
}

// sameStacks compares stack by stack.
func sameStacks(t *testing.T, s *fake.Server, p *export.Profile, typ string) {
	t.Helper()
	want, got := stacks(p.Data, strings.Split(typ, ":")[1]), map[string]int64{}
	for _, x := range s.Series(true) {
		if x.Type == typ {
			for stack, v := range x.Stacks {
				got[stack] += v
			}
		}
	}
	wrong := 0
	for stack, v := range want {
		if got[stack] != v && strings.Count(stack, ";") < maxFrames {
			wrong++
		}
	}
	if wrong > 0 || len(got) != len(want) {
		t.Errorf("%d of %d stacks of %s are wrong; there are %d", wrong, len(want), typ, len(got))
	}
}

// fakeSum is what the fake has of w.
func fakeSum(s *fake.Server, service string, w want) (n int64) {
	for _, x := range s.Series(true) {
		if x.Type != w.typ || x.Labels["service_name"] != service {
			continue
		}
		match, span := true, ""
		for k, v := range w.labels {
			if k == "span_id" {
				span = v
				continue
			}
			match = match && x.Labels[k] == v
		}
		switch {
		case !match:
			continue
		case span != "":
			n += x.Spans[span]
			continue
		}
		if w.leaf == "" {
			n += x.Total
		}
		for stack, v := range x.Stacks {
			if leaf, _, _ := strings.Cut(stack, ";"); w.leaf != "" && leaf == w.leaf {
				n += v
			}
		}
	}
	return n
}
