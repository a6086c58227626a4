package file

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
)

// goTool runs the real `go tool pprof` on the profile, with nothing dropped and values in nanoseconds.
func goTool(t *testing.T, p *profile.Profile, report string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "p.pb.gz")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-symbolize=none", "-unit=ns",
		"-nodefraction=0", "-edgefraction=0", "-nodecount=1000000", report, name)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return string(out)
}

func profiles(t *testing.T) map[string]*profile.Profile {
	return map[string]*profile.Profile{
		"what runtime/pprof recorded":              runtimeProfile(t),
		"random stacks with recursion, inlining":   randomProfile(1),
		"more random stacks":                       randomProfile(2),
		"inlined here, called there, both at once": randomProfile(3),
	}
}

func TestTopEqualsGoToolPprof(t *testing.T) {
	for name, p := range profiles(t) {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, r := range Top(p, 0) {
				got = append(got, fmt.Sprintf("%d %d %s", r.Flat, r.Cum, r.Name()))
			}
			want := topLines(t, goTool(t, p, "-top"))
			if len(want) < 5 {
				t.Fatalf("only %d rows from go tool pprof", len(want))
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-go tool pprof +Top:\n%s", d)
			}
		})
	}
}

func TestTableEqualsGoToolPprof(t *testing.T) {
	p := randomProfile(4)
	var b bytes.Buffer
	if err := WriteTop(&b, p, 0); err != nil {
		t.Fatal(err)
	}
	percents := regexp.MustCompile(`^ *\S+ +(\S+%) +(\S+%) +\S+ +(\S+%)  (.*)$`)
	columns := func(s string) (rows []string) {
		for line := range strings.Lines(s) {
			if m := percents.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
				rows = append(rows, strings.Join(m[1:], " "))
			}
		}
		return rows
	}
	want := columns(goTool(t, p, "-top"))
	if len(want) < 5 {
		t.Fatalf("only %d rows from go tool pprof", len(want))
	}
	if d := cmp.Diff(want, columns(b.String())); d != "" {
		t.Errorf("-go tool pprof +WriteTop:\n%s", d)
	}
}

func topLines(t *testing.T, out string) (rows []string) {
	t.Helper()
	line := regexp.MustCompile(`^ *(\d+)(?:ns)? +\S+% +\S+% +(\d+)(?:ns)? +\S+%  (.*)$`)
	for l := range strings.Lines(out) {
		if m := line.FindStringSubmatch(strings.TrimRight(l, "\n")); m != nil {
			rows = append(rows, strings.Join(m[1:], " "))
		}
	}
	return rows
}

func TestFoldedEqualsGoToolTraces(t *testing.T) {
	for name, p := range profiles(t) {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteFolded(&b, p); err != nil {
				t.Fatal(err)
			}
			got := make(map[string]int64)
			for line := range strings.Lines(b.String()) {
				i := strings.LastIndexByte(line, ' ')
				v, err := strconv.ParseInt(strings.TrimSpace(line[i:]), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				got[line[:i]] += v
			}
			want := traces(t, goTool(t, p, "-traces"))
			if d := cmp.Diff(want, got); d != "" || len(want) < 5 {
				t.Errorf("%d traces; -go tool pprof +WriteFolded:\n%s", len(want), d)
			}
		})
	}
}

// traces reads -traces: blocks of "<value>ns leaf", then a caller a line. A semicolon in a name, which struct types have, is
// a colon in folded stacks.
func traces(t *testing.T, out string) map[string]int64 {
	t.Helper()
	stacks := make(map[string]int64)
	first := regexp.MustCompile(`^ *(\d+)(?:ns)?   (\S.*)$`)
	for i, block := range strings.Split(out, "-----------+-------------------------------------------------------\n") {
		var v int64
		var names []string
		for l := range strings.Lines(strings.ReplaceAll(block, ";", ":")) {
			l = strings.TrimSuffix(strings.TrimRight(l, "\n"), " (inline)")
			if m := first.FindStringSubmatch(l); m != nil {
				v, _ = strconv.ParseInt(m[1], 10, 64)
				names = []string{m[2]}
			} else if len(names) > 0 {
				names = append([]string{strings.TrimSpace(l)}, names...)
			}
		}
		if i > 0 && len(names) > 0 {
			stacks[strings.Join(names, ";")] += v
		}
	}
	return stacks
}

// runtimeProfile is what runtime/pprof says about some work, more of it where others take the CPU.
func runtimeProfile(t *testing.T) *profile.Profile {
	t.Helper()
	for d := 400 * time.Millisecond; d < 10*time.Second; d *= 2 {
		if p := profileFor(t, d); len(p.Sample) >= 5 {
			return p
		}
	}
	t.Fatal("runtime/pprof takes no samples: no CPU time for this test")
	return nil
}

func profileFor(t *testing.T, d time.Duration) *profile.Profile {
	t.Helper()
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		sink2 += recurse(20) + len(fmt.Sprint(end, sink2))
	}
	pprof.StopCPUProfile()
	p, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var sink2 int

func recurse(n int) int {
	if n == 0 {
		return int(rand.Uint32() & 1)
	}
	return recurse(n-1) + len(strings.Repeat("x", n&3))
}

// randomProfile calls seven functions in all orders, each inlined in some locations and not in others.
func randomProfile(seed uint64) *profile.Profile {
	r := rand.New(rand.NewPCG(seed, 0))
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10101010,
	}
	for i := range 7 {
		p.Function = append(p.Function, &profile.Function{ID: uint64(i + 1), Name: fmt.Sprintf("main.f%d", i)})
	}
	for i := range 12 {
		l := &profile.Location{ID: uint64(i + 1), Address: uint64(i) * 16}
		for range 1 + r.IntN(2) {
			l.Line = append(l.Line, profile.Line{Function: p.Function[r.IntN(7)], Line: int64(r.IntN(9))})
		}
		p.Location = append(p.Location, l)
	}
	for range 30 {
		s := &profile.Sample{Value: []int64{1, r.Int64N(1e9)}}
		for range 1 + r.IntN(6) {
			s.Location = append(s.Location, p.Location[r.IntN(12)])
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}
