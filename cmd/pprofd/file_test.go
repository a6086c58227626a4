package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// The tests of this file look at the profile that a recording leaves, as its readers do.

// mixed records the program with the many kinds of work, and returns the file.
func mixed(t *testing.T, o testprog.Options, args ...string) (bin, file string) {
	t.Helper()
	bin = testprog.Build(t, "mixed", o)
	p := testprog.Start(t, bin, "-seconds", "60")
	cmd, _, errOut := command(t, append([]string{"record", "-q", "-p", fmt.Sprint(p.PID), "-d", "2s", "-F", "499"}, args...)...)
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	p.Stop()
	return bin, filepath.Join(cmd.Dir, "cpu.pb.gz")
}

func TestFileHasWhatReadersExpect(t *testing.T) {
	bin, file := mixed(t, testprog.Options{})
	p := readProfile(t, file)
	var types []string
	for _, v := range p.SampleType {
		types = append(types, v.Type+"/"+v.Unit)
	}
	if !slices.Equal(types, []string{"samples/count", "cpu/nanoseconds"}) || p.PeriodType.Type != "cpu" || p.PeriodType.Unit != "nanoseconds" {
		t.Errorf("types %v, period %v", types, p.PeriodType)
	}
	if want := int64(time.Second / 499); p.Period != want {
		t.Errorf("period %d, want %d", p.Period, want)
	}
	if d := time.Duration(p.DurationNanos); d < 2*time.Second || d > 4*time.Second {
		t.Errorf("duration %v", d)
	}
	if ago := time.Since(time.Unix(0, p.TimeNanos)); ago < 2*time.Second || ago > time.Minute {
		t.Errorf("time: %v ago", ago)
	}
	checkComments(t, p)
	checkMappings(t, p, bin)
}

func checkComments(t *testing.T, p *profile.Profile) {
	t.Helper()
	for _, want := range []string{`^pprofd \S+`, `^event (cpu-clock|cycles) at 499 Hz$`, `^samples recorded \d+, lost \d+$`} {
		if !slices.ContainsFunc(p.Comments, regexp.MustCompile(want).MatchString) {
			t.Errorf("no comment %s in %q", want, p.Comments)
		}
	}
}

// checkMappings: the program first, the kernel last; the program's flags and build ID are those that the go tool and
// readers of ELF see.
func checkMappings(t *testing.T, p *profile.Profile, bin string) {
	t.Helper()
	first, last := p.Mapping[0], p.Mapping[len(p.Mapping)-1]
	if first.File != bin || last.File != "[kernel.kallsyms]" {
		t.Errorf("mappings from %s to %s", first.File, last.File)
	}
	if !first.HasFunctions || !first.HasFilenames || !first.HasLineNumbers || !first.HasInlineFrames {
		t.Errorf("flags of the program: %+v", first)
	}
	if last.HasFilenames || last.HasLineNumbers || last.HasInlineFrames || !last.HasFunctions {
		t.Errorf("flags of the kernel: %+v", last)
	}
	notes, err := exec.Command(needs.Tool(t, "readelf"), "-n", bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	if first.BuildID == "" || !strings.Contains(string(notes), first.BuildID) {
		t.Errorf("build ID %q is not in\n%s", first.BuildID, notes)
	}
	for i, m := range p.Mapping {
		if m.ID != uint64(i+1) {
			t.Errorf("mapping %d has ID %d", i, m.ID)
		}
	}
}

func TestGoToolPprofReadsTheFile(t *testing.T) {
	goTool := needs.Tool(t, "go")
	bin, file := mixed(t, testprog.Options{PIE: true})
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"-top"}, []string{"File: " + filepath.Base(bin), "Type: cpu", "flat%"}},
		{[]string{"-top", "-sample_index=samples"}, []string{"Type: samples"}},
		{[]string{"-raw"}, []string{"cpu/nanoseconds", "[FN][FL][LN][IN]"}},
		{[]string{"-traces"}, []string{"main.work"}},
		{[]string{"-peek", "main.work"}, []string{"main.runFor"}},
		{[]string{"-list", "main.runFor"}, []string{"path()"}},
		{[]string{"-comments"}, []string{"pprofd ", "samples recorded"}},
	} {
		out, err := exec.CommandContext(t.Context(), goTool, append(append([]string{"tool", "pprof"}, c.args...), file)...).Output()
		for _, want := range c.says {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%v: %v, no %q in\n%.2000s", c.args, err, want, out)
			}
		}
	}
}

