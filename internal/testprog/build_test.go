package testprog

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestBuildOptions(t *testing.T) {
	for name, c := range map[string]struct {
		o                  Options
		pie, stripped, cgo bool
		version            string
	}{
		"plain":                         {o: Options{}},
		"stripped position independent": {o: Options{PIE: true, Strip: true}, pie: true, stripped: true},
		"an old toolchain":              {o: Options{Go: "1.18.10"}, version: "go1.18.10"},
		"linked by gcc":                 {o: Options{Cgo: true, LDFlags: "-linkmode=external"}, cgo: true},
	} {
		t.Run(name, func(t *testing.T) {
			path := Build(t, "deep", c.o)
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, err = f.Symbols()
			interp := f.Section(".interp") != nil
			if pie := f.Type == elf.ET_DYN; pie != c.pie || (err != nil) != c.stripped || (!c.pie && interp != c.cgo) {
				t.Errorf("pie %v, symbols %v, interpreter %v", pie, err, interp)
			}
			info, err := buildinfo.ReadFile(path)
			if err != nil || !strings.HasPrefix(info.GoVersion, c.version) {
				t.Errorf("built by %v, want %q: %v", info, c.version, err)
			}
		})
	}
}

// Concurrent builds of one program end with one file, which is kept and then found again.
func TestBuildCache(t *testing.T) {
	cache := t.TempDir()
	paths := make([]string, 3)
	var wg sync.WaitGroup
	for i := range paths {
		wg.Go(func() { paths[i], _ = build(cache, "deep", Options{}) })
	}
	wg.Wait()
	first, err := os.Stat(paths[0])
	if err != nil || paths[1] != paths[0] || paths[2] != paths[0] {
		t.Fatalf("paths %q: %v", paths, err)
	}
	if _, err := build(cache, "deep", Options{}); err != nil {
		t.Fatal(err)
	}
	if again, err := os.Stat(paths[0]); err != nil || !again.ModTime().Equal(first.ModTime()) {
		t.Errorf("built again: %v, %v, first %v", again, err, first)
	}
	if other, err := build(cache, "deep", Options{Strip: true}); err != nil || other == paths[0] {
		t.Errorf("other options gave the same file %s: %v", other, err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*", "*.tmp")); len(left) != 0 {
		t.Errorf("temporary files were left: %q", left)
	}
}

func TestBuildMissingToolchain(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	_, err := build(t.TempDir(), "deep", Options{Go: "1.18.999"})
	if _, ok := errors.AsType[*missingError](err); !ok {
		t.Errorf("error %v, want a missingError, for which tests are skipped", err)
	}
}

func TestProc(t *testing.T) {
	p := Start(t, Build(t, "deep", Options{}), "-depth", "10", "-seconds", "0.2")
	lines := p.Wait(t, 10*time.Second)
	if len(lines) != 2 || !strings.HasPrefix(lines[1], "done") {
		t.Errorf("output %q, want ready and done", lines)
	}
	if cpu := p.CPUTime(); cpu < 50*time.Millisecond || cpu > time.Second {
		t.Errorf("CPU time %v, want about 200ms", cpu)
	}
	long := Start(t, Build(t, "deep", Options{}), "-seconds", "60")
	long.Stop()
	if _, err := os.Stat("/proc/" + strings.Fields(long.Lines()[0])[1]); err == nil {
		t.Errorf("process %d lives on after Stop", long.PID)
	}
}

// What the programs say of themselves adds up to what the kernel says.
func TestTruthIsCPUTime(t *testing.T) {
	for _, name := range []string{"spin", "leaf"} {
		t.Run(name, func(t *testing.T) {
			p := Start(t, Build(t, name, Options{}), "-seconds", "1")
			truth := p.Truth(t, 20*time.Second)
			var sum int64
			for _, path := range truth.Paths {
				sum += path.CPUNS
			}
			if low, high := truth.RusageNS*95/100, truth.RusageNS; sum < low || sum > high {
				t.Errorf("paths sum up to %d ns, want %d to %d (rusage)", sum, low, high)
			}
		})
	}
}

// The stacks that leaf claims are those that the runtime sees.
func TestLeafStacks(t *testing.T) {
	untilRight(t, 3, func(seconds float64) (problems []string) {
		file := filepath.Join(t.TempDir(), "cpu")
		p := StartWith(t, StartOptions{Env: []string{"GODEBUG=asyncpreemptoff=1"}}, Build(t, "leaf", Options{}),
			"-seconds", fmt.Sprint(seconds), "-profile", file)
		truth := p.Truth(t, time.Minute)
		prof := parse(t, file)
		for name, path := range truth.Paths {
			share, weight := path.Share(prof, "path", name)
			if share < 0.75 || float64(weight) < 0.5*float64(path.CPUNS) {
				problems = append(problems, fmt.Sprintf("path %s: %.0f %% of %d ns in %v, exact time %d ns", name, 100*share, weight, path.Stack, path.CPUNS))
			}
		}
		return problems
	})
}

// untilRight gives a statistical test more time, twice as much up to three times, until it sees no problem.
func untilRight(t *testing.T, seconds float64, f func(seconds float64) (problems []string)) {
	t.Helper()
	problems := f(seconds)
	for range 3 {
		if len(problems) == 0 {
			return
		}
		t.Logf("%v s were not enough: %s", seconds, strings.Join(problems, "\n"))
		seconds *= 2
		problems = f(seconds)
	}
	if len(problems) != 0 {
		t.Errorf("within %v s: %s", seconds, strings.Join(problems, "\n"))
	}
}

// Every program builds with the oldest toolchain and the local one.
func TestBuildAll(t *testing.T) {
	for _, version := range []string{"", "1.18.10"} {
		for _, name := range []string{"mixed", "spin", "leaf", "deep", "labels", "churn", "execer", "handler", "step"} {
			Build(t, name, Options{Go: version})
		}
		Build(t, "cgowork", Options{Go: version, Cgo: true})
	}
}
