package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWhereProfilesGo(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.WriteFile("plain", nil, 0o600), os.Mkdir("dir", 0o700)); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 23, 4, 5, 0, time.FixedZone("", 3600))
	cpu, two := []string{"cpu"}, []string{"cpu", "heap"}
	for name, c := range map[string]struct {
		o         recordOptions
		processes int
		terminal  bool
		want      output
		refused   bool
	}{
		"one":                              {o: recordOptions{kinds: cpu}, processes: 1, want: output{path: "cpu.pb.gz"}},
		"one, of another kind":             {o: recordOptions{kinds: []string{"heap"}}, processes: 1, want: output{path: "heap.pb.gz"}},
		"one, folded":                      {o: recordOptions{kinds: cpu, format: "folded"}, processes: 1, want: output{path: "cpu.folded"}},
		"one, text":                        {o: recordOptions{kinds: cpu, format: "text"}, processes: 1, want: output{path: "cpu.txt"}},
		"one for go build":                 {o: recordOptions{kinds: cpu, pgo: true}, processes: 1, want: output{path: "default.pgo"}},
		"one for go build, named":          {o: recordOptions{kinds: cpu, pgo: true, output: "x"}, processes: 1, want: output{path: "x"}},
		"one, over a file":                 {o: recordOptions{kinds: cpu, output: "plain"}, processes: 1, want: output{path: "plain"}},
		"one, into a directory":            {o: recordOptions{kinds: cpu, output: "dir"}, processes: 1, want: output{path: "dir", isDir: true}},
		"one, into a new directory":        {o: recordOptions{kinds: cpu, output: "new/"}, processes: 1, want: output{path: "new/", isDir: true}},
		"one to standard output":           {o: recordOptions{kinds: cpu, output: "-"}, processes: 1, want: output{path: "-"}},
		"pprof on a terminal":              {o: recordOptions{kinds: cpu, output: "-", format: "pprof"}, processes: 1, terminal: true, refused: true},
		"text on a terminal":               {o: recordOptions{kinds: cpu, output: "-", format: "text"}, processes: 1, terminal: true, want: output{path: "-"}},
		"several processes":                {o: recordOptions{kinds: cpu}, processes: 2, want: output{path: "pprofd-20261122T220405Z", isDir: true}},
		"several processes, named":         {o: recordOptions{kinds: cpu, output: "new"}, processes: 2, want: output{path: "new", isDir: true}},
		"several processes, directory":     {o: recordOptions{kinds: cpu, output: "dir"}, processes: 2, want: output{path: "dir", isDir: true}},
		"several processes, over a file":   {o: recordOptions{kinds: cpu, output: "plain"}, processes: 2, refused: true},
		"several processes to one stream":  {o: recordOptions{kinds: cpu, output: "-"}, processes: 2, refused: true},
		"merged":                           {o: recordOptions{kinds: cpu, merge: true}, processes: 2, want: output{path: "cpu.pb.gz"}},
		"merged, over a file":              {o: recordOptions{kinds: cpu, merge: true, output: "plain"}, processes: 2, want: output{path: "plain"}},
		"merged to one stream":             {o: recordOptions{kinds: cpu, merge: true, output: "-"}, processes: 2, want: output{path: "-"}},
		"several kinds":                    {o: recordOptions{kinds: two}, processes: 1, want: output{path: "pprofd-20261122T220405Z", isDir: true}},
		"several kinds, merged, to a file": {o: recordOptions{kinds: two, merge: true, output: "plain"}, processes: 2, refused: true},
		"several kinds to one stream":      {o: recordOptions{kinds: two, output: "-"}, processes: 1, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := planOutput(&c.o, c.processes, c.terminal, now)
			var usage usageError
			if errors.As(err, &usage) != c.refused || got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestOutputThatCannotBeWrittenIsFoundEarly(t *testing.T) {
	dir := t.TempDir()
	o := &recordOptions{kinds: []string{"cpu"}, format: "pprof"}
	if _, err := newSink(output{path: filepath.Join(dir, "missing", "x.pb.gz")}, o, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	s, err := newSink(output{path: filepath.Join(dir, "x.pb.gz")}, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.closeSoon()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("an aborted recording leaves %v, %v", left, err)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"cpu.pb.gz": "cpu.pb.gz", "/tmp/a b": "'/tmp/a b'", "it's": `'it'\''s'`, "": "''", "$x": "'$x'", "a;b": "'a;b'",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
