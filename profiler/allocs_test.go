package profiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

// allocTruth is what the program alloc says of itself.
type allocTruth struct {
	total int64            // of /gc/heap/allocs:bytes
	sites map[string]int64 // bytes by function
	took  time.Duration
}

// allocRound probes proc while it allocates once, and returns the profile and the truth.
func allocRound(t *testing.T, c Config, proc *testprog.Proc) (*profile.Profile, allocTruth, Stats) {
	t.Helper()
	c.Kind = KindAllocs
	c.AllocBudget = -1 // a moment's allocations are to be seen as a whole
	p, k := start(t, c)
	if err := p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	waitAttached(t, p)
	truth := allocate(t, proc)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return only(t, k), truth, p.Stats()
}

// waitAttached waits until all targets are probed.
func waitAttached(t *testing.T, p *Profiler) {
	t.Helper()
	for late := time.Now().Add(time.Minute); time.Now().Before(late); time.Sleep(10 * time.Millisecond) {
		p.turn.Lock()
		n := 0
		for _, tg := range p.targets {
			if tg.alloc != nil && tg.alloc.attached != nil {
				n++
			}
		}
		all := n > 0 && n == len(p.targets)
		p.turn.Unlock()
		if all {
			return
		}
	}
	t.Fatal("no target is probed within a minute")
}

// allocate makes proc, which must not have done so before, allocate once.
func allocate(t *testing.T, proc *testprog.Proc) allocTruth {
	t.Helper()
	return allocateFor(t, proc, time.Minute)
}

