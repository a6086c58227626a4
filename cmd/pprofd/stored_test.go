package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

var storedAt = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// storedProfile is of functions main.f0, main.f1, ... and their samples.
func storedProfile(service, kind string, pid int, at time.Time, samples ...int64) *export.Profile {
	m := &profile.Mapping{ID: 1, Start: 0x1000, Limit: 0x9000, File: "/bin/" + service}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1e7, TimeNanos: at.UnixNano(), DurationNanos: 1e9,
		Mapping: []*profile.Mapping{m},
	}
	if kind == "heap" {
		p.SampleType = []*profile.ValueType{{Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"}}
	}
	for i, n := range samples {
		f := &profile.Function{ID: uint64(i + 1), Name: fmt.Sprint("main.f", i)}
		l := &profile.Location{ID: uint64(i + 1), Mapping: m, Address: 0x1000 + uint64(i), Line: []profile.Line{{Function: f, Line: 1}}}
		p.Function, p.Location = append(p.Function, f), append(p.Location, l)
		p.Sample = append(p.Sample, &profile.Sample{Location: []*profile.Location{l}, Value: []int64{n, n * 1e7}})
	}
	return &export.Profile{
		Kind: kind, PID: pid, StartTicks: 7, Comm: service, Service: service, Start: at, Duration: time.Second, Data: p,
		Labels: []export.Label{{Name: "host", Value: "h"}, {Name: "pid", Value: fmt.Sprint(pid)}},
	}
}

// agentDir is a directory in which an agent goes on to write: two services, three minutes of CPU profiles, one of heaps.
func agentDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "profiles")
	s, err := file.OpenStore(file.StoreOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for i, service := range []string{"api", "web/\x1b[31m evil"} {
		for minute := range 3 {
			at := storedAt.Add(time.Duration(minute) * time.Minute)
			store(t, s, storedProfile(service, "cpu", 10+i, at, 10, int64(minute)))
		}
		store(t, s, storedProfile(service, "heap", 10+i, storedAt, 5, 6))
	}
	return dir
}

