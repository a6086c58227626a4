package profiler

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestAccuracy: the share of our stacks that also stand in the process's own runtime/pprof profile is what a second
// runtime/pprof profile of the same length reaches, less three points of noise; longer runs until it is or time is up.
func TestAccuracy(t *testing.T) {
	needs.BPF(t)
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			bin := testprog.Build(t, "mixed", testprog.Options{Go: version})
			for seconds := 5; ; seconds *= 2 {
				got, ceiling, stats := mixedRun(t, bin, seconds)
				t.Logf("%d s: %.1f %% of the stacks are right (leaf and caller %.1f %%, lines %.1f %%, labels %.1f %%); ceiling %.1f %%", seconds,
					100*got.Stacks, 100*got.LeafCaller, 100*got.Lines, 100*got.Labels, 100*ceiling.Stacks)
				bad := float64(stats.Broken) / float64(stats.Recorded)
				if got.Stacks >= ceiling.Stacks-0.03 && bad <= 0.001 {
					return
				}
				if seconds >= 20 {
					t.Fatalf("%.2f %% could not be completed\npprofd %v\nsecond runtime/pprof profile %v", 100*bad, got, ceiling)
				}
			}
		})
	}
}

// mixedRun profiles the program mixed in the middle of its own, longer, first profile.
func mixedRun(t *testing.T, bin string, seconds int) (got, ceiling testprog.Agreement, stats Stats) {
	t.Helper()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	proc := testprog.StartWith(t, testprog.StartOptions{Env: []string{"GODEBUG=asyncpreemptoff=1"}}, bin,
		"-profile", first, "-window", fmt.Sprint(3*seconds), "-second", second, "-window2", fmt.Sprint(seconds))
	prof, stats := sample(t, Config{NoKernel: true}, proc.PID, time.Duration(seconds)*time.Second)
	proc.WaitLine(t, "done", time.Duration(10*seconds)*time.Second)
	truth := readProfile(t, first)
	return testprog.Compare(truth, prof, nil), testprog.Compare(truth, readProfile(t, second), nil), stats
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
