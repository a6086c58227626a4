package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestRecordContention: what is written of a process is what it says itself, and ps says that it counts. contend's own locks keep
// still, the runtime's need not: so only the functions of the program are compared.
func TestRecordContention(t *testing.T) {
	own, dir := t.TempDir(), filepath.Join(t.TempDir(), "out")
	proc := testprog.Start(t, testprog.Build(t, "contend", testprog.Options{Strip: true}), "-block", "20000", "-mutex", "2", "-dir", own)
	pid := fmt.Sprint(proc.PID)
	if r := psJSON(t)[proc.PID]; r.BlockProfile != memOn || r.BlockRate != 20000 || r.MutexProfile != memOn || r.MutexFraction != 2 || r.WaitsReason != "" {
		t.Errorf("%+v", r)
	}
	if _, table, _ := call(t, "ps"); !regexp.MustCompile(` on \(20000\) +on \(2\) `).MatchString(table) { // other programs may make columns wider
		t.Errorf("%s", table)
	}
	code, out, errOut := call(t, "record", "-p", pid, "-t", "block,mutex", "-o", dir)
	if code != 0 || !strings.Contains(out, "contend") {
		t.Fatalf("exit code %d, %s\n%s", code, out, errOut)
	}
	for _, kind := range []string{"block", "mutex"} {
		want, got := readProfile(t, filepath.Join(own, kind)), readProfile(t, filepath.Join(dir, "contend-"+pid+"."+kind+".pb.gz"))
		for _, fn := range []string{"main.locked", "main.shared", "main.signalled", "main.main"} {
			if n, m := holds(got, fn), holds(want, fn); n != m || fn == "main.main" && n == 0 {
				t.Errorf("%s: %d events below %s, want %d", kind, n, fn, m)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "x")
	if code, _, errOut := call(t, "record", "-p", pid, "-t", "block", "-d", "100ms", "-o", file); code != 0 {
		t.Fatal(errOut)
	}
	if p := readProfile(t, file); holds(p, "main.main") != 0 || p.DurationNanos < 1e8 {
		t.Errorf("%d events in %d ns in which nothing happened", holds(p, "main.main"), p.DurationNanos)
	}
}

// TestRecordContentionOfNothing: where all wait for good, which is no contention, it says why the profile is empty.
func TestRecordContentionOfNothing(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "crowd", testprog.Options{}), "8")
	for _, kind := range []string{"block", "mutex"} {
		file := filepath.Join(t.TempDir(), kind)
		code, _, errOut := call(t, "record", "-p", fmt.Sprint(proc.PID), "-t", kind, "-d", "500ms", "-o", file)
		if code != 0 || !strings.Contains(errOut, "the "+kind+" profile is empty") {
			t.Errorf("exit code %d: %s", code, errOut)
		}
	}
}

// TestRecordContentionThatIsOff says what to do, and writes an estimate that says that it is one.
func TestRecordContentionThatIsOff(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "shares", testprog.Options{}))
	if r := psJSON(t)[proc.PID]; r.BlockProfile != memOff || r.MutexProfile != memOff {
		t.Errorf("%+v", r)
	}
	for kind, fn := range map[string]string{"block": "SetBlockProfileRate", "mutex": "SetMutexProfileFraction"} {
		file := filepath.Join(t.TempDir(), kind)
		code, _, errOut := call(t, "record", "-p", fmt.Sprint(proc.PID), "-t", kind, "-d", "2s", "-o", file)
		if code != 0 || !strings.Contains(errOut, "switched off") || !strings.Contains(errOut, fn) {
			t.Errorf("exit code %d: %s", code, errOut)
		}
		p := readProfile(t, file)
		if !strings.Contains(strings.Join(p.Comments, "\n"), "an estimate: the program has its "+kind+" profile switched off") || holds(p, "main.(*worker).lock") == 0 {
			t.Errorf("%s: comments %q", kind, p.Comments)
		}
	}
}

// TestRecordContentionThatIsOffInMany says it once.
func TestRecordContentionThatIsOffInMany(t *testing.T) {
	prog := testprog.Build(t, "shares", testprog.Options{})
	args := []string{"record", "-t", "mutex", "-d", "500ms", "-o", filepath.Join(t.TempDir(), "out")}
	for range 3 {
		args = append(args, "-p", fmt.Sprint(testprog.Start(t, prog).PID))
	}
	code, _, errOut := call(t, args...)
	if code != 0 || strings.Count(errOut, "SetMutexProfileFraction") != 1 || !strings.Contains(errOut, "; the same holds for 2 more; ") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}
