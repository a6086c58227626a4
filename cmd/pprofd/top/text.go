package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clipperhouse/displaywidth"
)

const (
	ellipsis = "…"
	omitted  = "..." // type arguments
)

// columns is how many columns text takes on a terminal: some characters take two.
func columns(text string) int { return displaywidth.String(text) }

// fit cuts a line after so many columns.
func fit(l Line, width int) Line {
	room := width
	for i, s := range l {
		n := columns(s.Text)
		switch {
		case n <= room:
			room -= n
		case room <= 0:
			return l[:i]
		default:
			cut := slices.Clone(l[:i+1])
			cut[i].Text = displaywidth.TruncateString(s.Text, room, ellipsis)
			return cut
		}
	}
	return l
}

// pad makes text n columns wide.
func pad(text string, n int, right bool) string {
	text = displaywidth.TruncateString(text, n, ellipsis)
	space := strings.Repeat(" ", max(0, n-columns(text)))
	if right {
		return space + text
	}
	return text + space
}

// shortName makes the name of a function fit: what says most is its end. So type arguments go first, as in tracebacks, then elements
// of its package's path, then the beginning of what is left.
func shortName(name string, width int) string {
	if columns(name) <= width {
		return name
	}
	if from, to := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']'); from > 0 && to > from+len(omitted) {
		if name = name[:from+1] + omitted + name[to:]; columns(name) <= width {
			return name
		}
	}
	rest := name
	for columns(ellipsis+rest) > width {
		i := strings.IndexByte(rest[1:], '/')
		if i < 0 || strings.ContainsAny(rest[:i+1], "([") { // of a type's parameter, or an argument
			break
		}
		rest = rest[i+1:]
	}
	if rest != name && columns(ellipsis+rest) <= width {
		return ellipsis + rest
	}
	return cutFront(strings.TrimPrefix(rest, "/"), width)
}

// cutFront keeps the end of text.
func cutFront(text string, width int) string {
	room := width - columns(ellipsis)
	if room <= 0 {
		return displaywidth.TruncateString(text, max(width, 0), "")
	}
	var starts []int // of graphemes
	var widths []int
	for g, at := displaywidth.StringGraphemes(text), 0; g.Next(); at += len(g.Value()) {
		starts, widths = append(starts, at), append(widths, g.Width())
	}
	from := len(text)
	for i := len(starts) - 1; i >= 0 && widths[i] <= room; i-- {
		room -= widths[i]
		from = starts[i]
	}
	return ellipsis + text[from:]
}

// percent of one CPU.
func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }

func percent2(share float64) string { return fmt.Sprintf("%.2f%%", 100*share) }

func bytes(n uint64) string {
	const kilo = 1000
	v, units := float64(n), []string{"B", "kB", "MB", "GB", "TB"}
	for v >= kilo && len(units) > 1 {
		v, units = v/kilo, units[1:]
	}
	if units[0] == "B" || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[0])
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}

func seconds(d time.Duration) string {
	if d >= 1000*time.Second {
		return duration(d)
	}
	return fmt.Sprintf("%.2fs", d.Seconds())
}

// duration is rough, for what lasts for seconds to days.
func duration(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d/time.Second%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d/time.Minute%60)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d/time.Hour%24)
}

// short has three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return duration(d)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 100*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
