package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/profiler"
)

func psJSON(t *testing.T) map[int]psRow {
	t.Helper()
	code, out, _ := call(t, "ps", "--json")
	var rows []psRow
	if err := json.Unmarshal([]byte(out), &rows); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s", code, err, out)
	}
	byPID := map[int]psRow{}
	for _, r := range rows {
		byPID[r.PID] = r
	}
	return byPID
}

// The oracle is "go version", which reads the same files with other code.
func TestPSKnowsHowProgramsWereBuilt(t *testing.T) {
	for _, o := range []testprog.Options{{}, {Strip: true}, {PIE: true}, {Cgo: true, LDFlags: "-linkmode=external"}, {Go: "1.18.10"}} {
		t.Run(o.String(), func(t *testing.T) {
			path := testprog.Build(t, "spin", o)
			p := testprog.Start(t, path, "-threads=1", "-seconds=60")
			got, ok := psJSON(t)[p.PID]
			if !ok {
				t.Fatal("not listed")
			}
			out, err := exec.Command("go", "version", path).Output()
			if err != nil {
				t.Fatal(err)
			}
			want := psRow{
				PID: p.PID, UID: uint32(os.Geteuid()), User: got.User, Comm: "spin", Exe: path, Command: []string{path, "-threads=1", "-seconds=60"},
				GoVersion: strings.TrimSpace(strings.TrimPrefix(string(out), path+": ")),
				Module:    "targets", Version: "(devel)", Stripped: o.Strip, PIE: o.PIE, Cgo: o.Cgo, Profilable: true,
				MemProfile:   memLinkedOut, // spin reads none
				BlockProfile: memOff, MutexProfile: memOff,
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestPSKnowsWhetherMemoryIsProfiled: what ps says is what the program was told to do, and what record then does.
func TestPSKnowsWhetherMemoryIsProfiled(t *testing.T) {
	heap := func(o testprog.Options, args ...string) int {
		return testprog.Start(t, testprog.Build(t, "heap", o), append(args, "-quiet")...).PID
	}
	want := map[int]string{
		heap(testprog.Options{}): "on (512)",
		heap(testprog.Options{Strip: true, PIE: true}, "-rate", "524288"):                              "on (524288)",
		heap(testprog.Options{Go: "1.18.10", Strip: true}, "-rate", "1"):                               "on (1)",
		heap(testprog.Options{Cgo: true}, "-rate", "0"):                                                "off",
		testprog.Start(t, testprog.Build(t, "spin", testprog.Options{Strip: true}), "-seconds=60").PID: "linked out",
	}
	got := psJSON(t)
	_, table, _ := call(t, "ps")
	for pid, says := range want {
		r := got[pid]
		if r.memory() != says || r.MemProfileReason != "" {
			t.Errorf("process %d: %q, want %q; %+v", pid, r.memory(), says, r)
		}
		if line := regexp.MustCompile(fmt.Sprintf(`(?m)^%d .*$`, pid)).FindString(table); !strings.Contains(line, " "+says+" ") {
			t.Errorf("%q says nothing of %q", line, says)
		}
		code, _, errOut := call(t, "record", "-p", fmt.Sprint(pid), "-t", "heap", "-o", filepath.Join(t.TempDir(), "x"))
		if can := code == 0; can != (r.MemProfile == memOn) {
			t.Errorf("ps says %s; record -t heap: exit code %d, %s", says, code, errOut)
		}
	}
}

// TestPackedProgramsAreListed, and recorded: their executable says nothing, their memory does.
func TestPackedProgramsAreListed(t *testing.T) {
	heap := testprog.Build(t, "heap", testprog.Options{Strip: true})
	p := testprog.Start(t, testprog.Loader(t), heap, "-quiet", "-busy")
	r := psJSON(t)[p.PID]
	if !r.Profilable || r.Comm != "loader" || r.Module != "targets" || !strings.HasPrefix(r.GoVersion, "go1.") || r.memory() != "on (512)" {
		t.Errorf("%+v", r)
	}
	for _, kind := range []string{"heap", "cpu"} {
		file := filepath.Join(t.TempDir(), kind)
		if code, _, errOut := call(t, "record", "-p", fmt.Sprint(p.PID), "-t", kind, "-d", "1s", "-o", file); code != 0 {
			t.Fatal(errOut)
		}
		if prof := readProfile(t, file); holds(prof, "main.sites") == 0 {
			t.Errorf("%s: no samples of the program's function", kind)
		}
	}
	bare := filepath.Join(t.TempDir(), "sleep")
	data, err := os.ReadFile(needs.Tool(t, "sleep"))
	if err := errors.Join(err, os.WriteFile(bare, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	testprog.DropSections(t, bare)
	sleep := testprog.StartWith(t, testprog.StartOptions{NoReady: true}, bare, "60")
	if code, _, errOut := call(t, "record", "-p", fmt.Sprint(sleep.PID)); code != exitFailure || !strings.Contains(errOut, "not a Go program: "+bare) {
		t.Errorf("packed, and not Go: exit code %d, %s", code, errOut)
	}
}

// TestPSSaysWhyItDoesNotKnow: memory that may not be read is no reason to guess.
func TestPSSaysWhyItDoesNotKnow(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-quiet")
	m := profiler.NewMemory(profiler.MemoryConfig{})
	defer m.Close()
	r := psRow{PID: proc.PID, Profilable: true}
	proc.Stop()
	if r.memProfile(m); r.MemProfile != memUnknown || !strings.Contains(r.memory(), fmt.Sprintf("unknown: process %d", proc.PID)) {
		t.Errorf("a process that is gone: %+v", r)
	}
	r = psRow{PID: os.Getpid(), Reason: "it is built for EM_S390"}
	if r.memProfile(m); r.memory() != "unknown: it is built for EM_S390" {
		t.Errorf("a program that cannot be profiled: %+v", r)
	}
}

// TestPSLeavesOutWhoHasEnded meanwhile: that nothing could be read says nothing then.
func TestPSLeavesOutWhoHasEnded(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds=60")
	in := discover.NewInspector(procRoot)
	p, err := in.Inspect(proc.PID)
	if err != nil {
		t.Fatal(err)
	}
	r := psRows([]*discover.Process{p})[0]
	if r.ended(in) {
		t.Error("it runs")
	}
	other := r
	if other.start++; !other.ended(in) {
		t.Error("another process of that PID")
	}
	if proc.Stop(); !r.ended(in) {
		t.Error("it has ended")
	}
}

// TestPSFitsTheTerminal: what is cut is the command, and some of it is always there.
func TestPSFitsTheTerminal(t *testing.T) {
	var b strings.Builder
	if err := printRows(&b, []psRow{{PID: 7, Command: []string{strings.Repeat("ä", 300), "end"}}}); err != nil || !strings.HasSuffix(b.String(), " end\n") {
		t.Fatalf("%q, %v", b.String(), err)
	}
	at := strings.Index(b.String(), "COMMAND")
	for width, want := range map[int]int{0: at + 304, 40: at + leastCommand, 200: 200, 1000: at + 304} {
		head, row, _ := strings.Cut(strings.TrimSuffix(shortRows(b.String(), width), "\n"), "\n")
		if n := utf8.RuneCountInString(row); n != want || !strings.HasSuffix(head, "COMMAND") || strings.HasSuffix(row, "…") == strings.HasSuffix(row, "end") {
			t.Errorf("%d columns: %d, want %d: %q", width, n, want, row)
		}
	}
}

func TestPSReadsProgramsWhoseFileIsGone(t *testing.T) {
	data, err := os.ReadFile(testprog.Build(t, "spin", testprog.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "spin")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	p := testprog.Start(t, path, "-threads=1", "-seconds=60")
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("another file"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := psJSON(t)[p.PID]; !got.Deleted || got.Exe != path || got.Module != "targets" || !got.Profilable {
		t.Errorf("%+v", got)
	}
}

func TestProcessesThatAreNoTargetsAreNamed(t *testing.T) {
	sleep := exec.Command(needs.Tool(t, "sleep"), "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { sleep.Process.Kill(); _ = sleep.Wait() }()
	spin := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=1", "-seconds=60")
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", spin.PID))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%v, %v", tasks, err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", sleep.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ pid, says string }{
		"C program": {fmt.Sprint(sleep.Process.Pid), "not a Go program: " + exe + ", an ELF executable without Go's tables"},
		"thread":    {tasks[1].Name(), fmt.Sprintf("%s is a thread of process %d", tasks[1].Name(), spin.PID)},
		"nobody":    {"4194304", "no such process: 4194304"}, // PID_MAX_LIMIT, which no process has
	} {
		code, out, errOut := call(t, "record", "-p", c.pid, "-d", "1s", "-o", filepath.Join(t.TempDir(), "x"))
		if code != exitFailure || out != "" || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: exit code %d, says %q, want %q", name, code, errOut, c.says)
		}
	}
	code, _, errOut := call(t, "record", "--comm", "sleep")
	if code != exitFailure || !strings.Contains(errOut, fmt.Sprintf("left out: process %d: not a Go program", sleep.Process.Pid)) || !strings.Contains(errOut, `no Go process matches --comm "sleep"`) {
		t.Errorf("--comm sleep: exit code %d, %q", code, errOut)
	}
}

// To others than root a kernel thread is a process that they have no right to look at.
func TestKernelThreadIsNamed(t *testing.T) {
	needs.Root(t)
	if stat, err := procfs.New("").Proc(2).Stat(); err != nil || stat.Comm != "kthreadd" {
		needs.Missing(t, "kthreadd", "the host's PID namespace: PID 2 is no kernel thread here")
	}
	if _, _, errOut := call(t, "record", "-p", "2"); !strings.Contains(errOut, "process 2: not a Go program: a kernel thread") {
		t.Errorf("kernel thread: %q", errOut)
	}
}

func TestPatternsChooseProcesses(t *testing.T) {
	path := testprog.Build(t, "spin", testprog.Options{})
	a := testprog.Start(t, path, "-threads=1", "-seconds=60")
	b := testprog.Start(t, path, "-threads=1", "-seconds=60")
	for name, o := range map[string]recordOptions{
		"comm":          {comms: []string{"sp[i]n"}},
		"exe":           {exes: []string{filepath.Dir(path) + "/*"}},
		"both, and PID": {comms: []string{"spin"}, exes: []string{path}, pids: []int{a.PID}},
	} {
		chosen, err := chooseTargets(t.Context(), io.Discard, &o)
		if err != nil {
			t.Fatal(err)
		}
		count := map[int]int{}
		for _, p := range chosen {
			count[p.PID]++
		}
		if count[a.PID] != 1 || count[b.PID] != 1 || count[os.Getpid()] != 0 {
			t.Errorf("%s: %v, want %d and %d once", name, count, a.PID, b.PID)
		}
	}
}

func TestUnreadableProcessesAreCounted(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	stat := "7 (x) S 1" + strings.Repeat(" 0", 40)
	if err := os.WriteFile(filepath.Join(root, "7", "stat"), []byte(stat), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(root, "7", "exe")); err != nil {
		t.Fatal(err)
	}
	if _, err := discover.NewInspector(root).Inspect(7); !errors.Is(err, objfile.ErrNotGo) {
		t.Errorf("a directory: %v", err)
	}
	exe := filepath.Join(root, "7", "exe")
	if err := errors.Join(os.Remove(exe), os.WriteFile(exe, nil, 0o600)); err != nil { // readlink fails with EINVAL
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if err := ps(t.Context(), &out, &errOut, root, true); err != nil || out.String() != "[]\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if !strings.Contains(errOut.String(), "could not be read: 1: invalid argument") {
		t.Errorf("%q", errOut.String())
	}
}

func TestVersionOf(t *testing.T) {
	bi := func(version string, settings ...string) *debug.BuildInfo {
		b := &debug.BuildInfo{Main: debug.Module{Version: version}}
		for i := 0; i < len(settings); i += 2 {
			b.Settings = append(b.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return b
	}
	for want, b := range map[string]*debug.BuildInfo{
		"v1.2.3":                   bi("v1.2.3", "vcs.revision", "0123456789abcdef"),
		"devel":                    bi("(devel)"),
		"devel-0123456789ab":       bi("(devel)", "vcs.revision", "0123456789abcdef"),
		"devel-0123456789ab+dirty": bi("", "vcs.revision", "0123456789abcdef", "vcs.modified", "true"),
	} {
		if got := versionOf(b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
