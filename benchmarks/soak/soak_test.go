package main

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestSoak is a short run: too short to judge lines, so that windows are short, too, and what grows is not asked.
func TestSoak(t *testing.T) {
	needs.BPF(t)
	o := &options{length: 4 * time.Second, rate: 20, window: 500 * time.Millisecond, hz: 199, cycles: 3, output: filepath.Join(t.TempDir(), "x")}
	var out bytes.Buffer
	samples, err := soak(t.Context(), board.New(&out), o)
	for _, line := range strings.Split(strings.TrimSpace(errText(err)), "\n") {
		if line != "" && !strings.Contains(line, "at most") && !strings.Contains(line, "too short") {
			t.Error(line)
		}
	}
	s := last(samples)
	if s.RSS < 1 || s.FDs < 10 || s.Goroutines < 5 || s.Use.Targets < residents || s.Targets < 20 || s.Recorded == 0 {
		t.Errorf("the last sample is %+v\n%s", s, out.String())
	}
	if err := draw(o.output, samples); err != nil {
		t.Error(err)
	}
	if svg, err := os.ReadFile(o.output); err != nil || !bytes.Contains(svg, []byte("file descriptors")) {
		t.Errorf("%d bytes of SVG, %v", len(svg), err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestCycles(t *testing.T) {
	needs.BPF(t)
	var out bytes.Buffer
	err := cycles(t.Context(), board.New(&out), &options{window: time.Second, hz: 99, cycles: 3})
	if !strings.Contains(out.String(), "BenchmarkCycles 3 ") || !strings.Contains(errText(err), "too short") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// run10m is 10 minutes of samples of a profiler that leaves perHour MB and descriptors behind, in the noise of windows.
func run10m(perHour float64) (list []sample) {
	noise := rand.New(rand.NewPCG(1, 2))
	for at := time.Duration(0); at < 10*time.Minute; at += time.Second {
		grown := perHour * at.Hours()
		if at < 2*time.Minute {
			grown -= 10 * (2*time.Minute - at).Minutes() // warming up
		}
		saw := float64(at%(10*time.Second)) / 1e9
		list = append(list, sample{At: at, RSS: 60 + grown + saw + 3*noise.NormFloat64(), FDs: 500 + int(grown+saw+30*noise.NormFloat64())})
	}
	return list
}

// TestJudge: what grows is found in the noise of ten minutes, and what does not is not.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		perHour float64
		wrong   int
	}{
		"flat": {0, 0}, "it shrinks": {-500, 0}, "a leak of 2 kB a process at 50 processes a second": {360, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			wrong := judge(board.New(&out), "Soak", run10m(c.perHour), &options{window: 10 * time.Second}, 180000)
			if len(wrong) != c.wrong {
				t.Errorf("%q, want %d\n%s", wrong, c.wrong, out.String())
			}
		})
	}
	if wrong := judge(board.New(&bytes.Buffer{}), "Soak", run10m(0)[:20], &options{window: 10 * time.Second}, 1); len(wrong) != 1 {
		t.Errorf("20 s were enough to judge: %q", wrong)
	}
}

func TestFitOfALine(t *testing.T) {
	var list []sample
	for at := time.Duration(0); at < time.Hour; at += time.Second {
		list = append(list, sample{At: at, RSS: 100 + 12*at.Hours()})
	}
	g := fit(list, watched[0], 15*time.Minute, 10*time.Second)
	if math.Abs(g.perHour-12) > 0.01 || g.err > 0.01 || g.windows < 260 || math.Abs(g.peak-112) > 0.1 {
		t.Errorf("%+v", g)
	}
}

func TestCompare(t *testing.T) {
	before := []sample{{FDs: 30, state: state{Goroutines: 8}}, {FDs: 29, state: state{Goroutines: 9}}}
	if wrong := compare(before, before); len(wrong) != 0 {
		t.Error(wrong)
	}
	after := []sample{{FDs: 31, state: state{Goroutines: 12}}}
	after[0].Use.Targets = 1
	if wrong := compare(before, after); len(wrong) != 3 {
		t.Error(wrong)
	}
	if wrong := compare(before, nil); len(wrong) != 1 {
		t.Error(wrong)
	}
}

func TestSound(t *testing.T) {
	if err := sound(&state{Samples: 5, Recorded: 5}); err != nil {
		t.Error(err)
	}
	for _, s := range []state{{}, {Samples: 4, Recorded: 5}, {Samples: 5, Recorded: 5, Failed: "x"}} {
		if sound(&s) == nil {
			t.Errorf("%+v is sound", s)
		}
	}
}
