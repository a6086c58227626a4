package profiler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sync/errgroup"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

// sharer is a running program that knows how its goroutines spend their time.
type sharer struct {
	*testprog.Proc
	in *os.File
}

// sharers is how many goroutines of the program shares do what is known.
const sharers = 4

func shares(t testing.TB, o testprog.Options, args ...string) *sharer {
	t.Helper()
	path := testprog.Build(t, "shares", o)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	return &sharer{testprog.StartWith(t, testprog.StartOptions{Stdin: in}, path, args...), out}
}

// spent is how it has spent its time until now, ns by what for.
func (s *sharer) spent(t testing.TB, name string) map[string]int64 {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, name); err != nil {
		t.Fatal(err)
	}
	line := s.WaitLine(t, "mark "+name+" ", time.Minute)
	var m map[string]int64
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "mark "+name+" ")), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// wallOf records for so long, and returns the wall profile and the CPU profile.
func wallOf(t testing.TB, c WallConfig, d time.Duration, pids ...int) (wall, cpu *profile.Profile) {
	t.Helper()
	all := wallsOf(t, c, d, pids...)
	return all[KindWall], all[KindCPU]
}

func wallsOf(t testing.TB, c WallConfig, d time.Duration, pids ...int) map[string]*profile.Profile {
	t.Helper()
	k := &keep{}
	c.Exporter = k
	w := NewWall(c)
	defer w.Close()
	for _, pid := range pids {
		if err := w.Add(pid); err != nil {
			t.Fatal(err)
		}
	}
	run := []func(context.Context) error{w.Run}
	if w.Running() {
		p, err := New(Config{Exporter: w.CPU(k), Merge: c.Merge})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for _, pid := range pids {
			if err := p.Add(pid); err != nil {
				t.Fatal(err)
			}
		}
		run = append(run, p.Run)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d) // not before: loading programs may take seconds
	defer cancel()
	var g errgroup.Group
	for _, f := range run {
		g.Go(func() error { return f(ctx) })
	}
	if err := errors.Join(g.Wait(), w.Export(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, note := range w.Notes() {
		t.Log(note)
	}
	return kept(k)
}

// wallTime is that of all samples that are wanted.
func wallTime(p *profile.Profile, want func(*profile.Sample) bool) (sum time.Duration) {
	for _, s := range p.Sample {
		if want(s) {
			sum += time.Duration(s.Value[len(s.Value)-1])
		}
	}
	return sum
}

// below says whether a sample has a function in its stack.
func below(name string) func(*profile.Sample) bool {
	return func(s *profile.Sample) bool {
		return slices.ContainsFunc(s.Location, func(l *profile.Location) bool {
			return slices.ContainsFunc(l.Line, func(l profile.Line) bool { return l.Function.Name == name })
		})
	}
}

func everything(*profile.Sample) bool { return true }

// has says whether a sample has a label.
func has(s *profile.Sample, key, value string) bool { return slices.Contains(s.Label[key], value) }

// TestWallShares: of goroutines that wait for a channel and for a mutex and compute, the profile has shares as they know them themselves, whatever
// their rhythm; what waits has the runtime's reason; and what computes is what the CPU profile has.
func TestWallShares(t *testing.T) {
	needs.BPF(t)
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			p := shares(t, testprog.Options{Go: version})
			const hz, seconds, enough, most = 197, 10, 500, 180
			before := p.spent(t, "before")
			wall, cpu := wallOf(t, WallConfig{Frequency: hz}, seconds*time.Second, p.PID)
			if n := snapshotsOf(t, wall); n < enough { // a slow machine: chance alone would be more than what is asked for
				before = p.spent(t, "again")
				wall, cpu = wallOf(t, WallConfig{Frequency: hz}, time.Duration(min(seconds*enough/(n+1), most))*time.Second, p.PID)
			}
			checkShares(t, wall, before, p.spent(t, "after"))
			for function, reasons := range map[string][]string{"receive": {"chan receive"}, "lock": {"sync.Mutex.Lock", "semacquire"}} {
				in := below("main.(*worker)." + function)
				for _, s := range wall.Sample {
					if in(s) && has(s, "state", "waiting") && !has(s, "reason", reasons[0]) && !has(s, "reason", reasons[len(reasons)-1]) {
						t.Errorf("%s waits for %v", function, s.Label)
					}
				}
			}
			running := wallTime(wall, func(s *profile.Sample) bool { return has(s, "state", "running") && !below(noCPUFrame)(s) })
			if want := wallTime(cpu, everything); running != want || want == 0 {
				t.Errorf("running %v, CPU profile %v", running, want)
			}
		})
	}
}

