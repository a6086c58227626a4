package profiler

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// keep is an exporter that keeps what it gets.
type keep struct {
	mu       sync.Mutex
	profiles []*export.Profile
}

func (k *keep) Export(_ context.Context, p *export.Profile) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.profiles = append(k.profiles, p)
	return nil
}

func (*keep) Close() error { return nil }

// start makes a profiler with a keep; the test ends with no loss of memory or descriptors.
func start(t *testing.T, c Config) (*Profiler, *keep) {
	t.Helper()
	needs.BPF(t)
	k := &keep{}
	c.Exporter = k
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, k
}

// sample profiles a running process for d.
func sample(t *testing.T, c Config, pid int, d time.Duration) (*profile.Profile, Stats) {
	t.Helper()
	p, k := start(t, c)
	return sampleWith(t, p, k, pid, d)
}

// sampleWith is sample with a profiler made before, which takes seconds where the machine is an emulated one.
func sampleWith(t *testing.T, p *Profiler, k *keep, pid int, d time.Duration) (*profile.Profile, Stats) {
	t.Helper()
	if err := p.Add(pid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(k.profiles) != 1 {
		t.Fatalf("%d profiles, want one; %+v", len(k.profiles), p.Stats())
	}
	prof := k.profiles[0].Data
	if err := prof.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return prof, p.Stats()
}

// names of a sample's functions, innermost first, without the kernel's.
func names(s *profile.Sample) []string {
	var out []string
	for _, l := range s.Location {
		if l.Mapping != nil && strings.HasPrefix(l.Mapping.File, "[kernel") {
			continue
		}
		for _, line := range l.Line {
			out = append(out, line.Function.Name)
		}
	}
	return out
}

// truth is what the programs leaf and spin print of themselves.
type truth struct {
	Paths map[string]struct {
		CPUNS int64 `json:"cpu_ns"`
		Stack []string
	}
	RusageNS int64 `json:"rusage_ns"`
	WallNS   int64 `json:"wall_ns"`
}

func readTruth(t *testing.T, p *testprog.Proc) (out truth) {
	t.Helper()
	line := p.WaitLine(t, "truth ", time.Minute)
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "truth ")), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestKnownStacks holds every sample against the program's own list of what its paths look like.
func TestKnownStacks(t *testing.T) {
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			wantKnownStacks(t, testprog.Build(t, "leaf", testprog.Options{Go: version}), direct)
		})
	}
}

// runner starts the program at bin with the environment and arguments given.
type runner func(t *testing.T, o testprog.StartOptions, bin string, args ...string) *testprog.Proc

func direct(t *testing.T, o testprog.StartOptions, bin string, args ...string) *testprog.Proc {
	t.Helper()
	return testprog.StartWith(t, o, bin, args...)
}

// wantKnownStacks runs the program leaf until every path has samples enough: a busy machine gives few.
func wantKnownStacks(t *testing.T, bin string, run runner) {
	t.Helper()
	for seconds := 3; ; seconds *= 2 {
		few := knownStacks(t, bin, run, seconds)
		if len(few) == 0 || t.Failed() {
			return
		}
		if seconds > 30 {
			t.Fatalf("too few samples, or too few that reach the innermost function, of %v", few)
		}
	}
}

// knownStacks fails the test on a stack that is not as known, and returns the paths without enough samples.
func knownStacks(t *testing.T, bin string, run runner, seconds int) (few []string) {
	t.Helper()
	p, k := start(t, Config{Frequency: 499, NoKernel: true})
	proc := run(t, testprog.StartOptions{Env: []string{"GODEBUG=asyncpreemptoff=1"}}, bin, "-seconds", fmt.Sprint(seconds))
	prof, _ := sampleWith(t, p, k, proc.PID, time.Duration(seconds)*time.Second-500*time.Millisecond)
	want := readTruth(t, proc)
	right, whole := map[string]int{}, map[string]int{}
	for _, s := range prof.Sample {
		path := strings.Join(s.Label["path"], "")
		from, ok := matches(names(s), want.Paths[path].Stack)
		if from < 0 { // between the paths
			continue
		}
		if !ok {
			t.Errorf("%s: %v", path, names(s))
		}
		if why := wrongLines(s); why != "" {
			t.Errorf("%s: %s", path, why)
		}
		right[path] += int(s.Value[0])
		if from == 0 {
			whole[path] += int(s.Value[0])
		}
	}
	for path := range want.Paths {
		if whole[path] < 10 || whole[path]*2 < right[path] {
			few = append(few, path)
		}
	}
	return few
}

