package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestCompilerDoesWithOurProfileWhatItDoesWithTheRuntimes compares the compiler's own account of what it inlines and
// devirtualizes by a profile: that of --pgo against that of runtime/pprof, of one run.
func TestCompilerDoesWithOurProfileWhatItDoesWithTheRuntimes(t *testing.T) {
	goTool := needs.Tool(t, "go")
	own := filepath.Join(t.TempDir(), "own.pprof")
	// Recording begins before the program's own profile and ends after it, at worst.
	p := testprog.Start(t, testprog.Build(t, "pgo", testprog.Options{}), "-seconds=8", "-profile", own)
	cmd, _, errOut := command(t, "record", "-q", "--pgo", "-p", fmt.Sprint(p.PID), "-d", "7s")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	p.WaitLine(t, "done", time.Minute)
	plain, ours, theirs := decisions(t, goTool, "off"), decisions(t, goTool, filepath.Join(cmd.Dir, "default.pgo")), decisions(t, goTool, own)
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("decisions by the runtime's profile (-) and by ours (+):\n%s", diff)
	}
	for _, want := range []string{
		"PGO devirtualizing interface call h.hash to (*fnv).hash",
		"inlining call to (*fnv).hash",
		"inlining call to mix",
	} {
		if !strings.Contains(ours, want) || strings.Contains(plain, want) {
			t.Errorf("%q: with a profile %v, without %v", want, strings.Contains(ours, want), strings.Contains(plain, want))
		}
	}
	if strings.Contains(ours, "inlining call to cold") {
		t.Error("a cold call was inlined")
	}
}

// decisions are what the compiler says about package pgo when it builds it with a profile, without the threshold that
// it computes from the weights: two profiles of one run differ in that.
func decisions(t *testing.T, goTool, profile string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), goTool, "build", "-o", filepath.Join(t.TempDir(), "pgo"), "-pgo="+profile, "-gcflags=-m -d=pgodebug=1", "./pgo")
	cmd.Dir = "../../internal/testprog/targets"
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOTOOLCHAIN=local", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "hot-callsite-thres") && !strings.HasPrefix(line, "hot-cg-before") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
