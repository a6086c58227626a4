package procfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestCgroups(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		want []Cgroup
		ok   bool
	}{
		"version 2": {"0::/system.slice/nginx.service\n", []Cgroup{{Path: "/system.slice/nginx.service"}}, true},
		"hybrid": {"12:cpu,cpuacct:/a\n1:name=systemd:/b:c d\n0::/e (deleted)\n",
			[]Cgroup{{[]string{"cpu", "cpuacct"}, "/a"}, {[]string{"name=systemd"}, "/b:c d"}, {Path: "/e"}}, true},
		"no groups":            {"", nil, true},
		"a newline in a name":  {"0::/a\nb\n", []Cgroup{{Path: "/a"}}, false},
		"a relative path":      {"0::a\n", nil, false},
		"cut in the middle":    {"0:", nil, false},
		"more than there are":  {strings.Repeat("0::/\n", 100), slicesOf(Cgroup{Path: "/"}, maxCgroupLines), false},
		"outside of namespace": {"0::/../../kubepods\n", []Cgroup{{Path: "/../../kubepods"}}, true},
	} {
		got, err := ParseCgroups([]byte(c.file))
		if diff := cmp.Diff(c.want, got); diff != "" || (err == nil) != c.ok || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func slicesOf[T any](v T, n int) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// What the kernel writes for this process parses, and is what the process's own tools read.
func TestCgroupsOfThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	got, err := New("").Proc(os.Getpid()).Cgroups()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), needs.Tool(t, "cat"), "/proc/self/cgroup").Output()
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(out), "\n"); lines != len(got) {
		t.Errorf("%d groups of\n%s", len(got), out)
	}
	for _, c := range got {
		if !strings.Contains(string(out), ":"+strings.Join(c.Controllers, ",")+":"+c.Path+"\n") {
			t.Errorf("%+v is not in\n%s", c, out)
		}
	}
}

func TestEnvironment(t *testing.T) {
	long := strings.Repeat("x", 3*maxVariable)
	for name, c := range map[string]struct {
		environ string
		want    string // "-": none
	}{
		"the first":            {"PPROFD=off\x00A=1\x00", "off"},
		"the last, without 0":  {"A=1\x00PPROFD=off", "off"},
		"behind a long one":    {"A=" + long + "\x00PPROFD=off\x00", "off"},
		"behind long ones":     {strings.Repeat("A="+long+"\x00", 100) + "PPROFD=off\x00", "off"},
		"inside of a long one": {"A=" + strings.Repeat("x", maxVariable-2) + "PPROFD=off\x00", "-"},
		"twice":                {"PPROFD=a\x00PPROFD=b\x00", "a"},
		"empty":                {"PPROFD=\x00", ""},
		"longer name":          {"PPROFD_X=off\x00XPPROFD=off\x00PPROFD\x00", "-"},
		"not at all":           {"", "-"},
		"beyond all bounds":    {strings.Repeat("A="+long+"\x00", maxEnviron/(3*maxVariable)+1) + "PPROFD=off\x00", "-"},
		"a long value":         {"PPROFD=" + long, long[:maxVariable-len("PPROFD=")]},
	} {
		got, err := findVariable(strings.NewReader(c.environ), "PPROFD")
		if err != nil || (got == nil) != (c.want == "-") || got != nil && *got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := findVariable(iotest.ErrReader(io.ErrClosedPipe), "A"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

func TestEnvironmentOfAProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	cmd := exec.CommandContext(t.Context(), needs.Tool(t, "cat"))
	cmd.Env = []string{"A=1", "PPROFD=off"}
	in, err := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(err, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	// Start returns while the kernel still builds the new program's memory: once it answers, the environment is there.
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p := New("").Proc(cmd.Process.Pid)
	if v, ok, err := p.Getenv("PPROFD"); v != "off" || !ok || err != nil {
		t.Errorf("%q, %v, %v", v, ok, err)
	}
	if v, ok, err := p.Getenv("B"); v != "" || ok || err != nil {
		t.Errorf("%q, %v, %v", v, ok, err)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Getenv("A"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that is gone: %v", err)
	}
}

func FuzzCgroups(f *testing.F) {
	f.Add([]byte("12:cpu,cpuacct:/a\n1:name=systemd:/b:c d\n0::/e (deleted)\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _ := ParseCgroups(b)
		for _, c := range got {
			if !strings.HasPrefix(c.Path, "/") || strings.Contains(c.Path, "\n") || !bytes.Contains(b, []byte(c.Path)) {
				t.Errorf("%+v of %q", c, b)
			}
		}
	})
}

func FuzzEnvironment(f *testing.F) {
	f.Add([]byte("A=1\x00PPROFD=off\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := findVariable(bytes.NewReader(b), "PPROFD")
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		found := false
		for word := range bytes.SplitSeq(b, []byte{0}) {
			if v, ok := bytes.CutPrefix(word, []byte("PPROFD=")); ok {
				want, found = string(v[:min(len(v), maxVariable-len("PPROFD="))]), true
				break
			}
		}
		if found != (got != nil) || found && *got != want {
			t.Errorf("%v of %q", got, b)
		}
	})
}