// wrongLines says which of a sample's own functions has no file and line of the program's only source file.
func wrongLines(s *profile.Sample) string {
	for _, l := range s.Location {
		for _, line := range l.Line {
			f := line.Function
			if strings.HasPrefix(f.Name, "main.") && (!strings.HasPrefix(filepath.Base(f.Filename), "main") || line.Line == 0) {
				return fmt.Sprintf("%s at %s:%d", f.Name, f.Filename, line.Line)
			}
		}
	}
	return ""
}

// matches finds the innermost of want's functions in got (-1: only the two outermost, or none, are there), and reports
// whether all of want from there on follow in order.
func matches(got, want []string) (from int, ok bool) {
	from = slices.IndexFunc(want, func(w string) bool { return slices.Contains(got, w) })
	if from < 0 || from >= len(want)-2 {
		return -1, false
	}
	for _, w := range want[from:] {
		i := slices.Index(got, w)
		if i < 0 {
			return from, false
		}
		got = got[i+1:]
	}
	return from, true
}

// TestTotals compares the sum of weights with the process's own rusage, and shares with its threads' clocks.
func TestTotals(t *testing.T) {
	bin := testprog.Build(t, "spin", testprog.Options{})
	p, k := start(t, Config{})
	proc := testprog.Start(t, bin, "-threads", "2", "-seconds", "8")
	if err := p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); err != nil { // until it exits
		t.Fatal(err)
	}
	want := readTruth(t, proc)
	prof := k.profiles[0].Data
	var sum, count int64
	shares := map[string]int64{}
	for _, s := range prof.Sample {
		count += s.Value[0]
		sum += s.Value[1]
		for _, n := range names(s) {
			if _, ok := want.Paths[n]; ok {
				shares[n] += s.Value[1]
			}
		}
	}
	stats := p.Stats()
	if uint64(count) != stats.Recorded {
		t.Errorf("%d samples in the profile, %d recorded", count, stats.Recorded)
	}
	t.Logf("sum %v, rusage %v, %d samples", time.Duration(sum), time.Duration(want.RusageNS), count)
	// three standard errors, and what the program used before it was added
	if limit := 3/math.Sqrt(float64(count)) + 0.02; math.Abs(float64(sum-want.RusageNS)) > limit*float64(want.RusageNS) {
		t.Errorf("weights sum to %v, rusage says %v", time.Duration(sum), time.Duration(want.RusageNS))
	}
	for name, path := range want.Paths {
		share, exact := float64(shares[name])/float64(sum), float64(path.CPUNS)/float64(want.RusageNS)
		if limit := 4 * math.Sqrt(exact*(1-exact)/float64(count)); math.Abs(share-exact) > limit+0.02 {
			t.Errorf("%s has %.3f of the time, its thread's clock says %.3f", name, share, exact)
		}
	}
}

// TestLabels holds the labels of every sample against those that its goroutine set.
func TestLabels(t *testing.T) {
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			everyLabel(t, testprog.Build(t, "labels", testprog.Options{Go: version}), Config{Frequency: 199})
		})
	}
	t.Run("kernels without bpf_loop", func(t *testing.T) {
		everyLabel(t, testprog.Build(t, "labels", testprog.Options{}), Config{Frequency: 199, noLoop: true})
	})
}

func everyLabel(t *testing.T, bin string, c Config) {
	t.Helper()
	p, k := start(t, c)
	proc := testprog.Start(t, bin, "-seconds", "5")
	prof, _ := sampleWith(t, p, k, proc.PID, 3*time.Second)
	sets := labelSets(t, proc)
	seen := map[string]int{}
	for _, s := range prof.Sample {
		for fn, want := range sets {
			if !slices.Contains(names(s), fn) {
				continue
			}
			seen[fn]++
			if why := wrongLabels(s.Label, want); why != "" && seen[fn] < 100 {
				seen[fn] = 100
				t.Errorf("%s: %s", fn, why)
			}
		}
	}
	for fn := range sets {
		if seen[fn] == 0 {
			t.Errorf("no sample of %s", fn)
		}
	}
}