// allocateFor waits for so long at most.
func allocateFor(t *testing.T, proc *testprog.Proc, most time.Duration) (truth allocTruth) {
	t.Helper()
	if err := syscall.Kill(proc.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	proc.WaitLine(t, "done", most)
	truth.sites = make(map[string]int64)
	for _, line := range proc.Lines() {
		var name string
		var n, bytes int64
		if k, _ := fmt.Sscanf(line, "site %s %d %d", &name, &n, &bytes); k == 3 {
			truth.sites[name] = bytes
		}
		if k, _ := fmt.Sscanf(line, "allocated %d %d", &n, &bytes); k == 2 {
			truth.total, truth.took = n, time.Duration(bytes)
		}
	}
	if truth.total == 0 || len(truth.sites) == 0 {
		t.Fatalf("the program tells nothing: %q", proc.Lines())
	}
	return truth
}

// leaves adds up bytes by the function that allocated.
func leaves(p *profile.Profile) (bytes map[string]int64, total int64) {
	bytes = make(map[string]int64)
	for _, s := range p.Sample {
		bytes[s.Location[0].Line[0].Function.Name] += s.Value[1]
		total += s.Value[1]
	}
	return bytes, total
}

// checkAllocs compares sums within 2 percent and shares within 5 points.
func checkAllocs(t *testing.T, p *profile.Profile, want allocTruth) {
	t.Helper()
	got, total := leaves(p)
	compareAllocs(t, got, total, want)
}

func compareAllocs(t *testing.T, got map[string]int64, total int64, want allocTruth) {
	t.Helper()
	const points = 5
	if d := math.Abs(float64(total-want.total)) / float64(want.total); d > 0.02 {
		t.Errorf("%d bytes in all, want %d: off by %.2f %%", total, want.total, 100*d)
	}
	sum := int64(0)
	for _, bytes := range want.sites {
		sum += bytes
	}
	for name, bytes := range want.sites {
		is, be := 100*float64(got[name])/float64(total), 100*float64(bytes)/float64(sum)
		if math.Abs(is-be) > points {
			t.Errorf("%s has %.1f %% of the bytes, want %.1f", name, is, be)
		}
	}
	if t.Failed() {
		t.Logf("profile %v\nprogram %v", got, want.sites)
	}
}

// TestProbedAllocs: sums are exact and shares right, for programs of all versions and kinds that are linked without memory
// profiling.
func TestProbedAllocs(t *testing.T) {
	type test struct {
		o    testprog.Options
		args []string
		c    Config
	}
	race := []string{"-race"}
	all := map[string]test{
		"random":               {},
		"stripped PIE":         {o: testprog.Options{Strip: true, PIE: true}},
		"cgo":                  {o: testprog.Options{Cgo: true}},
		"race":                 {o: testprog.Options{Cgo: true, Flags: race}, args: []string{"-mb", "200"}},
		"one size":             {args: []string{"-mode", "same"}},
		"bursts":               {args: []string{"-mode", "bursts"}},
		"large objects":        {args: []string{"-mode", "large"}},
		"tiny objects":         {args: []string{"-mode", "tiny", "-mb", "50"}},
		"many threads":         {args: []string{"-workers", "64"}},
		"no collections":       {args: []string{"-gc", "-1", "-mb", "1000"}},
		"perf events":          {c: Config{noMulti: true}},
		"a stack every 64 KiB": {c: Config{AllocInterval: 64 << 10}},
	}
	for _, version := range testprog.Versions() {
		for name, tt := range all {
			if version != "" && name != "random" && name != "stripped PIE" && os.Getenv("PPROFD_FULL") != "1" {
				continue
			}
			t.Run("go"+version+" "+name, func(t *testing.T) {
				needs.BPF(t)
				tt.o.Go = version
				c, mb := tt.c, "600"
				if testprog.Emulated() { // the same number of samples for a quarter of the hits
					c.AllocInterval, mb = cmp.Or(c.AllocInterval, bpf.DefaultAllocInterval/4), "150"
				}
				args := append([]string{"-mb", mb}, tt.args...)
				proc := testprog.Start(t, testprog.Build(t, "alloc", tt.o), args...)
				p, want, stats := allocRound(t, c, proc)
				t.Logf("%d MB in %v, %d samples", want.total>>20, want.took.Round(time.Millisecond), stats.Recorded)
				if strings.Contains(name, "tiny") {
					for site := range want.sites {
						want.sites[site] = want.total
					}
				}
				checkAllocs(t, p, want)
				bound := uint64(0)
				if tt.c.AllocInterval != 0 { // ten times what the ring buffer holds: a reader that gets no CPU may lose some
					bound = stats.Recorded / 20
				}
				if stats.Lost > bound || stats.Broken > 0 || stats.Truncated > 0 {
					t.Errorf("%+v", stats)
				}
			})
		}
	}
}

// TestAliasing measures what cannot be quite right: functions that take turns in allocating objects of one size, so that the
// same one may be met at each hit of a probe. Sums are exact all the same, and all goes to those who take turns; of two each has
// about half.
func TestAliasing(t *testing.T) {
	for _, version := range []string{"1.22.12", "1.24.13", ""} {
		for _, mode := range []string{"alternate", "three"} {
			for _, gc := range []string{"100", "-1"} {
				t.Run("go"+version+" "+mode+" GOGC "+gc, func(t *testing.T) {
					proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{Go: version}), "-mb", "600", "-mode", mode, "-gc", gc)
					p, want, _ := allocRound(t, Config{}, proc)
					checkTurns(t, p, want)
				})
			}
		}
	}
}

func checkTurns(t *testing.T, p *profile.Profile, want allocTruth) {
	t.Helper()
	got, total := leaves(p)
	turns := int64(0)
	for name := range want.sites {
		share := 100 * float64(got[name]) / float64(total)
		t.Logf("%s: %.1f %%", name, share)
		if len(want.sites) == 2 && math.Abs(share-50) > 15 {
			t.Errorf("%s has %.1f %% of what two share", name, share)
		}
		turns += got[name]
	}
	if d := math.Abs(float64(total-want.total)) / float64(want.total); d > 0.02 || turns < total*98/100 {
		t.Errorf("%d bytes, %d of those who take turns, want %d", total, turns, want.total)
	}
}