func store(t *testing.T, s *file.Store, p *export.Profile) {
	t.Helper()
	if err := s.Export(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// good is the output of a command that succeeds.
func good(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	code, out, errOut := call(t, args...)
	if code != 0 {
		t.Fatalf("%q: exit code %d: %s", args, code, errOut)
	}
	return out, errOut
}

func TestLS(t *testing.T) {
	dir := agentDir(t)
	want := `TIME                      SERVICE               PID  KIND  SIZE  FILE
2026-11-23T09:02:00.000Z  api                   10   cpu   SIZE  DIR/api/10-7/cpu-20261123T090200.000Z.pb.gz
2026-11-23T09:02:00.000Z  web/\x1b[31m evil  11   cpu   SIZE  DIR/web%2F%1B%5B31m%20evil/11-7/cpu-20261123T090200.000Z.pb.gz
`
	out, errOut := good(t, "ls", "--kind", "cpu", "--from", "2026-11-23T09:01:30Z", dir)
	var sizes []lsRow
	js, _ := good(t, "ls", "--json", "dir:"+dir+"?kind=cpu&from=2026-11-23T09:01:30Z")
	if err := json.Unmarshal([]byte(js), &sizes); err != nil || len(sizes) != 2 {
		t.Fatalf("%v: %s", err, js)
	}
	got := strings.ReplaceAll(out, dir, "DIR")
	for _, r := range sizes {
		got = strings.ReplaceAll(got, fmt.Sprint("  ", r.Size, "  "), "  SIZE  ")
	}
	if d := gocmp.Diff(strings.Fields(want), strings.Fields(got)); d != "" || errOut != "" {
		t.Errorf("%s\n%s\n%s", out, errOut, d)
	}
	st, err := os.Stat(sizes[0].Path)
	if err != nil || st.Size() != sizes[0].Size || sizes[1].Service != "web/\x1b[31m evil" || sizes[0].Start != 7 || !sizes[0].Time.Equal(storedAt.Add(2*time.Minute)) {
		t.Errorf("%v, %+v", err, sizes)
	}
}

func TestLSFilters(t *testing.T) {
	dir := agentDir(t)
	for args, want := range map[string]int{
		"": 8, "--service api": 4, "--service a*": 4, "--pid 11 --kind heap": 1, "--pid 10,11 --kind heap": 2, "--label pid=10": 4,
		"--to 2026-11-23T09:00:00.001Z": 4, "--service none": 0, "--from 2026-11-24": 0,
	} {
		out, errOut := good(t, append([]string{"ls", "--json", dir}, strings.Fields(args)...)...)
		var rows []lsRow
		if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != want || rows == nil {
			t.Errorf("%s: %v, %d", args, err, len(rows))
		}
		if told := strings.Contains(errOut, `there are 8, of services api, web/\x1b[31m evil, of kinds cpu, heap, from 2026-11-23T09:00:00Z to 2026-11-23T09:02:00Z`); told != (want == 0) {
			t.Errorf("%s: %s", args, errOut)
		}
	}
}

func TestLSSummary(t *testing.T) {
	out, _ := good(t, "ls", "--summary", agentDir(t))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[1], "api ") || strings.Join(strings.Fields(lines[1])[1:4], " ") != "cpu 3 1" ||
		!strings.HasSuffix(lines[1], "2026-11-23T09:00:00.000Z  2026-11-23T09:02:00.000Z") {
		t.Error(out)
	}
}

func TestMergeOfSelector(t *testing.T) {
	dir := agentDir(t)
	target := filepath.Join(t.TempDir(), "sum.pb.gz")
	selector := "dir:" + dir + "?service=api&kind=cpu&from=2026-11-23T09:01:00Z"
	out, errOut := good(t, "merge", selector, "-o", target)
	if errOut != "" || !strings.Contains(out, "main.f0") || !strings.Contains(out, "2 profiles from 2026-11-23T09:01:00Z to 2026-11-23T09:02:00Z\n"+target+": go tool pprof "+target) {
		t.Errorf("%s\n%s", out, errOut)
	}
	p := readProfile(t, target)
	if holds(p, "main.f0") != 20 || holds(p, "main.f1") != 3 || p.DurationNanos != 2e9 || p.TimeNanos != storedAt.Add(time.Minute).UnixNano() {
		t.Errorf("%v", p)
	}
	if c := strings.Join(p.Comments, "\n"); c != `labels {service_name="api", host="h", pid="10"}`+"\nmerged from 2 profiles" {
		t.Errorf("%s", c)
	}
	folded, _ := good(t, "merge", selector, target, "--format", "folded", "-o", "-")
	if !strings.Contains(folded, "main.f0 400000000\n") {
		t.Errorf("%s", folded)
	}
	out, _ = good(t, "merge", "-q", selector, "-o", target)
	if strings.Count(out, "\n") != 1 {
		t.Errorf("%s", out)
	}
}

func TestMergeLeavesOutWhatIsBroken(t *testing.T) {
	dir := agentDir(t)
	broken := filepath.Join(dir, "api/10-7/cpu-20261123T090100.000Z.pb.gz")
	if err := os.WriteFile(broken, []byte("no profile"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "sum.pb.gz")
	_, errOut := good(t, "merge", "dir:"+dir+"?service=api&kind=cpu", "-o", target)
	if !strings.Contains(errOut, "note: left out: "+broken) || holds(readProfile(t, target), "main.f0") != 20 {
		t.Errorf("%s", errOut)
	}
	_, errOut = good(t, "merge", "dir:"+dir+"?kind=heap", "dir:"+dir+"?kind=heap&pid=10", "-o", target)
	if errOut != "" {
		t.Errorf("heaps of different processes: %s", errOut)
	}
}

// What is in use at two moments does not add up to anything: that is told.
func TestMergeOfHeaps(t *testing.T) {
	dir := t.TempDir()
	s, err := file.OpenStore(file.StoreOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for minute := range 2 {
		store(t, s, storedProfile("api", "heap", 10, storedAt.Add(time.Duration(minute)*time.Minute), 1))
	}
	if _, errOut := good(t, "merge", "dir:"+dir, "-o", filepath.Join(t.TempDir(), "x")); !strings.Contains(errOut, "up to 2 heaps of one process are added up") {
		t.Errorf("%s", errOut)
	}
}

func TestStoredErrors(t *testing.T) {
	dir := agentDir(t)
	cpu := filepath.Join(dir, "api/10-7/cpu-20261123T090100.000Z.pb.gz")
	heap := filepath.Join(dir, "api/10-7/heap-20261123T090000.000Z.pb.gz")
	target := filepath.Join(t.TempDir(), "x.pb.gz")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"ls", dir, dir}, exitUsage, "one directory or selector, got 2"},
		{[]string{"ls", "dir:" + dir + "?sevice=x"}, exitUsage, `"sevice" is unknown`},
		{[]string{"ls", "--from", "yesterday", dir}, exitUsage, `"yesterday" is no time`},
		{[]string{"ls", "--from", "now", "--to", "-1h", dir}, exitUsage, "from is not before to"},
		{[]string{"ls", "--json", "--summary", dir}, exitUsage, "--json and --summary"},
		{[]string{"ls", filepath.Join(dir, "none")}, exitFailure, "does not exist: the agent makes it"},
		{[]string{"ls", cpu}, exitFailure, "not a directory"},
		{[]string{"merge", "-o", target}, exitUsage, "nothing to merge"},
		{[]string{"merge", cpu}, exitUsage, "-o is missing"},
		{[]string{"merge", dir, "-o", target}, exitUsage, "is a directory: write dir:" + dir},
		{[]string{"merge", "dir:" + dir, "-o", target}, exitUsage, "several kinds, which do not add up: cpu (6), heap (2): choose one by kind="},
		{[]string{"merge", cpu, heap, "-o", target}, exitFailure, "profiles of different kinds: one has samples/count"},
		{[]string{"merge", cpu, target, "-o", target}, exitFailure, "no such file"},
		{[]string{"merge", "dir:" + dir + "?kind=cpu&label=host=x", "-o", target}, exitFailure, "no profile fits; there are 8"},
		{[]string{"merge", "dir:" + t.TempDir(), "-o", target}, exitFailure, "there is no profile in"},
		{[]string{"merge", cpu, "-o", "/does/not/exist"}, exitFailure, "/does/not/exist"},
		{[]string{"merge", cpu, "-o", target, "--format", "x"}, exitUsage, `unknown format "x"`},
		{[]string{"diff", cpu}, exitUsage, "diff wants two"},
		{[]string{"diff", cpu, heap}, exitFailure, "profiles of different kinds"},
		{[]string{"diff", cpu, heap, "--normalize"}, exitFailure, "profiles of different kinds"},
	} {
		code, out, errOut := call(t, c.args...)
		if code != c.code || !strings.Contains(errOut, c.says) || out != "" {
			t.Errorf("%q: exit code %d, %s%s; wanted %d, %q", c.args, code, out, errOut, c.code, c.says)
		}
	}
	if _, err := os.Stat(target); !os.IsNotExist(err) {
		t.Errorf("a file is left: %v", err)
	}
}

