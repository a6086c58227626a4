package top

import "github.com/gdamore/tcell/v3"

// action is what a key asks of the screen.
type action uint8

const (
	nothing action = iota
	redraw
	quit
	suspend
)

// page is how many rows a page is where the screen's height is not known.
const page = 10

// key does what a key means.
func (v *View) key(e *tcell.EventKey, height int) action {
	if v.Help { // any key ends it
		v.Help = false
		if e.Key() != tcell.KeyCtrlC && e.Str() != "q" {
			return redraw
		}
	}
	rows := max(page, height-fullHeight)
	switch e.Key() {
	case tcell.KeyCtrlC:
		return quit
	case tcell.KeyCtrlZ:
		return suspend
	case tcell.KeyUp:
		v.Offset = max(0, v.Offset-1)
	case tcell.KeyDown:
		v.Offset++
	case tcell.KeyPgUp:
		v.Offset = max(0, v.Offset-rows)
	case tcell.KeyPgDn:
		v.Offset += rows
	case tcell.KeyHome:
		v.Offset = 0
	case tcell.KeyEnd:
		v.Offset = maxRows
	case tcell.KeyEsc:
		v.Goroutines, v.Offset = false, 0
	default:
		return v.letter(e.Str())
	}
	return redraw
}

func (v *View) letter(s string) action {
	switch s {
	case "q", "Q":
		return quit
	case " ", "p":
		v.Paused = !v.Paused
	case "c":
		v.Cum, v.Offset = !v.Cum, 0
	case "f":
		v.Cum, v.Offset = false, 0
	case "l":
		v.ByLine, v.Goroutines, v.Offset = !v.ByLine, false, 0
	case "g":
		v.Goroutines, v.Offset = !v.Goroutines, 0
	case "j":
		v.Offset++
	case "k":
		v.Offset = max(0, v.Offset-1)
	case "?", "h":
		v.Help = true
	default:
		return nothing
	}
	return redraw
}

// help is the screen of keys.
func (v *View) help(width, height int) []Line {
	text := []string{
		" q, Ctrl-C  quit               Ctrl-Z  suspend",
		" c          sort by cum: what is spent in a function and in what it calls",
		" f          sort by flat: what is spent in a function itself",
		" l          lines, or functions",
		" g          goroutines by what they do and where, or functions; Esc",
		" space, p   pause the screen; sampling goes on",
		" up, down, PgUp, PgDn, Home, End  scroll (also j, k)",
		"",
		" Percent are of one CPU, of the last 5 refreshes; flat and cum in seconds",
		" are all that was sampled since the start. GC is what garbage collection",
		" takes. Of goroutines, waited is known from garbage collections only.",
		" Cost: CPU of pprofd itself, and of its programs in the kernel; not in it",
		" are the timer interrupts, some 10 µs for each sample.",
	}
	lines := []Line{fit(Line{{" pprofd top: keys ", Title}}, width)}
	for _, t := range text {
		lines = append(lines, fit(Line{{t, Plain}}, width))
	}
	for len(lines) < height-1 {
		lines = append(lines, nil)
	}
	return append(lines[:max(0, height-1)], fit(Line{{" any key: back ", Title}}, width))
}
