package profiler

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestOldGo: programs of Go 1.16 and 1.17 have names, files and lines.
func TestOldGo(t *testing.T) {
	for _, version := range []string{"1.16.15", "1.17.13"} {
		t.Run("go"+version, func(t *testing.T) {
			proc := testprog.Start(t, buildOld(t, version, "spin", "internal/cpuclock/cpuclock.go"), "-threads", "2", "-seconds", "30")
			prof, stats := sample(t, Config{Frequency: 499}, proc.PID, 2*time.Second)
			for _, s := range prof.Sample {
				if why := wrongLines(s); why != "" {
					t.Fatal(why)
				}
			}
			n, inner := countWith(prof, "main.thread"), int64(0)
			for _, fn := range []string{"main.alpha", "main.beta", "main.gamma", "main.delta"} {
				inner += countWith(prof, fn)
			}
			if n < 50 || n*20 < int64(stats.Recorded)*19 || inner*10 < n*8 {
				t.Errorf("of %d samples %d are in the threads' function, %d in those that it calls", stats.Recorded, n, inner)
			}
			t.Logf("%+v", stats)
		})
	}
}

// TestHeapOfOldGo: so do their heaps.
func TestHeapOfOldGo(t *testing.T) {
	for _, version := range []string{"1.16.15", "1.17.13"} {
		t.Run("go"+version, func(t *testing.T) {
			proc := testprog.Start(t, buildOld(t, version, "leak"), "-most", "64", "-mbps", "1000")
			time.Sleep(time.Second)
			p := memoryOf(t, MemoryConfig{Kinds: []string{KindHeap}, Unpublished: true}, proc.PID, func() {})
			large, small := inUse(p, "main.large"), inUse(p, "main.small")
			if large < 36<<20 || large > 64<<20 || small < 6<<20 || small > 30<<20 { // 48 and 16, of some 130 samples
				t.Errorf("%d MB large, %d MB small", large>>20, small>>20)
			}
		})
	}
}

// buildOld builds a target by a toolchain that is older than the targets' module; files are what it needs besides its own.
func buildOld(t *testing.T, version, target string, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	const targets = "../internal/testprog/targets"
	for _, name := range append(files, target+"/main.go") {
		data, err := os.ReadFile(filepath.Join(targets, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module targets\n\ngo 1.16\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "old")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./"+target)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOENV=off", "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOTOOLCHAIN=go"+version)
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "" {
			t.Skipf("toolchain go%s cannot be had: %v\n%s", version, err, out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}
