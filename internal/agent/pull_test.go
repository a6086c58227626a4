package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/profiler"
)

// shared is a sharing whose profiler samples often, in windows as short as given.
func shared(t *testing.T, most int64, window time.Duration) *sharing {
	t.Helper()
	needs.BPF(t)
	s := newSharing(&budget{most: most}, func(out export.Exporter) (*profiler.Profiler, error) {
		return profiler.New(profiler.Config{Frequency: 499, NoKernel: true, Window: window, NoEmpty: true, Exporter: out})
	})
	t.Cleanup(func() {
		if s.now != nil || len(s.wanted) > 0 || len(s.clients) > 0 || s.budget.used.Load() != 0 {
			t.Errorf("something is left: %+v, %d processes, %d clients, %d bytes", s.now, len(s.wanted), len(s.clients), s.budget.used.Load())
		}
	})
	return s
}

// spinning is a process that uses CPU time.
func spinning(t *testing.T) profiler.Process {
	t.Helper()
	return process(t, testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=1", "-seconds=120").PID)
}

func process(t *testing.T, pid int) profiler.Process {
	t.Helper()
	start, err := procfs.New("/proc").Proc(pid).StartTime()
	if err != nil {
		t.Fatal(err)
	}
	return profiler.Process{PID: pid, Start: start}
}

func cpuOf(t *testing.T, got *interval) (sum time.Duration, samples int64) {
	t.Helper()
	p, err := got.profile()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Sample {
		sum, samples = sum+time.Duration(s.Value[1]), samples+s.Value[0]
	}
	said := slices.DeleteFunc(slices.Clone(p.Comments), func(c string) bool { return !strings.HasPrefix(c, "samples recorded ") })
	if want := fmt.Sprintf("samples recorded %d, lost 0", samples); len(said) != 1 || said[0] != want {
		t.Errorf("it says %q, want %q", said, want)
	}
	return sum, samples
}

// used is what the threads of a process have used so far.
func used(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range list {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(b), &ns); err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// TestSharingMerges: whoever waits for long holds few profiles, and loses nothing of the many windows that others have cut.
func TestSharingMerges(t *testing.T) {
	s := shared(t, 1<<30, 20*time.Millisecond)
	p := spinning(t)
	before := used(t, p.PID)
	got, err := s.sample(t.Context(), []profiler.Process{p}, 4*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	most := used(t, p.PID) - before
	cpu, _ := cpuOf(t, got)
	if len(got.parts) > 2*maxPieces || float64(cpu) < 0.6*float64(most) || float64(cpu) > 1.15*float64(most) {
		t.Errorf("%v in %d parts, of %v", cpu, len(got.parts), most)
	}
	if d := got.to.Sub(got.from); d < 4*time.Second || d > 5*time.Second {
		t.Errorf("interval %v", d)
	}
}

// TestSharingBudget: a client whose profile takes too much is told to come again, and the others get theirs.
func TestSharingBudget(t *testing.T) {
	s := shared(t, 1, 100*time.Millisecond)
	_, err := s.sample(t.Context(), []profiler.Process{spinning(t)}, time.Minute)
	if e := (*pprofhttp.Error)(nil); !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || e.After == 0 {
		t.Errorf("error %v", err)
	}
}

// TestSharingGone: a process that is none, or has ended, is an error, unless there is another that runs.
func TestSharingGone(t *testing.T) {
	s := shared(t, 1<<30, time.Second)
	p := spinning(t)
	for _, gone := range []profiler.Process{{PID: p.PID, Start: p.Start - 1}, {PID: 1 << 30, Start: 1}} {
		if _, err := s.sample(t.Context(), []profiler.Process{gone}, time.Second); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: %v", gone, err)
		}
		got, err := s.sample(t.Context(), []profiler.Process{gone, p}, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, n := cpuOf(t, got); n == 0 {
			t.Error("no samples of the other")
		}
	}
}

// TestSharingOfAReusedPID: who wants a process that has ended does not have another one sampled that has its PID by now, and does not
// end the sampling of that for those who want it.
func TestSharingOfAReusedPID(t *testing.T) {
	s := shared(t, 1<<30, time.Second)
	p, other := spinning(t), spinning(t)
	gone := profiler.Process{PID: p.PID, Start: p.Start - 1}
	join := func(procs ...profiler.Process) {
		c, err := s.join(procs)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.leave(c) })
	}
	if join(gone, other); s.now.runs(p) {
		t.Error("a process is sampled that nobody wants")
	}
	join(p)
	if join(gone, other); !s.now.runs(p) || !s.now.runs(other) {
		t.Error("a process is not sampled any more that somebody wants")
	}
}

// TestSharingBreaks: when sampling fails, those who wait for it are told why, and who comes then is given a new one.
func TestSharingBreaks(t *testing.T) {
	s := shared(t, 1<<30, time.Second)
	good := s.open
	broken := true
	s.open = func(out export.Exporter) (*profiler.Profiler, error) {
		if !broken {
			return good(out)
		}
		return profiler.New(profiler.Config{Window: time.Second, Exporter: out, Source: bpf.NewReplay(bytes.NewReader([]byte("\xff\xff\xff\xff\xff")))})
	}
	p := []profiler.Process{spinning(t)}
	if _, err := s.sample(t.Context(), p, time.Minute); !errors.Is(err, bpf.ErrMalformed) {
		t.Errorf("error %v", err)
	}
	broken = false
	if got, err := s.sample(t.Context(), p, time.Second); err != nil || len(got.parts) == 0 {
		t.Errorf("after that: %v", err)
	}
	s.open = func(export.Exporter) (*profiler.Profiler, error) { return nil, os.ErrPermission }
	if _, err := s.sample(t.Context(), p, time.Second); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v", err)
	}
}

