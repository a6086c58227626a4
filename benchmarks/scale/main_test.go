package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerCommand { // this program is the profiler of a row
		main()
	}
	os.Exit(leaks.Run(m))
}

// TestShort: real samples of few processes become samples of many, and each of them is in a profile.
func TestShort(t *testing.T) {
	needs.BPF(t)
	c := config{svg: filepath.Join(t.TempDir(), "scale.svg")}
	c.shorten()
	var out strings.Builder
	if err := run(t.Context(), &out, &c); err != nil { // it counts samples and profiles itself
		t.Fatal(err)
	}
	for _, want := range []string{
		"BenchmarkScale/cpus=8/processes=40/binaries=8 792 ", "BenchmarkScaleReadingOnly 792 ", "/pace=real 792 ",
		"# samples lost                                          0          0  ok\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if svg, err := os.ReadFile(c.svg); err != nil || !strings.Contains(string(svg), "8 binaries") {
		t.Errorf("picture: %d bytes, %v", len(svg), err)
	}
}

// TestCopiesAreDistinct: copies of one program are other files with other build IDs.
func TestCopiesAreDistinct(t *testing.T) {
	dir := t.TempDir()
	path, err := buildOriginal(t.Context(), dir, 0, program{name: "spin"})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for i := range 3 {
		to := filepath.Join(dir, "copy"+string(rune('0'+i)))
		if err := agents.Copy(path, to, i); err != nil {
			t.Fatal(err)
		}
		ids[gnuBuildID(t, to)] = true
	}
	if len(ids) != 3 || ids[""] {
		t.Errorf("build IDs %v", ids)
	}
}

// TestProgramThatCannotBeBuilt is an error, not a panic.
func TestProgramThatCannotBeBuilt(t *testing.T) {
	l, err := newLibrary(t.Context(), t.TempDir(), &config{programs: []program{{name: "none"}}})
	if err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("%v, %v", l, err)
	}
}