// snapshotsOf is how many there were, by what a profile says.
func snapshotsOf(t *testing.T, wall *profile.Profile) (n int) {
	t.Helper()
	for _, c := range wall.Comments {
		if _, err := fmt.Sscanf(c, "goroutines that do not run: %d snapshots", &n); err == nil {
			return n
		}
	}
	t.Fatalf("no number of snapshots in %q", wall.Comments)
	return 0
}

// checkShares compares with what a program of shares says, to 3 points, at once: of 7,880 looks at goroutines, were they independent, that would be 5
// deviations of a share of a half.
func checkShares(t *testing.T, wall *profile.Profile, before, after map[string]int64) {
	t.Helper()
	d := float64(wall.DurationNanos) * sharers
	truth := func(what string) float64 {
		return 100 * float64(after[what]-before[what]) /
			float64(after["receive"]-before["receive"]+after["lock"]-before["lock"]+after["compute"]-before["compute"])
	}
	got := func(functions ...string) (sum float64) {
		for _, f := range functions {
			sum += 100 * float64(wallTime(wall, below(f))) / d
		}
		return sum
	}
	t.Log(strings.Join(wall.Comments, "; "))
	lock, compute := got("main.(*worker).lock"), got("main.(*worker).compute")
	for what, share := range map[string]float64{
		"receive": got("main.(*worker).run") - lock - compute, "lock": lock, "compute": compute + got(noCPUFrame), // until it is told what to do next it receives, too
	} {
		t.Logf("%s: %.1f %%, in truth %.1f %%", what, share, truth(what))
		if math.Abs(share-truth(what)) > 3 {
			t.Errorf("%s: %.1f %%, want %.1f %%", what, share, truth(what))
		}
	}
	on := wallTime(wall, func(s *profile.Sample) bool {
		return below("main.(*worker).compute")(s) && has(s, stateLabel, "running")
	})
	if cpu, share := truth("cpu"), 100*float64(on)/d; math.Abs(cpu-share) > 3 {
		t.Errorf("CPU time of computing: %.1f %%, want %.1f %%", share, cpu)
	}
}

// TestWallChoice: who asks for what waits for a reason gets nothing else, and nothing is sampled by the kernel for it.
func TestWallChoice(t *testing.T) {
	p := shares(t, testprog.Options{}, "-idle", "2000")
	c := WallConfig{States: []string{"waiting"}, Reasons: []string{"chan receive"}}
	if NewWall(c).Running() {
		t.Error("it wants what runs")
	}
	wall, cpu := wallOf(t, c, 2*time.Second, p.PID)
	if cpu != nil {
		t.Error("there is a CPU profile")
	}
	for _, s := range wall.Sample {
		if !has(s, "state", "waiting") || !has(s, "reason", "chan receive") {
			t.Errorf("sample of %v", s.Label)
		}
	}
	// The slots of the snapshots are all of the time, so that what always waits has all of it.
	idle := wallTime(wall, below("main.rest"))
	if want := 2000 * time.Duration(wall.DurationNanos); idle < want-time.Millisecond || idle > want+time.Millisecond {
		t.Errorf("2000 idle goroutines: %v of %v", idle, want)
	}
	if types := wall.SampleType; types[0].Type != "samples" || types[0].Unit != "count" || types[1].Type != "wall" || types[1].Unit != "nanoseconds" {
		t.Errorf("types %v", types)
	}
}

// TestWallMerge: two processes in one profile are told apart by labels, with the CPU profile of both.
func TestWallMerge(t *testing.T) {
	needs.BPF(t)
	a, b := shares(t, testprog.Options{}), shares(t, testprog.Options{Go: "1.23.12"})
	wall, cpu := wallOf(t, WallConfig{Merge: true}, 3*time.Second, a.PID, b.PID)
	compute := below("main.(*worker).compute")
	running := func(s *profile.Sample) bool { return compute(s) && has(s, "state", "running") }
	if got, want := wallTime(wall, running), wallTime(cpu, compute); got != want || want == 0 {
		t.Errorf("computing: %v, CPU profile: %v", got, want)
	}
	for _, p := range []*sharer{a, b} {
		for _, state := range []string{"waiting", "running"} {
			if wallTime(wall, func(s *profile.Sample) bool { return has(s, "pid", fmt.Sprint(p.PID)) && has(s, "state", state) }) == 0 {
				t.Errorf("nothing of process %d %s", p.PID, state)
			}
		}
	}
}

