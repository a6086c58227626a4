package board

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Parse reads what a Report has written: its measurements and the facts before them.
func Parse(r io.Reader) (*Report, map[string]string, error) {
	report, facts := New(io.Discard), map[string]string{}
	for lines := bufio.NewScanner(r); ; {
		if !lines.Scan() {
			return report, facts, lines.Err()
		}
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 0 || fields[0] == "#":
		case strings.HasPrefix(fields[0], "Benchmark"):
			if err := report.parse(fields); err != nil {
				return nil, nil, fmt.Errorf("%q: %w", lines.Text(), err)
			}
		default:
			if key, value, ok := strings.Cut(lines.Text(), ": "); ok {
				facts[key] = value
			}
		}
	}
}

// Include takes over what an earlier report measured, and tells its facts in comments.
// Lines whose names begin with one of derived are left out: what the reporter computes from the others, and will compute anew.
func (r *Report) Include(in io.Reader, derived ...string) error {
	earlier, facts, err := Parse(in)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(facts)) {
		r.Printf("# measured earlier, %s: %s\n", key, facts[key])
	}
	for _, m := range earlier.lines {
		if !slices.ContainsFunc(derived, func(prefix string) bool { return strings.HasPrefix(m.name, prefix) }) {
			r.Add(m.name, m.n, m.values...)
		}
	}
	return nil
}

// IncludeFiles includes the files of a list with commas, as flags have them; "": none.
func (r *Report) IncludeFiles(list string, derived ...string) error {
	for _, path := range strings.FieldsFunc(list, func(c rune) bool { return c == ',' }) {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(r.Include(f, derived...), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// parse reads name, count, and pairs of a value and its unit.
func (r *Report) parse(fields []string) error {
	if len(fields) < 2 || len(fields)%2 != 0 {
		return fmt.Errorf("%d fields", len(fields))
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return err
	}
	var values []Value
	for i := 2; i < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return err
		}
		values = append(values, Value{v, fields[i+1]})
	}
	r.Add(strings.TrimPrefix(fields[0], "Benchmark"), n, values...)
	return nil
}