// TestDiffIsPprofs compares the file with what go tool pprof makes of the two.
func TestDiffIsPprofs(t *testing.T) {
	goTool := needs.Tool(t, "go")
	dir := t.TempDir()
	write := func(name string, samples ...int64) string {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := storedProfile("api", "cpu", 1, storedAt, samples...).Data.Write(f); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := write("a.pb.gz", 100, 50, 30, 0, 7), write("b.pb.gz", 100, 80, 10, 5, 9)
	for _, normalize := range []bool{false, true} {
		args, base := []string{"diff", a, b, "-o", filepath.Join(dir, "d.pb.gz"), "-n", "2"}, []string{"-base", a, b}
		if normalize {
			args, base = append(args, "--normalize"), append([]string{"-normalize"}, base...)
		}
		out, errOut := good(t, args...)
		want := rowsOf(t, goTool, base...)
		if d := gocmp.Diff(want, rowsOf(t, goTool, filepath.Join(dir, "d.pb.gz"))); d != "" || len(want) < 4 {
			t.Errorf("%q: %s", args, d)
		}
		if errOut != "" || strings.Count(out, "main.f") != 2 || !strings.Contains(out, "(all)") {
			t.Errorf("%s\n%s", out, errOut)
		}
	}
	cmd, out, errOut := command(t, "diff", a, b, "-o", "-")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(out)
	if err != nil || holds(p, "main.f2") != -20 || !strings.Contains(errOut.String(), "cum change") {
		t.Errorf("%v: %s", err, errOut)
	}
}

// rowsOf are the lines of the table that go tool pprof prints.
func rowsOf(t *testing.T, goTool string, args ...string) (rows []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), goTool, append([]string{"tool", "pprof", "-top", "-nodefraction=0"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 6 && strings.HasPrefix(f[5], "main.") {
			rows = append(rows, f[0]+" "+f[3]+" "+f[5]) // percentages are of other sums
		}
	}
	return rows
}

func TestDiffOfDurations(t *testing.T) {
	dir := agentDir(t)
	_, errOut := good(t, "diff", "dir:"+dir+"?service=api&kind=cpu&to=2026-11-23T09:01:00Z", "dir:"+dir+"?service=api&kind=cpu")
	if !strings.Contains(errOut, "the first is of 1s, the second of 3s: --normalize compares shares") {
		t.Errorf("%s", errOut)
	}
	out, errOut := good(t, "diff", "dir:"+dir+"?kind=heap&pid=10", "dir:"+dir+"?kind=heap&pid=11", "-n", "0")
	if !strings.Contains(out, "before: 1 profile of 2026-11-23T09:00:00Z\nafter:  1 profile of 2026-11-23T09:00:00Z\n") {
		t.Errorf("%s\n%s", out, errOut)
	}
}

func TestCompletionKnowsServices(t *testing.T) {
	dir := agentDir(t)
	if _, out, _ := call(t, "__complete", "ls", dir, "--service", ""); !strings.HasPrefix(out, "api\n") || strings.Contains(out, "evil") {
		t.Errorf("%q", out)
	}
	if _, out, _ := call(t, "__complete", "ls", "--kind", ""); !strings.Contains(out, "cpu\n") {
		t.Errorf("%q", out)
	}
	if _, out, _ := call(t, "__complete", "merge", "--format", ""); !strings.Contains(out, "folded\n") {
		t.Errorf("%q", out)
	}
}
