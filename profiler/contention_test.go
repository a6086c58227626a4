package profiler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

// contender is a running program that writes its own profiles of contention where and when it is asked to.
type contender struct {
	*testprog.Proc
	in io.Writer
}

// contend starts a program.
func contend(t *testing.T, o testprog.Options, args ...string) *contender {
	t.Helper()
	path := testprog.Build(t, "contend", o)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	return &contender{testprog.StartWith(t, testprog.StartOptions{Stdin: in}, path, args...), out}
}

// own are the profiles that the program writes of itself now, by kind.
func (c *contender) own(t *testing.T) map[string]*profile.Profile {
	t.Helper()
	dir := t.TempDir()
	if _, err := fmt.Fprintln(c.in, dir); err != nil {
		t.Fatal(err)
	}
	c.WaitLine(t, "written "+dir, time.Minute)
	return map[string]*profile.Profile{
		KindBlock: readProfile(t, filepath.Join(dir, "block")), KindMutex: readProfile(t, filepath.Join(dir, "mutex")),
	}
}

// read are the profiles read from outside, by kind.
func (c *contender) read(t *testing.T) map[string]*profile.Profile {
	t.Helper()
	k := &keep{}
	m := NewMemory(MemoryConfig{Kinds: []string{KindBlock, KindMutex}, Exporter: k})
	defer m.Close()
	if err := m.Add(c.PID); err != nil {
		t.Fatal(err)
	}
	if err := m.Export(t.Context()); err != nil {
		t.Fatal(err)
	}
	return kept(k)
}

func kept(k *keep) map[string]*profile.Profile {
	k.mu.Lock()
	defer k.mu.Unlock()
	got := make(map[string]*profile.Profile)
	for _, p := range k.profiles {
		got[p.Kind] = p.Data
	}
	return got
}

func flattenAll(all map[string]*profile.Profile) map[string]map[string]string {
	flat := make(map[string]map[string]string)
	for kind, p := range all {
		flat[kind] = flatten(p)
	}
	return flat
}

// TestContention: the profiles are those that the process writes of itself: stacks with inlined calls, files, lines, events,
// nanoseconds.
func TestContention(t *testing.T) {
	builds := map[string]testprog.Options{
		"plain": {}, "static": {Cgo: true, LDFlags: "-linkmode=external -extldflags=-static"}, "stripped": {Strip: true},
		"stripped PIE": {Strip: true, PIE: true}, "cgo": {Cgo: true}, "race": {Cgo: true, Flags: []string{"-race"}},
		"no inlining": {Strip: true, Flags: []string{"-gcflags=all=-l"}},
	}
	for _, version := range testprog.Versions() {
		for name, o := range builds {
			if version != "" && name != "plain" && name != "stripped PIE" && os.Getenv("PPROFD_FULL") != "1" {
				continue
			}
			for _, rates := range [][]string{{"-block", "1", "-mutex", "1"}, {"-block", "300000", "-mutex", "3"}} {
				t.Run(fmt.Sprint("go", version, " ", name, " ", rates), func(t *testing.T) {
					o.Go = version
					checkContention(t, contend(t, o, rates...))
				})
			}
		}
	}
}

func checkContention(t *testing.T, c *contender) {
	t.Helper()
	var before, got, after map[string]*profile.Profile
	for range 20 { // the runtime itself may contend for its own locks meanwhile
		before, got, after = c.own(t), c.read(t), c.own(t)
		if cmp.Equal(flattenAll(before), flattenAll(after)) {
			break
		}
	}
	for kind, want := range after {
		first, have, last := flatten(before[kind]), flatten(got[kind]), flatten(want)
		if kind == KindMutex {
			takeChanged(t, first, have, last)
		}
		if d := cmp.Diff(last, have); d != "" {
			t.Errorf("%s: %.3000s", kind, d)
		}
		if err := got[kind].CheckValid(); err != nil {
			t.Error(err)
		}
		if len(want.Sample) < 2 { // some are left to chance
			t.Errorf("%s: %d samples", kind, len(want.Sample))
		}
		if d := cmp.Diff(typesOf(want), typesOf(got[kind])); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
	}
}