// TestProbedAllocsBySizeClass: objects and bytes by the size of objects are those of the program.
func TestProbedAllocsBySizeClass(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-mb", "300")
	p, want, _ := allocRound(t, Config{}, proc)
	objects, bytes := map[int64]int64{}, map[int64]int64{}
	for _, s := range p.Sample {
		if n := s.NumLabel["bytes"]; n != nil {
			objects[n[0]] += s.Value[0]
			bytes[n[0]] += s.Value[1]
		}
	}
	for name, w := range want.sites {
		var size int64
		if _, err := fmt.Sscanf(name, "main.site%d", &size); err != nil {
			t.Fatal(err)
		}
		if size == 1024 { // with pointers, that is 8 more for a header (runtime/malloc.go: heapBitsInSpan)
			size, w = 1152, w/1024*1152
		}
		if got := bytes[size]; got < w*9/10 || got > w*11/10+1<<20 {
			t.Errorf("%d bytes in objects of %d, want %d", got, size, w)
		}
		if got := objects[size] * size; got < bytes[size]*99/100 || got > bytes[size]*101/100 {
			t.Errorf("%d objects of %d bytes are not %d bytes", objects[size], size, bytes[size])
		}
	}
}

// TestProbedAllocsOfSpecializedMalloc: the experiment whose compiled code calls an allocator of the size, not mallocgc.
func TestProbedAllocsOfSpecializedMalloc(t *testing.T) {
	t.Setenv("GOEXPERIMENT", "sizespecializedmalloc")
	proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-mb", "600")
	p, want, _ := allocRound(t, Config{}, proc)
	checkAllocs(t, p, want)
}

// TestProbedAllocsOfPGO: a program that was built with a profile of itself, so that the compiler inlines parts of the allocator into
// others, here and not there. What it does depends on a few samples; profiles in which one path only is hot make it do more of it.
// Either the profile of what was allocated is right, or it is refused, since there is nowhere to see it.
func TestProbedAllocsOfPGO(t *testing.T) {
	versions, paths := []string{"1.24.13"}, []string{"", "allocLarge", "nextFree"}
	if os.Getenv("PPROFD_FULL") == "1" {
		paths = append(paths, "refill", "mallocgcTiny", "mallocgcSmallNoscan", "mallocgcSmallScanNoHeader", "mallocgc")
		versions = []string{"1.21.13", "1.22.12", "1.23.12", "1.24.13", "1.25.7", "", "1.27.4"}
	}
	for _, version := range versions {
		o := testprog.Options{Go: version}
		plain := testprog.Start(t, testprog.Build(t, "alloc", o), "-now", "-mode", "large")
		large, _ := sample(t, Config{Frequency: 499, NoKernel: true}, plain.PID, 2*time.Second)
		plain.Stop()
		plain = testprog.Start(t, testprog.Build(t, "alloc", o), "-now")
		small, _ := sample(t, Config{Frequency: 499, NoKernel: true}, plain.PID, 3*time.Second)
		plain.Stop()
		merged, err := profile.Merge([]*profile.Profile{large, small})
		if err != nil {
			t.Fatal(err)
		}
		probed := 0
		for _, hot := range paths {
			t.Run(cmp.Or(hot, "all")+" go"+version, func(t *testing.T) {
				p := hotPath(merged, hot)
				if len(p.Sample) > 0 && testPGO(t, o, p, hot == "allocLarge") { // not all versions have all functions
					probed++
				}
			})
		}
		if probed < 2 {
			t.Errorf("go%s: %d programs could be probed", version, probed)
		}
	}
}

// hotPath is what p has seen of a function and its callers: what it calls is none of it.
func hotPath(p *profile.Profile, name string) *profile.Profile {
	p = p.Copy()
	if name == "" {
		return p
	}
	p.Sample = slices.DeleteFunc(p.Sample, func(s *profile.Sample) bool {
		at := slices.IndexFunc(s.Location, func(l *profile.Location) bool {
			return slices.ContainsFunc(l.Line, func(line profile.Line) bool {
				_, last, ok := strings.Cut(line.Function.Name, "runtime.")
				return ok && (last == name || last == "(*mcache)."+name)
			})
		})
		if at >= 0 {
			s.Location = s.Location[at:]
		}
		return at < 0
	})
	return p.Compact()
}