func labelSets(t *testing.T, p *testprog.Proc) map[string]map[string]string {
	t.Helper()
	sets := map[string]map[string]string{}
	for _, line := range p.Lines() {
		fields := strings.SplitN(line, " ", 3)
		if fields[0] != "set" {
			continue
		}
		coded, set := map[string]string{}, map[string]string{}
		if err := json.Unmarshal([]byte(fields[2]), &coded); err != nil {
			t.Fatal(err)
		}
		for k, v := range coded {
			key, errK := hex.DecodeString(k)
			value, errV := hex.DecodeString(v)
			if err := errors.Join(errK, errV); err != nil {
				t.Fatal(err)
			}
			set[string(key)] = string(value)
		}
		sets[fields[1]] = set
	}
	return sets
}

// wrongLabels says what differs: all labels must be there, cut visibly beyond 32 pairs or 256 bytes.
func wrongLabels(got map[string][]string, want map[string]string) string {
	flat := map[string]string{}
	for k, v := range got {
		flat[k] = strings.Join(v, "|")
	}
	if len(want) > 32 {
		if _, ok := flat[cutLabel]; !ok || len(flat) != 33 {
			return "more than 32 labels: want 32 and " + cutLabel + ", got " + cmp.Diff(want, flat)
		}
		for k, v := range flat {
			if k != cutLabel && want[k] != v {
				return "label " + k + " is " + v
			}
		}
		return ""
	}
	expect := map[string]string{}
	for k, v := range want {
		if !utf8.ValidString(v) || v == "" {
			continue // pprof wants UTF-8; anything goes. A label without a value is none
		}
		expect[cutString(k)] = cutString(v)
	}
	maps.DeleteFunc(flat, func(k, _ string) bool { return !utf8.ValidString(want[k]) })
	return cmp.Diff(expect, flat)
}

// cutString is how a string beyond 256 bytes must appear: its valid beginning, then the mark.
func cutString(s string) string {
	if len(s) <= 256 {
		return s
	}
	s = s[:256]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + cutMark
}

// TestDeep counts the frames of recursions whose depth is known. Kernels without bpf_loop see 255.
func TestDeep(t *testing.T) {
	noLoop := slices.ContainsFunc(bpf.Features(), func(f bpf.Feature) bool { return f.Name == "bpf_loop" && !f.OK })
	for _, c := range []struct {
		name  string
		depth string
		want  int
		cut   bool
	}{
		{"whole stack of 200 calls", "200", 200, false},
		{"whole stack of 900 calls", "900", 900, false},
		{"1500 calls are cut at 1024, visibly", "1500", 1000, true},
	} {
		if noLoop && c.want > 255 {
			c.name, c.want, c.cut = "without bpf_loop: "+c.name, 240, true
		}
		t.Run(c.name, func(t *testing.T) {
			bin := testprog.Build(t, "deep", testprog.Options{})
			p, k := start(t, Config{Frequency: 499})
			proc := testprog.Start(t, bin, "-depth", c.depth, "-seconds", "5")
			prof, stats := sampleWith(t, p, k, proc.PID, 2*time.Second)
			var right, all int64
			for _, s := range prof.Sample {
				root := names(s)[len(names(s))-1]
				if root == "runtime.mstart" || root == "runtime.mcall" { // sysmon and the scheduler: much, where the machine is an emulated one
					continue
				}
				all += s.Value[0]
				n := 0
				for _, name := range names(s) {
					if name == "main.recurse" {
						n++
					}
				}
				if !c.cut && n == c.want && root == "runtime.main" || c.cut && n >= c.want && root == "[truncated]" {
					right += s.Value[0]
				}
			}
			if right*10 < all*9 {
				t.Errorf("%d of %d stacks are right", right, all)
			}
			if (stats.Truncated > 0) != c.cut {
				t.Errorf("%d stacks counted as truncated", stats.Truncated)
			}
		})
	}
}

// TestExit writes the profile of a process that ends before the recording does.
func TestExit(t *testing.T) {
	p, k := start(t, Config{Frequency: 999})
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "3")
	if err := p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if time.Since(began) > 30*time.Second {
		t.Error("Run did not end with its only target")
	}
	if len(k.profiles) != 1 || !strings.Contains(strings.Join(p.Stats().Notes, "\n"), "has exited") {
		t.Fatalf("%d profiles, notes %q", len(k.profiles), p.Stats().Notes)
	}
	fns := map[string]bool{}
	for _, f := range k.profiles[0].Data.Function {
		fns[f.Name] = true
	}
	if !fns["main.alpha"] || !fns["main.thread"] {
		t.Errorf("functions of a process that is gone are not named: %d samples, functions %v", len(k.profiles[0].Data.Sample), slices.Sorted(maps.Keys(fns)))
	}
}
