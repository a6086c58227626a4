// Command readme writes the newest committed measurements of benchmarks/results into README.md, between the markers
// "<!-- cost: by make board -->" and "<!-- end of cost -->". A test checks that README.md is what it would write.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pprofd/pprofd/benchmarks/board"
)

const (
	begin   = "<!-- cost: by make board -->\n"
	end     = "<!-- end of cost -->\n"
	results = "benchmarks/results"
)

func main() {
	if err := write("README.md", os.DirFS(".")); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1)
	}
}

func write(path string, root fs.FS) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := rewrite(string(old), root)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// rewrite replaces what stands between the markers.
func rewrite(text string, root fs.FS) (string, error) {
	head, rest, ok1 := strings.Cut(text, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return "", errors.New("the markers are missing")
	}
	block, err := block(root)
	return head + begin + block + end + tail, err
}

// measured is one file of results.
type measured struct {
	*board.Report
	facts   map[string]string
	path    string
	picture string // "" where there is none
}

// newest is the last of the files of a board by date; nil: there is none.
func newest(root fs.FS, name string) (*measured, error) {
	paths, err := fs.Glob(root, results+"/"+name+"-*.txt")
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	m := &measured{path: slices.Max(paths)}
	f, err := root.Open(m.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if m.Report, m.facts, err = board.Parse(f); err != nil {
		return nil, fmt.Errorf("%s: %w", m.path, err)
	}
	svg := strings.TrimSuffix(m.path, filepath.Ext(m.path)) + ".svg"
	if _, err := fs.Stat(root, svg); err == nil {
		m.picture = svg
	}
	return m, nil
}

// source says what was measured where.
func (m *measured) source(command string) string {
	date, _, _ := strings.Cut(m.facts["date"], " ")
	text := fmt.Sprintf("`make %s`, %s, %s CPUs (%s, virtual), Linux %s, %s: [%s](%s)\n\n", command, date, m.facts["cpus"], m.facts["cpu"],
		m.facts["kernel"], m.facts["go"], m.path, m.path)
	if m.picture != "" {
		text += fmt.Sprintf("![%s](%s)\n\n", command, m.picture)
	}
	return text
}

// block is all sections for which there are results.
func block(root fs.FS) (string, error) {
	var b strings.Builder
	for _, s := range []struct {
		name, command string
		write         func(*strings.Builder, *measured)
	}{{"cost", "bench", cost}, {"overhead", "overhead", overhead}, {"allocs", "allocs", allocs}, {"scale", "scale", scale}, {"fleet", "fleet", fleet}, {"delivery", "delivery", delivery},
		{"goroutines", "goroutines", goroutines}, {"wall", "wall", wall}} {
		m, err := newest(root, s.name)
		if err != nil {
			return "", err
		}
		if m != nil {
			b.WriteString(m.source(s.command))
			s.write(&b, m)
			b.WriteString("\n")
		}
	}
	return b.String(), nil
}
