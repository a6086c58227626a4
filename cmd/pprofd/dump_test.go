package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestDumpRefusesWrongUse(t *testing.T) {
	for args, says := range map[string]string{
		"dump":                            "name a process by -p",
		"dump -p -1":                      "-1 is no PID",
		"dump -p 1 --state frob":          "unknown state \"frob\"; known are runnable",
		"dump -p 1 --stuck -1s":           "negative",
		"dump -p 1 --json --each":         "choose one",
		"dump -p 1 -o x.pb.gz --json":     "-o writes a profile",
		"dump -p 1 something":             "unexpected argument",
		"record -p 1 -t goroutine --pgo":  "--pgo wants CPU profiles only",
		"record -t goroutine -- somebody": "is read from a process that runs",
	} {
		if code, _, errOut := call(t, strings.Fields(args)...); code != exitUsage || !strings.Contains(errOut, says) {
			t.Errorf("%s: exit code %d, %q; want %q", args, code, errOut, says)
		}
	}
	if code, _, errOut := call(t, "dump", "-p", "4194000"); code != exitFailure || !strings.Contains(errOut, "no such process: 4194000") {
		t.Errorf("no process: exit code %d, %q", code, errOut)
	}
	if code, _, errOut := call(t, "dump", "-p", "2"); code != exitFailure || !strings.Contains(errOut, "kernel thread") {
		t.Errorf("a kernel thread: exit code %d, %q", code, errOut)
	}
}

// startWaits starts the program whose goroutines wait in all ways.
func startWaits(t *testing.T) (pid string) {
	t.Helper()
	needs.Root(t)
	prog := testprog.Build(t, "waits", testprog.Options{})
	return fmt.Sprint(testprog.Start(t, prog, filepath.Join(t.TempDir(), "traces")).PID)
}

func dumped(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := call(t, append([]string{"dump"}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	return stdout, stderr
}

func TestDump(t *testing.T) {
	pid := startWaits(t)
	out, errOut := dumped(t, "-p", pid, "--running", "0")
	group := regexp.MustCompile(`(?m)^10 goroutines: chan receive, at least [0-9.]+m?s( to [0-9.]+m?s)?
\tgoid( \d+){8} …
main\.receive
\t.*/waits/sync\.go:\d+
created by main\.channels
\t.*/waits/sync\.go:\d+$`)
	if !group.MatchString(out) || errOut != "" {
		t.Errorf("there is no group of ten in\n%.3000s\n%s", out, errOut)
	}
	if !strings.HasPrefix(out, "process "+pid+" (waits), go1.") {
		t.Errorf("begins with %.100q", out)
	}
	for _, says := range []string{"locked to thread", "syscall", "sync.Mutex.Lock", "IO wait", "select (no cases)", "sleep"} {
		if !strings.Contains(out, says) {
			t.Errorf("%q is not in the dump", says)
		}
	}
	if strings.Contains(out, "runtime.gopark\n") {
		t.Error("functions of the runtime are shown")
	}
	if out, _ = dumped(t, "-p", pid, "--runtime"); !strings.Contains(out, "runtime.gopark\n") || !strings.Contains(out, "runtime.bgsweep\n") {
		t.Error("--runtime shows nothing of the runtime")
	}
	if out, _ = dumped(t, "-p", pid, "--labels", "--state", "waiting"); !strings.Contains(out, `labels {"key0": "value 0", "key1": "other", "key2": "more"}`) {
		t.Error("there are no labels")
	}
	if out, _ = dumped(t, "-p", pid, "--each", "--reason", "sleep"); strings.Count(out, "\ngoroutine ")+1 != strings.Count(out, "[sleep") {
		t.Errorf("others than those that sleep:\n%s", out)
	}
}

func TestDumpJSON(t *testing.T) {
	pid := startWaits(t)
	out, _ := dumped(t, "-p", pid, "--json")
	all := objects(t, out)
	var one goroutineObject
	states := make(map[string]int)
	for _, g := range all {
		states[g.State]++
		if len(g.Labels) == 9 {
			one = g
		}
		if g.Goid == 0 || g.Start == "" || g.State == "waiting" && (len(g.Stack) == 0 || g.Reason == "") {
			t.Errorf("%+v", g)
		}
	}
	if len(all) < 90 || states["waiting"] < 70 || states["syscall"] < 5 || one.Goid == 0 {
		t.Errorf("%d goroutines: %v", len(all), states)
	}
	out, _ = dumped(t, "-p", pid, "--json", "--goid", fmt.Sprint(one.Goid)+",1")
	some := objects(t, out)
	if len(some) != 2 || some[0].Goid+some[1].Goid != one.Goid+1 {
		t.Errorf("goroutines %d and 1 are %+v", one.Goid, some)
	}
	for _, g := range some {
		if g.Goid == one.Goid && (g.Labels["key3"] != "value 27" || g.Reason != "chan receive" || g.CreatedBy == nil || g.Waited == 0 || !g.Complete) {
			t.Errorf("%+v", g)
		}
	}
	if out, errOut := dumped(t, "-p", pid, "--json", "--stuck", "1h"); out != "" || !strings.Contains(errOut, "garbage collections") {
		t.Errorf("nobody waits for an hour: %q %q", out, errOut)
	}
	if out, errOut := dumped(t, "-p", pid, "--json", "--reason", "nothing", "--state", "waiting"); out != "" || !strings.Contains(errOut, "no goroutine that --reason and --state would choose") {
		t.Errorf("of no kind: %q, %q", out, errOut)
	}
	if out, _ := dumped(t, "-p", pid, "--json", "--stuck", "1ms"); len(objects(t, out)) < 70 {
		t.Error("too few have waited for a millisecond")
	}
}

func objects(t *testing.T, lines string) (all []goroutineObject) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var g goroutineObject
		if err := json.Unmarshal([]byte(line), &g); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, g)
	}
	return all
}

func TestDumpWritesProfiles(t *testing.T) {
	pid := startWaits(t)
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a.pb.gz"), filepath.Join(dir, "b.pb.gz"), filepath.Join(dir, "c.pb.gz")
	dumped(t, "-p", pid, "-o", a, "--reason", "chan receive")
	dumped(t, "-p", pid, "-o", b)
	code, out, errOut := call(t, "diff", a, b)
	if code != 0 || !strings.Contains(out, "main.") {
		t.Errorf("diff: exit code %d\n%s%s", code, out, errOut)
	}
	if code, _, errOut := call(t, "record", "-p", pid, "-t", "goroutine", "-o", c, "-q"); code != 0 {
		t.Fatalf("record: exit code %d: %s", code, errOut)
	}
	for _, path := range []string{a, b, c} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := parsed(t, data)
		if len(p.SampleType) != 1 || p.SampleType[0].Type != "goroutine" || p.SampleType[0].Unit != "count" || p.Period != 1 || p.PeriodType.Type != "goroutine" {
			t.Errorf("%s: %v, period %d %v", path, p.SampleType, p.Period, p.PeriodType)
		}
		receive, total := received(p)
		if receive != 10 || path != a && total < 90 {
			t.Errorf("%s: %d goroutines, %d of them in main.receive", path, total, receive)
		}
	}
}

// received are the goroutines of a profile: those started to receive, and all.
func received(p *profile.Profile) (receive, total int64) {
	for _, s := range p.Sample {
		total += s.Value[0]
		n := len(s.Location)
		if s.Location[n-1].Line[0].Function.Name == "main.receive" && s.Value[0] > 1 {
			receive += s.Value[0]
		}
	}
	return receive, total
}
