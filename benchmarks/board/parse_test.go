package board

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestParse: what was written is read.
func TestParse(t *testing.T) {
	var out strings.Builder
	r := New(&out)
	r.Facts([]Fact{{"cpu", "AMD: fast"}, {"cpus", "2"}})
	r.Add("X/agent=a", 7, Value{1.5, "ns/sample"}, Value{2e6, "B"})
	r.Add("X/agent=a", 7, Value{2.5, "ns/sample"})
	r.Printf("\n# a table\n")
	got, facts, err := Parse(strings.NewReader(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := got.Median("X/agent=a", "ns/sample"); v != 2 || !ok || facts["cpu"] != "AMD: fast" || len(got.Values("X/agent=a", "B")) != 1 {
		t.Errorf("%v %v, facts %v", v, ok, facts)
	}
	for _, bad := range []string{"BenchmarkX", "BenchmarkX 1 2", "BenchmarkX a", "BenchmarkX 1 x ns"} {
		if _, _, err := Parse(strings.NewReader(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// TestInclude: a report goes on where another ended.
func TestInclude(t *testing.T) {
	var first, second strings.Builder
	r := New(&first)
	r.Facts([]Fact{{"cpus", "2"}})
	r.Add("X", 7, Value{1.5, "ns"}, Value{2e6, "B"})
	r.Add("Mean/X", 1, Value{1.5, "ns"})
	r = New(&second)
	r.Add("X", 7, Value{2.5, "ns"})
	if err := r.Include(strings.NewReader(first.String()), "Mean/"); err != nil {
		t.Fatal(err)
	}
	if v := r.Values("Mean/X", "ns"); len(v) > 0 {
		t.Errorf("a derived value was taken over: %v", v)
	}
	if v := r.Values("X", "ns"); len(v) != 2 || v[0] != 2.5 || v[1] != 1.5 || !strings.Contains(second.String(), "# measured earlier, cpus: 2\nBenchmarkX 7 1.5 ns 2e+06 B\n") {
		t.Errorf("%v, %q", v, second.String())
	}
}

// TestIncludeFiles: so it does of several files, or it says which of them cannot be read.
func TestIncludeFiles(t *testing.T) {
	var out strings.Builder
	New(&out).Add("X", 1, Value{1.5, "ns"})
	good, bad := filepath.Join(t.TempDir(), "good"), filepath.Join(t.TempDir(), "bad")
	for name, text := range map[string]string{good: out.String(), bad: "BenchmarkX 1 x ns\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := New(&out)
	if err := r.IncludeFiles(good + "," + good); err != nil || len(r.Values("X", "ns")) != 2 {
		t.Errorf("%v, %v", r.Values("X", "ns"), err)
	}
	if err := r.IncludeFiles(""); err != nil {
		t.Error(err)
	}
	for _, list := range []string{good + "," + bad, bad + ".none"} {
		if err := r.IncludeFiles(list); err == nil || !strings.Contains(err.Error(), "bad") {
			t.Errorf("%s: %v", list, err)
		}
	}
}