// TestWallEnds: a process that ends has the profile of its time.
func TestWallEnds(t *testing.T) {
	p := shares(t, testprog.Options{})
	k := &keep{}
	w := NewWall(WallConfig{States: []string{"waiting"}, Exporter: k})
	defer w.Close()
	if err := w.Add(p.PID); err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(500 * time.Millisecond)
		p.Stop()
	}()
	if err := w.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Export(t.Context()); err != nil {
		t.Fatal(err)
	}
	wall := kept(k)[KindWall]
	d := time.Duration(wall.DurationNanos)
	if d < 500*time.Millisecond || wallTime(wall, below("main.(*worker).run")) > sharers*d {
		t.Errorf("%v of %v", wallTime(wall, below("main.(*worker).run")), d)
	}
	if notes := w.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "exited") {
		t.Errorf("notes %q", notes)
	}
}

// TestWallEstimate: delays by function are what the runtime counts of itself: of a program whose profiles are on, which Wall is not told.
func TestWallEstimate(t *testing.T) {
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			dir := t.TempDir()
			p := shares(t, testprog.Options{Go: version}, "-rate", "1", "-dir", dir, "-idle", "10")
			k := &keep{}
			w := NewWall(WallConfig{Exporter: k, Frequency: 97})
			defer w.Close()
			if err := errors.Join(w.Estimate(p.PID, KindBlock), w.Estimate(p.PID, KindMutex)); err != nil {
				t.Fatal(err)
			}
			p.spent(t, "before")
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			if err := w.Run(ctx); err != nil {
				t.Fatal(err)
			}
			p.spent(t, "after")
			if err := w.Export(t.Context()); err != nil {
				t.Fatal(err)
			}
			for kind, all := range map[string]map[string]string{
				KindBlock: {"main.(*worker).receive": "main.(*worker).receive", "main.(*worker).lock": "main.(*worker).lock"},
				KindMutex: {"main.(*worker).lock": "main.(*worker).partner"}, // who waits, who unlocks
			} {
				estimate, own := kept(k)[kind], ownSince(t, dir, kind)
				for ours, its := range all {
					got, want := wallTime(estimate, below(ours)), wallTime(own, below(its))
					t.Logf("%s in %s: %v, in truth %v", kind, ours, got, want)
					if bias := float64(got)/float64(want) - 1; math.Abs(bias) > 0.15 {
						t.Errorf("%s in %s: %v, the runtime counts %v", kind, ours, got, want)
					}
				}
				if types := estimate.SampleType; types[0].Type != "contentions" || types[1].Type != "delay" || !strings.Contains(strings.Join(estimate.Comments, " "), "estimate") {
					t.Errorf("types %v, comments %q", types, estimate.Comments)
				}
				if wallTime(estimate, below("main.rest")) != 0 {
					t.Errorf("%s: idle goroutines count", kind)
				}
			}
		})
	}
}

// ownSince is what the program's own profile says of the time between its marks before and after.
func ownSince(t *testing.T, dir, kind string) *profile.Profile {
	t.Helper()
	before, after := readProfile(t, filepath.Join(dir, "before."+kind)), readProfile(t, filepath.Join(dir, "after."+kind))
	before.Scale(-1)
	p, err := profile.Merge([]*profile.Profile{after, before})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stuck is memory that does not answer until it is let go.
type stuck struct {
	goruntime.Memory
	letGo chan struct{}
}

func (m stuck) ReadAt([]byte, int64) (int, error) {
	<-m.letGo
	return 0, errors.New("too late")
}

// TestWallStalls: memory that somebody else would have to serve, and does not, ends Run.
func TestWallStalls(t *testing.T) {
	p := shares(t, testprog.Options{})
	w := NewWall(WallConfig{Exporter: &keep{}, Frequency: 1000})
	w.patience = 100 * time.Millisecond
	if err := w.Add(p.PID); err != nil {
		t.Fatal(err)
	}
	space, letGo := w.targets[0].g.space, make(chan struct{})
	w.targets[0].g.mem = watched{stuck{w.targets[0].g.mem, letGo}, w.reading}
	if err := w.Run(t.Context()); !errors.Is(err, objfile.ErrTooCostly) {
		t.Errorf("error %v", err)
	}
	if err := errors.Join(w.Export(t.Context()), w.Close()); err != nil {
		t.Error(err)
	}
	close(letGo)
	w.ended.Wait()
	if err := space.Close(); err != nil {
		t.Error(err)
	}
}
