package top

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/discover"
)

// Style is how a piece of text stands out; terminals without colours have to do with attributes.
type Style uint8

// Styles.
const (
	Plain Style = iota
	Title
	Head
	Hot
	Warm
	Dim
	Alert
)

// Span is text of one style. All that others have written is printable in it.
type Span struct {
	Text  string
	Style Style
}

// Line is a line of the screen.
type Line []Span

// String is the text alone.
func (l Line) String() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.Text)
	}
	return strings.TrimRight(b.String(), " ")
}

// View is what is looked at. Its zero value shows functions, those that take most themselves first.
type View struct {
	Cum        bool // sort by what is spent at a place or below
	ByLine     bool // lines instead of functions
	Goroutines bool // goroutines instead of either
	Help       bool // the keys instead of all
	Paused     bool
	Offset     int // rows that are scrolled over
}

// Bounds of the screen.
const (
	fullHeight = 10  // below, parts of the head are left out
	minTable   = 3   // with its own head
	wide       = 132 // below, what is said of the heap takes two lines
	tall       = 20  // from here on there is room for them
	beside     = 100 // below, there is no room for names of files beside two functions
)

// Lines make a screen of width columns and height lines; height 0: as many as there are rows, and no keys.
func (v *View) Lines(s *Snapshot, width, height int) []Line {
	if v.Help && height > 0 {
		return v.help(width, height)
	}
	lines := v.head(s, width, height)
	room := textRows
	if height > 0 {
		lines = shorten(lines, height)
		room = max(0, height-len(lines)-2) // the table's head, the keys
	}
	table, rows := v.table(s, width, room)
	lines = append(append(lines, table), rows...)
	if height <= 0 {
		return lines
	}
	for len(lines) < height-1 {
		lines = append(lines, nil)
	}
	return append(lines[:max(0, height-1)], v.keys(width))
}

// textRows is how many rows a screen has that is printed as text: the hottest.
const textRows = 40

// shorten leaves out what matters least of the head, from its end but for its last line, where there is little room.
func shorten(lines []Line, height int) []Line {
	for len(lines) > 1 && len(lines)+minTable+1 > height && height < fullHeight {
		at := max(1, len(lines)-2)
		lines = slices.Delete(lines, at, at+1)
	}
	return lines
}

// head is what stands above the table; its last line is the cost.
func (v *View) head(s *Snapshot, width, height int) []Line {
	lines := []Line{v.title(s), cpuLine(s)}
	size, collections := heapText(&s.Runtime, s.At)
	switch {
	case collections == "":
		lines = append(lines, Line{{size, Plain}})
	case width >= wide || height < tall:
		lines = append(lines, Line{{size + "; " + collections, Plain}})
	default:
		lines = append(lines, Line{{size, Plain}}, Line{{collections, Plain}})
	}
	lines = append(lines, Line{{goroutinesText(&s.Runtime, width), Plain}}, costLine(s, width))
	for i := range lines {
		lines[i] = fit(lines[i], width)
	}
	return lines
}

func (v *View) title(s *Snapshot) Line {
	text := fmt.Sprintf(" pprofd top  %s (%d)", discover.Printable(s.Comm), s.PID)
	if v.Paused {
		text += "  PAUSED"
	}
	if s.GoVersion != "" {
		text += "  " + discover.Printable(s.GoVersion)
	}
	text += fmt.Sprintf("  up %s  watched %s  %s ", duration(s.Age), duration(s.Watched), s.At.Format(time.TimeOnly))
	return Line{{text, Title}}
}

func cpuLine(s *Snapshot) Line {
	u := &s.Use
	return Line{
		{"CPU ", Dim}, {percent(u.User + u.Sys), Head},
		{fmt.Sprintf("  user %s  sys %s  GC %s  %d threads  RSS %s", percent(u.User), percent(u.Sys), percent(s.GC), u.Threads, bytes(u.RSS)), Plain},
	}
}