// TestSharingTellsWhyItBroke: who is told that sampling has ended before it is known why waits for that.
func TestSharingTellsWhyItBroke(t *testing.T) {
	c := &client{of: &sampling{ended: make(chan struct{})}}
	go func() {
		time.Sleep(10 * time.Millisecond)
		c.of.err = bpf.ErrMalformed
		close(c.of.ended)
	}()
	if err := c.died(profiler.ErrEnded); !errors.Is(err, bpf.ErrMalformed) {
		t.Errorf("error %v", err)
	}
}

// testPuller is one of an agent that profiles what lies in a directory.
func testPuller(t *testing.T, dir string) *puller {
	t.Helper()
	needs.BPF(t)
	sel, err := discover.ParseSelector("exe=" + dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	d, err := discover.New(discover.Config{Select: []discover.Selector{sel}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{o: Options{ProcRoot: "/proc", Version: "test"}, log: log, discovery: d}
	c := new(config.Config)
	c.MaxTargets = 100
	u := a.newPuller(c)
	t.Cleanup(u.stop)
	return u
}

// TestPullsAreBounded: there is a most of requests at a time; at the end nobody is left, and nobody comes any more.
func TestPullsAreBounded(t *testing.T) {
	u := testPuller(t, t.TempDir())
	var leave []func()
	for range maxPulls {
		f, err := u.enter()
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, f)
	}
	var e *pprofhttp.Error
	if _, err := u.Profile(t.Context(), pprofhttp.Request{PID: 1, Kind: "heap"}); !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
		t.Errorf("one more: %v", err)
	}
	stopped := make(chan struct{})
	go func() {
		u.stop()
		close(stopped)
	}()
	for _, f := range leave[1:] {
		f()
	}
	select {
	case <-stopped:
		t.Error("it has ended before the last request")
	case <-time.After(50 * time.Millisecond):
	}
	leave[0]()
	<-stopped
	if _, err := u.Profile(t.Context(), pprofhttp.Request{PID: 1, Kind: "heap"}); !errors.Is(err, errEnding) {
		t.Errorf("after the end: %v", err)
	}
}

// TestPullOfNewProcess: a process is known at once, and so is that another one has its PID; its profile without samples names it.
func TestPullOfNewProcess(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile(testprog.Build(t, "heap", testprog.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/heap", b, 0o700); err != nil {
		t.Fatal(err)
	}
	u := testPuller(t, dir)
	proc := testprog.Start(t, dir+"/heap", "-quiet")
	for _, kind := range []string{"heap", "profile"} {
		p, err := u.Profile(t.Context(), pprofhttp.Request{PID: proc.PID, Kind: kind, Duration: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.CheckValid(); err != nil || len(p.Mapping) == 0 || !strings.HasSuffix(p.Mapping[0].File, "/heap") || p.DurationNanos < int64(time.Second) {
			t.Errorf("%s: %v\n%v", kind, err, p)
		}
	}
	if list := u.Processes(); !slices.ContainsFunc(list, func(p pprofhttp.Process) bool { return p.PID == proc.PID && p.Service == "heap" }) {
		t.Errorf("processes %v", list)
	}
	u.budget.most = 1
	var e *pprofhttp.Error
	if _, err := u.Profile(t.Context(), pprofhttp.Request{Service: "heap", Kind: "allocs"}); !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
		t.Errorf("more than there is room for: %v", err)
	}
	u.budget.most = maxPullBytes
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := u.Profile(ctx, pprofhttp.Request{PID: proc.PID, Kind: "heap", Duration: time.Minute}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a client that has gone: %v", err)
	}
	if n := u.budget.used.Load(); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
	proc.Stop()
	if _, err := u.Profile(t.Context(), pprofhttp.Request{PID: proc.PID, Kind: "heap"}); !errors.As(err, &e) || e.Status != http.StatusNotFound {
		t.Errorf("after its end: %v", err)
	}
}

// TestDifference: of several processes those count that were read twice.
func TestDifference(t *testing.T) {
	of := func(n int64) *profile.Profile {
		f := &profile.Function{ID: 1, Name: "f"}
		l := &profile.Location{ID: 1, Line: []profile.Line{{Function: f}}}
		return &profile.Profile{
			SampleType: []*profile.ValueType{{Type: "alloc_objects", Unit: "count"}}, PeriodType: &profile.ValueType{Type: "space", Unit: "bytes"},
			Period: 1, TimeNanos: 100 * n, Function: []*profile.Function{f}, Location: []*profile.Location{l},
			Sample: []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{n}}},
		}
	}
	a, b, c := profiler.Process{PID: 1}, profiler.Process{PID: 2}, profiler.Process{PID: 3}
	reads := func(m map[profiler.Process]*profile.Profile) *readings { return &readings{of: m} }
	type m = map[profiler.Process]*profile.Profile
	p, err := difference(reads(m{a: of(1), b: of(10)}), reads(m{b: of(15), c: of(100)}))
	if err != nil || len(p.Sample) != 1 || p.Sample[0].Value[0] != 5 || p.TimeNanos != 1500 || p.DurationNanos != 500 {
		t.Errorf("%v, %v", err, p)
	}
	if _, err := difference(reads(m{a: of(1)}), reads(m{c: of(1)})); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing in common: %v", err)
	}
}