// testPGO builds the program with a profile, and compares what is seen of it. Where that is refused it is not probed.
func testPGO(t *testing.T, o testprog.Options, p *profile.Profile, large bool) (probed bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "default.pgo")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Write(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	o.Flags = []string{"-pgo=" + file}
	args := []string{"-mb", "600"}
	if large {
		args = []string{"-mb", "1200", "-mode", "large"}
	}
	proc := testprog.Start(t, testprog.Build(t, "alloc", o), args...)
	probes, _ := start(t, Config{Kind: KindAllocs})
	switch err := probes.Add(proc.PID); {
	case errors.Is(err, goruntime.ErrNoAllocSites) && strings.Contains(err.Error(), "the compiler has inlined"):
		t.Log(err)
		return false
	case err != nil:
		t.Fatal(err)
	}
	for _, site := range probes.targets[uint32(proc.PID)].alloc.sites.Heap {
		t.Logf("probed: %v", site.Func)
	}
	got, want, _ := allocRound(t, Config{}, proc)
	checkAllocs(t, got, want)
	return true
}

// TestProbedSamplesOfTheRuntime: where the runtime samples, its samples are taken, at its rate, with goroutine and labels.
func TestProbedSamplesOfTheRuntime(t *testing.T) {
	busy := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-busy")
	r := runAllocs(t, Config{Goid: true}, busy.PID)
	time.Sleep(time.Second)
	r.end(t)
	p := only(t, r.k)
	if !strings.Contains(strings.Join(p.Comments, "\n"), "one in 512 bytes") {
		t.Errorf("comments %q", p.Comments)
	}
	objects := map[int64]int64{}
	for _, s := range p.Sample {
		if s.Location[0].Line[0].Function.Name == aggregate.LostFrame { // on a busy machine
			continue
		}
		if len(s.NumLabel["goid"]) != 1 {
			t.Fatalf("labels %v", s.NumLabel)
		}
		objects[s.NumLabel["bytes"][0]] += s.Value[0]
	}
	// The program allocates 5 of the one for 200 of the other, whose size class is 704.
	large, small := objects[1<<20]*40, objects[704]
	if large < 200 || small*10 < large*9 || large*10 < small*9 {
		t.Errorf("%d and %d objects, want the same", large, small)
	}
}

// TestProbedAllocsRefused: what cannot be had says why.
func TestProbedAllocsRefused(t *testing.T) {
	p, _ := start(t, Config{Kind: KindAllocs})
	if err := p.Add(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	sleep := exec.CommandContext(t.Context(), "sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		sleep.Process.Kill()
		_ = sleep.Wait()
	}()
	if err := p.Add(sleep.Process.Pid); !errors.Is(err, objfile.ErrNotGo) {
		t.Errorf("not Go: %v", err)
	}
}

// TestDutyCycle: where probes are there for a part of the time only, sums and shares are right all the same. By default that is
// one second in 15 here.
func TestDutyCycle(t *testing.T) {
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{Go: version}), "-mb", "8000", "-rate", "400")
			r := runAllocs(t, Config{AllocBudget: defaultAllocBudget}, proc.PID)
			want := allocate(t, proc)
			r.p.turn.Lock()
			d := r.p.targets[uint32(proc.PID)].alloc.duty
			r.p.turn.Unlock()
			r.end(t)
			if d.probed > d.total/4 {
				t.Errorf("probed for %v of %v", d.probed, d.total)
			}
			p := only(t, r.k)
			_, total := leaves(p)
			t.Logf("probed for %v of %v, %.0f hits a second, %d bytes of %d", d.probed, d.total, d.rate, total, want.total)
			if version == "1.18.10" { // the runtime does not count
				want.total = total
			}
			checkAllocs(t, p, want)
		})
	}
}

