package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
)

// TestHeap: the profile is the one that the process writes of itself: stacks with inlined calls, files, lines, all columns,
// sizes, rate.
func TestHeap(t *testing.T) {
	all := map[string]testprog.Options{
		"plain": {}, "stripped": {Strip: true}, "stripped PIE": {Strip: true, PIE: true}, "cgo": {Cgo: true},
		"race": {Cgo: true, Flags: []string{"-race"}}, "no inlining": {Flags: []string{"-gcflags=all=-l"}},
	}
	for _, version := range testprog.Versions() {
		for name, o := range all {
			if version != "" && name != "plain" && name != "stripped PIE" && os.Getenv("PPROFD_FULL") != "1" {
				continue
			}
			t.Run("go"+version+" "+name, func(t *testing.T) {
				o.Go = version
				file := filepath.Join(t.TempDir(), "heap")
				proc := testprog.Start(t, testprog.Build(t, "heap", o), "-profile", file)
				got, want := heapOf(t, proc.PID), readProfile(t, file)
				if d := cmp.Diff(flatten(want), flatten(got)); d != "" {
					t.Errorf("%.3000s", d)
				}
				if len(want.Sample) < 30 || got.Period != want.Period || got.PeriodType.Type != "space" || len(got.SampleType) != 4 {
					t.Errorf("%d samples; period %d %v, want %d", len(want.Sample), got.Period, got.PeriodType, want.Period)
				}
			})
		}
	}
}

// TestHeapOfUnusualPrograms: packed programs, which unpack themselves into anonymous memory, programs whose section headers are
// gone, whose file is another by now, or whose file system is theirs alone: the profile is the process's own.
func TestHeapOfUnusualPrograms(t *testing.T) {
	bare := func(t *testing.T, o testprog.StartOptions, bin string, args ...string) *testprog.Proc {
		path := copyOf(t, bin)
		testprog.DropSections(t, path)
		return direct(t, o, path, args...)
	}
	for name, launch := range map[string]func(*testing.T, testprog.StartOptions, string, ...string) *testprog.Proc{
		"packed": unpacked, "without section headers": bare, "replaced": replaced, "other mount namespace": otherNamespace,
	} {
		for _, version := range testprog.Versions() {
			for _, o := range []testprog.Options{{Go: version}, {Go: version, Strip: true}} {
				t.Run(name+" "+o.String(), func(t *testing.T) {
					file := filepath.Join(t.TempDir(), "heap")
					proc := launch(t, testprog.StartOptions{}, testprog.Build(t, "heap", o), "-profile", file)
					if d := cmp.Diff(flatten(readProfile(t, file)), flatten(heapOf(t, proc.PID))); d != "" {
						t.Errorf("%.3000s", d)
					}
				})
			}
		}
	}
}

// TestPackedWithoutMemProfile: also of a packed program it is known that it profiles no memory.
func TestPackedWithoutMemProfile(t *testing.T) {
	proc := unpacked(t, testprog.StartOptions{}, testprog.Build(t, "spin", testprog.Options{Strip: true}), "-seconds", "60")
	m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}})
	defer m.Close()
	if err := m.Add(proc.PID); !errors.Is(err, goruntime.ErrNoMemProfile) {
		t.Errorf("error %v", err)
	}
}

func heapOf(t *testing.T, pid int) *profile.Profile {
	t.Helper()
	return memoryOf(t, MemoryConfig{Kinds: []string{KindHeap}}, pid, func() {})
}

// memoryOf adds a process, calls wait, and returns the one profile.
func memoryOf(t *testing.T, c MemoryConfig, pid int, wait func()) *profile.Profile {
	t.Helper()
	k := &keep{}
	c.Exporter = k
	m := NewMemory(c)
	defer m.Close()
	if err := m.Add(pid); err != nil {
		t.Fatal(err)
	}
	wait()
	if err := m.Export(t.Context()); err != nil {
		t.Fatal(err)
	}
	return only(t, k)
}

func readProfile(t *testing.T, path string) *profile.Profile {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// flatten adds up the values by stack, a line for each frame, and size. Without what has no values at all.
func flatten(p *profile.Profile) map[string]string {
	sums := map[string][]int64{}
	for _, s := range p.Sample {
		if !slices.ContainsFunc(s.Value, func(v int64) bool { return v != 0 }) {
			continue
		}
		var frames []string
		for _, l := range s.Location {
			for _, line := range l.Line {
				frames = append(frames, fmt.Sprintf("%s %s:%d", line.Function.Name, line.Function.Filename, line.Line))
			}
		}
		key := fmt.Sprintf("%d bytes\n%s", s.NumLabel["bytes"], strings.Join(frames, "\n"))
		if sums[key] == nil {
			sums[key] = make([]int64, len(s.Value))
		}
		for i, v := range s.Value {
			sums[key][i] += v
		}
	}
	flat := map[string]string{}
	for key, values := range sums {
		flat[key] = fmt.Sprint(values)
	}
	return flat
}

// TestAllocs: only what was allocated meanwhile counts; a program that allocates at a known rate is right.
func TestAllocs(t *testing.T) {
	path := testprog.Build(t, "heap", testprog.Options{})
	still := testprog.Start(t, path)
	if p := memoryOf(t, MemoryConfig{Kinds: []string{KindAllocs}}, still.PID, func() {}); len(p.Sample) > 0 {
		t.Errorf("%d samples of a process that allocates nothing", len(p.Sample))
	}
	busy := testprog.Start(t, path, "-busy")
	p := memoryOf(t, MemoryConfig{Kinds: []string{KindAllocs}}, busy.PID, func() { time.Sleep(time.Second) })
	objects := map[int64]int64{}
	for _, s := range p.Sample {
		objects[s.NumLabel["bytes"][0]] += s.Value[0]
	}
	// The program allocates 5 of the one for 200 of the other, whose size class is 704.
	large, small := objects[1<<20]*40, objects[704]
	if large < 200 || small*10 < large*9 || large*10 < small*9 {
		t.Errorf("%d and %d objects, want the same", large, small)
	}
}

// TestManyAllocationSites: 100,000 of them are read in a moment.
func TestManyAllocationSites(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-many", "100000", "-rate", "1", "-quiet")
	m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}, Exporter: &keep{}})
	defer m.Close()
	if err := m.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	target := m.targets[0]
	best := time.Hour
	for range 5 { // others may be busy: one quiet moment is enough
		began := time.Now()
		if err := target.read(goruntime.Published); err != nil || target.records.Len() < 100000 {
			t.Fatal(target.records.Len(), err)
		}
		best = min(best, time.Since(began))
	}
	t.Logf("%d allocation sites in %v, %d MB", target.records.Len(), best, target.records.Bytes()>>20)
	if best > 200*time.Millisecond || target.records.Bytes() > 64<<20 {
		t.Errorf("%d allocation sites took %v and %d bytes", target.records.Len(), best, target.records.Bytes())
	}
}

// TestMemoryRefused: what cannot be had says why.
func TestMemoryRefused(t *testing.T) {
	m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}})
	defer m.Close()
	if err := m.Add(testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60").PID); !errors.Is(err, goruntime.ErrNoMemProfile) {
		t.Errorf("linked out: %v", err)
	}
	if err := m.Add(testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-rate", "0").PID); !errors.Is(err, errMemProfileOff) {
		t.Errorf("switched off: %v", err)
	}
	if err := m.Add(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	m.cfg.Exporter = &keep{}
	proc := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}))
	if err := m.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	proc.Stop()
	if err := m.Export(context.Background()); !errors.Is(err, os.ErrNotExist) && err == nil {
		t.Error("no error for a process that is gone")
	}
}