// TestPprofWebInterface asks `go tool pprof -http` for its pages.
func TestPprofWebInterface(t *testing.T) {
	goTool := needs.Tool(t, "go")
	_, file := mixed(t, testprog.Options{})
	address := freeAddress(t)
	cmd := exec.CommandContext(t.Context(), goTool, "tool", "pprof", "-http="+address, "-no_browser", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Signal(os.Interrupt) }()
	base := "http://" + address
	until(t, "the web interface answers", func() bool { _, err := get(base + "/"); return err == nil })
	for page, want := range map[string]string{"/ui/flamegraph": "main.runFor", "/ui/top": "main.runFor", "/ui/source?f=main.runFor": "path()", "/ui/peek?f=main.runFor": "main.work"} {
		body, err := get(base + page)
		if err != nil || !strings.Contains(body, want) {
			t.Errorf("%s: %v, no %q in %.500s", page, err, want, body)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(url string) (string, error) {
	r, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", r.Status)
	}
	return string(b), err
}

// TestWrappersAreNoNews: what stands before the program on the command line is not worth a note.
func TestWrappersAreNoNews(t *testing.T) {
	churn := testprog.Build(t, "churn", testprog.Options{})
	for _, wrap := range [][]string{nil, {"env", "A=1"}, {"sh", "-c", `exec "$@"`, "sh"}, {"env", "nice", "-n", "1"}, {"setsid", "-w"}} {
		if len(wrap) > 0 {
			needs.Tool(t, wrap[0])
		}
		args := append(append([]string{"record", "-o", "x.pb.gz", often, "--"}, wrap...), churn, "-ms", "200")
		cmd, _, errOut := command(t, args...)
		if err := cmd.Run(); err != nil {
			t.Fatal(err, errOut)
		}
		for line := range strings.Lines(errOut.String()) {
			if strings.Contains(line, "note:") && !strings.Contains(line, "stacks could not be completed") {
				t.Errorf("%v: %s", wrap, line)
			}
		}
		p := readProfile(t, filepath.Join(cmd.Dir, "x.pb.gz"))
		if n := holds(p, "main.burn"); n < 50 || p.Mapping[0].File != churn {
			t.Errorf("%v: %d samples, of %s", wrap, n, p.Mapping[0].File)
		}
	}
}

// TestProgramThatIsNotGo is recorded all the same, and told.
func TestProgramThatIsNotGo(t *testing.T) {
	needs.Tool(t, "sh")
	cmd, _, errOut := command(t, "record", often, "--", "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	if strings.Count(errOut.String(), "is not a Go program") != 1 || strings.Contains(errOut.String(), "another program") {
		t.Errorf("%s", errOut)
	}
	if p := readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz")); len(p.Sample) == 0 {
		t.Error("no samples")
	}
}

// TestProgramWithoutSamples leaves an empty profile, which pprof reads.
func TestProgramWithoutSamples(t *testing.T) {
	cmd, _, errOut := command(t, "record", "-F", "1", "--", testprog.Build(t, "hello", testprog.Options{}))
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	p := readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
	if len(p.Sample) > 0 || len(p.Comments) < 3 {
		t.Errorf("%v", p)
	}
	if !strings.Contains(errOut.String(), "profile is empty") {
		t.Errorf("%s", errOut)
	}
	out, err := exec.Command(needs.Tool(t, "go"), "tool", "pprof", "-top", filepath.Join(cmd.Dir, "cpu.pb.gz")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