// takeChanged takes out of profiles what has been counted between the first and the last one for the runtime's own locks. What was read
// in between is in between.
func takeChanged(t *testing.T, first, have, last map[string]string) {
	t.Helper()
	for stack, after := range last {
		before := first[stack]
		if before == after || !strings.HasPrefix(stack, "[] bytes\nruntime.") {
			continue
		}
		least, is, most := eventsAndDelay(before), eventsAndDelay(have[stack]), eventsAndDelay(after)
		for i := range is {
			if is[i] < least[i] || is[i] > most[i] {
				t.Errorf("%s, not from %s to %s, of %s", have[stack], before, after, stack)
			}
		}
		delete(last, stack)
		delete(have, stack)
	}
}

// eventsAndDelay are a stack's values in a flattened profile; 0, 0: it is not there.
func eventsAndDelay(values string) (v [2]int64) {
	_, _ = fmt.Sscanf(values, "[%d %d]", &v[0], &v[1])
	return v
}

func typesOf(p *profile.Profile) []string {
	list := []string{fmt.Sprint(p.PeriodType.Type, p.PeriodType.Unit, p.Period, p.DefaultSampleType)}
	for _, v := range p.SampleType {
		list = append(list, v.Type+"/"+v.Unit)
	}
	return list
}

// TestContentionDifference: over a time it is what the process counts then, as the difference of two profiles of its own.
func TestContentionDifference(t *testing.T) {
	c := contend(t, testprog.Options{}, "-busy", "-life", "5m")
	k := &keep{}
	m := NewMemory(MemoryConfig{Kinds: []string{KindBlock, KindMutex}, Exporter: k, Difference: true})
	defer m.Close()
	before := c.own(t)
	if err := m.Add(c.PID); err != nil {
		t.Fatal(err)
	}
	first := c.own(t)
	last := c.own(t)
	for sum(last[KindMutex])-sum(first[KindMutex]) < 20 {
		last = c.own(t)
	}
	if err := m.Export(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := c.own(t)
	for kind, p := range kept(k) {
		least, most := sum(last[kind])-sum(first[kind]), sum(after[kind])-sum(before[kind])
		if n := sum(p); n < least || n > most || p.DurationNanos <= 0 {
			t.Errorf("%s: %d events in %v, between %d and %d happened", kind, n, time.Duration(p.DurationNanos), least, most)
		}
		if delay := p.SampleType[1]; delay.Type != "delay" {
			t.Errorf("%s: %v", kind, delay)
		}
	}
	if len(kept(k)) != 2 {
		t.Errorf("%d profiles", len(kept(k)))
	}
}

// sum is how many events there are in a profile.
func sum(p *profile.Profile) (n int64) {
	for _, s := range p.Sample {
		n += s.Value[0]
	}
	return n
}

// TestContentionOff: what a program has not switched on cannot be had, which says what to do; what was counted before it was
// switched off can.
func TestContentionOff(t *testing.T) {
	off := contend(t, testprog.Options{}, "-block", "0", "-mutex", "0")
	was := contend(t, testprog.Options{}, "-off")
	for kind, want := range map[string]error{KindBlock: ErrBlockOff, KindMutex: ErrMutexOff} {
		k := &keep{}
		m := NewMemory(MemoryConfig{Kinds: []string{kind}, Exporter: k})
		if err := m.Add(off.PID); !errors.Is(err, want) {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := m.Read(processOf(t, off.PID), kind, false); !errors.Is(err, want) || !errors.Is(err, ErrNoMemoryProfile) {
			t.Errorf("%s: %v", kind, err)
		}
		if err := m.Add(was.PID); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := m.Export(context.Background()); err != nil {
			t.Error(err)
		}
		// The scale of mutexes up to Go 1.19 is 0 then, as in the process's own profile; this program is newer.
		if p := kept(k)[kind]; sum(p) < 10 {
			t.Errorf("%s: %d events of before it was switched off", kind, sum(p))
		}
		m.cfg.Difference = true
		if err := m.Add(was.PID); !errors.Is(err, want) {
			t.Errorf("%s: %v", kind, err)
		}
		if rates, err := m.WaitRates(was.PID); err != nil || rates != (WaitRates{}) {
			t.Errorf("%+v, %v", rates, err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestWaitRates: the rates are what the program has asked for.
func TestWaitRates(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	defer m.Close()
	for _, want := range []WaitRates{{}, {1, 1}, {10000, 7}, {123456, 0}, {0, 5}} {
		c := contend(t, testprog.Options{}, "-block", fmt.Sprint(want.Block), "-mutex", fmt.Sprint(want.Mutex))
		if got, err := m.WaitRates(c.PID); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
}

// TestReadingsOfContention: what each process counts between two readings adds up; processes that do not count are in that state.
func TestReadingsOfContention(t *testing.T) {
	on := contend(t, testprog.Options{}, "-busy", "-life", "5m")
	off := contend(t, testprog.Options{}, "-block", "0", "-mutex", "0", "-life", "5m")
	r, k := runReadings(t, ReadingsConfig{MemoryConfig: MemoryConfig{Kinds: []string{KindBlock, KindMutex}, Version: "test"}, Interval: time.Second})
	a, b := processOf(t, on.PID), processOf(t, off.PID)
	r.Set([]Process{a, b})
	waitFor(t, func() bool {
		s := r.Stats()
		return s.Readings >= 5 && s.Waits[KindBlock][MemoryOff] == 1 && s.Waits[KindMutex][MemoryOn] == 1
	})
	r.Set([]Process{b})
	if s := r.Stats(); s.Failed != 0 || s.Sites == 0 || len(s.States) != 0 {
		t.Errorf("%+v", s)
	}
	waitFor(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.kept == 0 })
	k.mu.Lock()
	defer k.mu.Unlock()
	last := map[string]time.Time{}
	for _, p := range k.profiles {
		if p.PID != on.PID || p.StartTicks != a.Start || p.Service != "someone" || sum(p.Data) == 0 || p.Duration <= 0 {
			t.Errorf("%s of process %d: %d events in %v", p.Kind, p.PID, sum(p.Data), p.Duration)
		}
		if at := last[p.Kind]; !at.IsZero() && !p.Start.Equal(at) {
			t.Errorf("%s from %v, the one before to %v", p.Kind, p.Start, at)
		}
		last[p.Kind] = p.Start.Add(p.Duration)
	}
	if kinds := []string{KindBlock, KindMutex}; len(last) != 2 || last[kinds[0]].IsZero() || last[kinds[1]].IsZero() || !slices.Equal(r.cfg.Kinds, kinds) {
		t.Errorf("profiles of %v", last)
	}
}

// TestReadingsOfGoroutines: each goroutine of a process is in each of its profiles.
func TestReadingsOfGoroutines(t *testing.T) {
	proc := contend(t, testprog.Options{}, "-life", "5m")
	r, k := runReadings(t, ReadingsConfig{MemoryConfig: MemoryConfig{Kinds: []string{KindGoroutine}, Version: "test"}, Interval: time.Second})
	p := processOf(t, proc.PID)
	r.Set([]Process{p})
	waitFor(t, func() bool { return r.Stats().Readings >= 2 })
	r.Set(nil)
	if s := r.Stats(); s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, got := range k.profiles {
		if got.Kind != KindGoroutine || got.PID != proc.PID || got.StartTicks != p.Start || got.Service != "someone" || got.Duration != 0 || sum(got.Data) != 2 {
			t.Errorf("%s of process %d: %d goroutines", got.Kind, got.PID, sum(got.Data))
		}
	}
}
