package file

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// WriteFolded writes a line per distinct stack, sorted: functions from root to leaf joined by ";", a
// space, and the value of the sample type that the profile wants shown. Kernel functions end in "_[k]", as flamegraph.pl colours them.
func WriteFolded(w io.Writer, p *profile.Profile) error {
	stacks := make(map[string]int64)
	var b strings.Builder
	shown := shownType(p)
	for _, s := range p.Sample {
		b.Reset()
		foldStack(&b, s)
		stacks[b.String()] += value(s, shown)
	}
	bw := bufio.NewWriter(w)
	for _, stack := range slices.Sorted(maps.Keys(stacks)) {
		fmt.Fprintf(bw, "%s %d\n", stack, stacks[stack])
	}
	return bw.Flush()
}

func foldStack(b *strings.Builder, s *profile.Sample) {
	for _, l := range slices.Backward(s.Location) {
		suffix := ""
		if l.Mapping != nil && strings.HasPrefix(l.Mapping.File, "[kernel") {
			suffix = "_[k]"
		}
		for _, name := range frameNames(l) {
			if b.Len() > 0 {
				b.WriteByte(';')
			}
			b.WriteString(strings.ReplaceAll(printable(name), ";", ":"))
			b.WriteString(suffix)
		}
	}
}

// frameNames are the functions of a location, outermost first.
func frameNames(l *profile.Location) []string {
	if len(l.Line) == 0 {
		return []string{fmt.Sprintf("%#x", l.Address)}
	}
	names := make([]string, 0, len(l.Line))
	for _, line := range slices.Backward(l.Line) {
		name := fmt.Sprintf("%#x", l.Address)
		if line.Function != nil {
			name = line.Function.Name
		}
		names = append(names, name)
	}
	return names
}

// WriteText writes all functions in the form of `go tool pprof -top`.
func WriteText(w io.Writer, p *export.Profile) error {
	bw := bufio.NewWriter(w)
	fmt.Fprintf(bw, "Type: %s\n", p.Kind)
	if p.PID != 0 {
		fmt.Fprintf(bw, "Process: %s\n", subject(p))
	}
	total := Total(p.Data)
	unit := valueUnit(p.Data)
	fmt.Fprintf(bw, "Time: %s\n", p.Start.UTC().Format(time.RFC3339))
	fmt.Fprintf(bw, "Duration: %v, Total samples = %s\n", p.Duration.Round(10*time.Millisecond), formatValue(total, unit))
	for _, c := range p.Data.Comments {
		fmt.Fprintf(bw, "# %s\n", printable(c))
	}
	writeTop(bw, Top(p.Data, 0), total, unit)
	return bw.Flush()
}

// WriteTop writes the n hottest functions of p as a table; where p is about waiting, those that wait.
func WriteTop(w io.Writer, p *profile.Profile, n int) error {
	bw := bufio.NewWriter(w)
	p = whoWaits(p)
	writeTop(bw, Top(p, n), Total(p), valueUnit(p))
	return bw.Flush()
}

func writeTop(w *bufio.Writer, rows []TopRow, total int64, unit string) {
	fmt.Fprintf(w, "%10s %5s%% %5s%% %10s %5s%%\n", "flat", "flat", "sum", "cum", "cum")
	var sum int64
	for _, r := range rows {
		sum += r.Flat
		fmt.Fprintf(w, "%10s %s %s %10s %s  %s\n", formatValue(r.Flat, unit), percent(r.Flat, total), percent(sum, total),
			formatValue(r.Cum, unit), percent(r.Cum, total), printable(r.Name()))
	}
}

func valueUnit(p *profile.Profile) string {
	if i := shownType(p); i >= 0 {
		return p.SampleType[i].Unit
	}
	return ""
}

// percent has the width and precision of pprof's: six columns.
func percent(v, total int64) string {
	if total == 0 {
		return fmt.Sprintf("%5.2g%%", 0.0)
	}
	r := math.Abs(float64(v)/float64(total)) * 100
	switch {
	case r >= 99.95 && r <= 100.05:
		return "  100%"
	case r >= 1:
		return fmt.Sprintf("%5.2f%%", r)
	}
	return fmt.Sprintf("%5.2g%%", r)
}

func formatValue(v int64, unit string) string {
	switch unit {
	case "nanoseconds":
		return scaled(v, "ns", []scale{{60e9, "mins"}, {1e9, "s"}, {1e6, "ms"}, {1e3, "us"}})
	case "bytes":
		return scaled(v, "B", []scale{{1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "kB"}})
	}
	return fmt.Sprint(v)
}

type scale struct {
	size float64
	name string
}

func scaled(v int64, base string, scales []scale) string {
	if v == 0 {
		return "0"
	}
	for _, s := range scales {
		if math.Abs(float64(v)) >= s.size {
			n := strings.TrimSuffix(fmt.Sprintf("%.2f", float64(v)/s.size), ".00")
			return n + s.name
		}
	}
	return fmt.Sprint(v) + base
}

// printable replaces what could steer a terminal or break a line: names come from foreign programs.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
