package spend

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// proc is a fixture of /proc.
func proc(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 1 2 3 4 5 6 7 8 9 10\nbtime 1\n"

func pressure(micros int) string {
	return fmt.Sprintf("some avg10=1.00 avg60=2.00 avg300=3.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", micros)
}

// TestLoad: the share of the time in which somebody waited, between two looks.
func TestLoad(t *testing.T) {
	root := proc(t, map[string]string{"stat": stat, "pressure/cpu": pressure(5_000_000), "loadavg": "3.00 2.00 1.00 2/7 9\n"})
	h, err := newHost(root)
	if err != nil {
		t.Fatal(err)
	}
	if h.cpus != 2 || h.budget(0.01) != 0.02 {
		t.Errorf("%v CPUs, of which 1 %% is %v", h.cpus, h.budget(0.01))
	}
	later := h.stall.at.Add(10 * time.Second)
	if err := os.WriteFile(filepath.Join(root, "pressure/cpu"), []byte(pressure(9_000_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := h.load(later); math.Abs(got-0.4) > 1e-9 {
		t.Errorf("waited 4 of 10 s: load %v", got)
	}
	if got := h.load(later); got != 0 {
		t.Errorf("no time has passed: load %v", got)
	}
	if err := os.RemoveAll(filepath.Join(root, "pressure")); err != nil {
		t.Fatal(err)
	}
	if got := h.load(later.Add(time.Second)); got != 1.5 {
		t.Errorf("no PSI, load average 3 on 2 CPUs: load %v", got)
	}
	if err := os.Remove(filepath.Join(root, "loadavg")); err != nil {
		t.Fatal(err)
	}
	if got := h.load(later); !math.IsNaN(got) {
		t.Errorf("nothing says: load %v", got)
	}
	if _, err := newHost(t.TempDir()); err == nil {
		t.Error("an empty /proc is no error")
	}
}

// TestHere: this machine and this process.
func TestHere(t *testing.T) {
	h, err := newHost("/proc")
	if err != nil {
		t.Fatal(err)
	}
	if h.cpus < float64(runtime.NumCPU()) {
		t.Errorf("%v CPUs, Go sees %d", h.cpus, runtime.NumCPU())
	}
	if load := h.load(time.Now()); !(load >= 0) {
		t.Errorf("load %v", load)
	}
	if rss, err := h.rss(); err != nil || rss < 1<<20 || rss > 4<<30 {
		t.Errorf("RSS %d, %v", rss, err)
	}
	if got := h.memory(1 << 20); got != 1<<20 {
		t.Errorf("1 MiB is within the limits of this machine; got %d", got)
	}
	before, err := ownCPU(false)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; n++ {
		continue
	}
	after, err := ownCPU(true)
	if err != nil || after <= before {
		t.Errorf("%d rounds in 50 ms: CPU time from %v to %v, %v", n, before, after, err)
	}
}

func TestPercent(t *testing.T) {
	for text, want := range map[string]float64{"1%": 1, "0.5": 0.5, "2 %": 2, "100%": 100, "0": 0, "0%": 0, "0.01%": 0.01} {
		if got, err := ParsePercent(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "%", "x", "-1%", "101%", "0.001%", "NaN", "Inf", "1%%"} {
		if got, err := ParsePercent(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	if got := FormatPercent(0.5); got != "0.5%" {
		t.Error(got)
	}
}