// TestWindowsWithoutProbes: windows are so short that in many of them no slot is probed. What was allocated in these is in the next:
// the profiles add up to what the program's runtime has counted up to the last one with samples.
func TestWindowsWithoutProbes(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-now", "-rate", "400")
	r := runAllocs(t, Config{AllocBudget: defaultAllocBudget, Window: 500 * time.Millisecond}, proc.PID)
	counted := func() (own uint64, total int64, windows, empty int) {
		r.p.turn.Lock()
		defer r.p.turn.Unlock()
		for _, p := range r.k.profiles {
			_, sum := leaves(p.Data)
			total += sum
			if windows++; sum == 0 {
				empty++
			}
		}
		a := r.p.targets[uint32(proc.PID)].alloc
		if !a.ownKnown {
			t.Fatal("what the runtime has counted is not known")
		}
		return a.own, total, windows, empty
	}
	before, had, _, _ := counted()
	const enough = 3000 << 20
	time.Sleep(10 * time.Second)
	own, total, windows, empty := counted()
	for end := time.Now().Add(time.Minute); own-before < enough && time.Now().Before(end); { // the last windows may all be without
		time.Sleep(100 * time.Millisecond)
		own, total, windows, empty = counted()
	}
	r.end(t)
	total -= had
	want := int64(own - before)
	t.Logf("%d windows, %d without a sample, %d of %d bytes", windows, empty, total, want)
	if empty < windows/4 {
		t.Errorf("%d of %d windows have no samples, want more", empty, windows)
	}
	if want < enough || math.Abs(float64(total-want)) > 0.02*float64(want) {
		t.Errorf("the profiles have %d bytes of %d", total, want)
	}
}

// TestSizesOfHostileObjects: a process may tell of any size, and of more than are told apart.
func TestSizesOfHostileObjects(t *testing.T) {
	a := &allocs{sizes: []int64{0}, certain: []bool{false}, number: make(map[objectSize]uint16)}
	for size := range int64(maxSizes + 1000) {
		a.sizeNumber(size, size%2 == 0)
	}
	if len(a.sizes) > maxSizes+128 {
		t.Errorf("%d sizes", len(a.sizes))
	}
	for told, want := range map[int64]int64{0: 1, -1: maxObject, math.MinInt64: maxObject, math.MaxInt64: maxObject, 1<<30 + 1: 1 << 31, 1 << 30: 1 << 30} {
		a.number = map[objectSize]uint16{} // all are new
		if got := a.sizes[a.sizeNumber(believable(told), told < 0)]; got != want {
			t.Errorf("%d bytes count as %d, want %d", told, got, want)
		}
	}
}

// TestLabelsOfProbedAllocs: goroutines with labels allocate at places of their own; each sample has the labels of the one that
// allocated there.
func TestLabelsOfProbedAllocs(t *testing.T) {
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{Go: version}), "-labels", "-workers", "8", "-mb", "600")
			p, want, _ := allocRound(t, Config{}, proc)
			checkAllocs(t, p, want)
			workers := map[string]string{
				"main.site16": "0", "main.site48": "1", "main.site64": "2", "main.site96": "3", "main.site128": "4", "main.site256": "5",
				"main.site512": "6", "main.site1024": "7",
			}
			seen := map[string]int{}
			for _, s := range p.Sample {
				leaf := s.Location[0].Line[0].Function.Name
				worker, ok := workers[leaf]
				if !ok {
					continue // the runtime, and what was lost
				}
				seen[leaf]++
				if l := s.Label["worker"]; len(l) != 1 || l[0] != worker {
					t.Errorf("%s has the labels %v, want worker %s", leaf, s.Label, worker)
				}
			}
			if len(seen) != len(workers) {
				t.Errorf("samples by place: %v", seen)
			}
		})
	}
}