// heapText says how large the heap is, and how it is collected; "": nothing is known of that.
func heapText(r *Runtime, now time.Time) (size, collections string) {
	h := &r.Heap
	switch {
	case r.At.IsZero():
		return "heap: reading", ""
	case r.Err != nil:
		return "heap: see below", ""
	case h.Err != nil:
		return "heap: " + discover.Printable(oneLine(h.Err)), ""
	}
	size = fmt.Sprintf("heap %s live of %s in use, next GC at %s", bytes(h.Live), bytes(h.InUse), pick(h.Goal == 0, "never", bytes(h.Goal)))
	if h.Limit != 0 {
		size += fmt.Sprintf(" (limit %s)", bytes(h.Limit))
	}
	if h.AllocRate > 0 {
		size += fmt.Sprintf(", allocates %s/s", bytes(uint64(h.AllocRate)))
	}
	collections = fmt.Sprintf("%d GCs", h.Cycles)
	if h.Rated {
		collections += fmt.Sprintf(", %.1f/s", h.GCRate)
	}
	if !h.Last.IsZero() {
		collections += fmt.Sprintf(", last %s ago", short(max(0, now.Sub(h.Last))))
	}
	if h.Rated && h.Cycles > 0 {
		collections += ", stops " + percent2(h.Pauses)
	}
	return size, collections
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", " ") }

// goroutinesText says how many goroutines do what; what there is no room for is left out, from the end.
func goroutinesText(r *Runtime, width int) string {
	switch {
	case r.At.IsZero():
		return "goroutines: reading"
	case r.Err != nil:
		return "goroutines: " + discover.Printable(oneLine(r.Err))
	}
	text, parts := fmt.Sprintf("goroutines %d: ", r.States.Total), make([]string, 0, len(r.States.States)+1)
	for i, state := range r.States.States {
		name := state.State.String()
		if state.Reason != "" {
			name = discover.Printable(state.Reason)
		}
		parts = append(parts, fmt.Sprintf("%s%d %s", pick(i > 0, ", ", ""), state.Count, name))
	}
	if r.States.System > 0 {
		parts = append(parts, fmt.Sprintf("; the runtime's own %d", r.States.System))
	}
	return joined(text, parts, width)
}

// joined is as many of the parts as there is room for, the first one in any case.
func joined(text string, parts []string, width int) string {
	for i, part := range parts {
		last := i == len(parts)-1
		if i > 0 && columns(text)+columns(part)+pick(last, 0, columns(and)) > width {
			return text + and
		}
		text += part
	}
	return text
}

const and = ", " + ellipsis

// costLine is what watching takes; what matters least is left out where there is no room.
func costLine(s *Snapshot, width int) Line {
	text := "cost: measuring"
	if s.Cost.Measured {
		text = fmt.Sprintf("cost: pprofd %s CPU, BPF %s", percent2(s.Cost.CPU), percent2(s.Cost.BPF))
	}
	line := Line{{text + ", " + bytes(s.Cost.RSS), Dim}}
	if s.Lost > 0 {
		line = append(line, Span{fmt.Sprintf(", %d lost", s.Lost), Alert})
	}
	rest := make([]string, 0, 2)
	if r := &s.Runtime; !r.At.IsZero() && r.Err == nil {
		rest = append(rest, fmt.Sprintf(", goroutines %s each %s", short(r.Took), short(r.Pause)))
	}
	rest = append(rest, fmt.Sprintf(", %d samples in %s at %d Hz", s.Samples, short(s.Late), s.Frequency))
	for _, part := range rest {
		if columns(line.String())+columns(part) <= width {
			line = append(line, Span{part, Dim})
		}
	}
	return line
}

// table is what is below the head: at most room rows.
func (v *View) table(s *Snapshot, width, room int) (head Line, rows []Line) {
	if v.Goroutines {
		return v.goroutines(s, width, room)
	}
	list := s.Funcs
	if v.ByLine {
		list = s.Lines
	}
	list = slices.Clone(list)
	sortRows(list, v.Cum)
	what, marks := "function", [2]string{"flat%*", "cum% "}
	if v.ByLine {
		what = "line"
	}
	if v.Cum {
		marks = [2]string{"flat% ", "cum%*"}
	}
	head = fit(Line{{numbers([4]string{marks[0], marks[1], "flat", "cum"}, width) + what, Head}}, width)
	from := v.scroll(len(list), room)
	for _, r := range list[from:min(len(list), from+room)] {
		rows = append(rows, row(&r, pick(v.Cum, r.Cum, r.Flat)/max(s.Sampled, 0.01), width))
	}
	return head, rows
}

// scroll is the first of n rows to be shown where there is room for so many.
func (v *View) scroll(n, room int) int {
	v.Offset = max(0, min(v.Offset, n-room))
	return v.Offset
}

// narrow screens have no room for seconds.
const narrow = 64

// numbers are what stands before the name.
func numbers(n [4]string, width int) string {
	text := fmt.Sprintf("%7s %7s  ", n[0], n[1])
	if width >= narrow {
		text = fmt.Sprintf("%7s %7s %8s %8s  ", n[0], n[1], n[2], n[3])
	}
	return text
}

// row is a line of the table; of is its share of all that the process did of late.
func row(r *Row, of float64, width int) Line {
	style := Plain
	switch {
	case of >= 0.5:
		style = Hot
	case of >= 0.1:
		style = Warm
	case r.Cum == 0:
		style = Dim
	}
	before := numbers([4]string{percent(r.Flat), percent(r.Cum), seconds(r.FlatAll), seconds(r.CumAll)}, width)
	return fit(Line{{before, style}, {placeName(r, width-columns(before)), pick(style == Dim, Dim, Plain)}}, width)
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// placeName is the function, and the line, in so many columns if that can be.
func placeName(r *Row, width int) string {
	name := discover.Printable(r.Func)
	if r.File == "" {
		return shortName(name, width)
	}
	at := fmt.Sprintf("  %s:%d", discover.Printable(path.Base(r.File)), r.Line)
	return shortName(name, max(width-columns(at), minName)) + at
}

const minName = 8

// goroutines is the table of what goroutines do, and where.
func (v *View) goroutines(s *Snapshot, width, room int) (head Line, rows []Line) {
	head = fit(Line{{groupNumbers("count*", "doing", "waited", width), Head}, {"function < created by", Head}}, width)
	list := s.Runtime.Groups
	from := v.scroll(len(list), room)
	for _, g := range list[from:min(len(list), from+room)] {
		rows = append(rows, fit(groupLine(&g, width), width))
	}
	if len(rows) == 0 && room > 0 {
		rows = append(rows, fit(Line{{"  not read yet", Dim}}, width))
	}
	return head, rows
}

// groupNumbers are what stands before the functions.
func groupNumbers(count, does, waited string, width int) string {
	switch {
	case width < narrow:
		return fmt.Sprintf("%6s %s  ", count, pad(does, 13, false))
	case width < beside:
		return fmt.Sprintf("%6s %s %s  ", count, pad(does, 19, false), pad(waited, 7, true))
	}
	return fmt.Sprintf("%7s %s %s  ", count, pad(does, 22, false), pad(waited, 7, true))
}

func groupLine(g *Group, width int) Line {
	does, waited := g.State, ""
	if g.Reason != "" {
		does = discover.Printable(g.Reason)
	}
	if g.Max > 0 {
		waited = "≥" + short(g.Max)
	}
	numbers := groupNumbers(fmt.Sprint(g.Count), does, waited, width)
	name, at, by := discover.Printable(g.Top), "", ""
	switch {
	case g.Line > 0 && width >= beside:
		at = fmt.Sprintf(" %s:%d", discover.Printable(path.Base(g.File)), g.Line)
	case g.Line > 0:
		at = fmt.Sprintf(":%d", g.Line)
	}
	if g.Creator != "" {
		by = discover.Printable(g.Creator)
	}
	name, by = both(name, by, width-columns(numbers)-columns(at))
	return Line{{numbers, Plain}, {name + at, Plain}, {by, Dim}}
}

const arrow = " < "

// both makes two names fit beside each other; where there is little room, only the first one.
func both(name, by string, width int) (string, string) {
	if by == "" || width < 4*minName {
		return shortName(name, max(minName, width)), ""
	}
	width -= len(arrow)
	if n := columns(name); n+columns(by) > width {
		by = shortName(by, max(width/3, width-n))
		name = shortName(name, width-columns(by))
	}
	return name, arrow + by
}

// keys is the last line.
func (v *View) keys(width int) Line {
	words := []string{"q quit", pick(v.Cum, "f flat", "c cum"), pick(v.ByLine, "l functions", "l lines"), pick(v.Goroutines, "g functions", "g goroutines"),
		pick(v.Paused, "space go on", "space pause"), "? help"}
	if v.Goroutines {
		words = slices.Delete(words, 1, 3)
	}
	return fit(Line{{" " + strings.Join(words, "  ") + " ", Title}}, width)
}
