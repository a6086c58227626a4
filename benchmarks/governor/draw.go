package main

import (
	"fmt"

	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/governor"
)

// picture is what is drawn of a run, simulated or real: values by window.
type picture struct {
	title    string
	cpus     float64
	budget   float64   // CPUs
	at       []float64 // s, the windows' begins
	window   float64   // s
	busy     []float64 // CPUs
	rate     []float64 // Hz
	ceiling  []float64 // Hz
	spent    []float64 // CPUs
	outside  []float64 // the same, measured from outside; nil: not measured
	throttle []float64 // share of the samples
	summary  []bool
}

// draw makes three charts, one below the other: load, rate, and spend beside the budget. Where there was summary mode they
// are shaded.
func (p *picture) draw(path string) error {
	bands := p.bands()
	load := board.Chart{
		Title: p.title, X: "s", Y: "CPUs at work", Steps: true, Bands: bands,
		Lines: []board.Series{p.line("load", p.busy), p.line("CPUs", p.constant(p.cpus))}, Dashed: []string{"CPUs"},
	}
	rate := board.Chart{
		X: "s", Y: "samples/s and CPU", Steps: true, Bands: unnamed(bands),
		Lines: []board.Series{p.line("rate", p.rate), p.line("ceiling", p.ceiling)}, Dashed: []string{"ceiling"},
	}
	spend := board.Chart{
		X: "s", Y: "% of all CPUs", Steps: true, Bands: unnamed(bands),
		Lines: []board.Series{p.line("spent", p.percent(p.spent)), p.line("budget", p.percent(p.constant(p.budget)))}, Dashed: []string{"budget"},
	}
	if p.outside != nil {
		spend.Lines = append(spend.Lines, p.line("spent, measured from outside", p.percent(p.outside)))
	}
	if err := board.WriteSVG(path, load, rate, spend); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// line holds the last value up to the end of its window.
func (p *picture) line(name string, y []float64) board.Series {
	s := board.Series{Name: name}
	s.X, s.Y = append(s.X, p.at...), append(s.Y, y...)
	if n := len(s.X); n > 0 {
		s.X, s.Y = append(s.X, s.X[n-1]+p.window), append(s.Y, s.Y[n-1])
	}
	return s
}

func (p *picture) constant(v float64) []float64 {
	list := make([]float64, len(p.at))
	for i := range list {
		list[i] = v
	}
	return list
}

func (p *picture) percent(cpus []float64) []float64 {
	list := make([]float64, len(cpus))
	for i := range list {
		list[i] = 100 * cpus[i] / p.cpus
	}
	return list
}

// bands are the times of summary mode.
func (p *picture) bands() (list []board.Band) {
	for i, on := range p.summary {
		switch last := len(list) - 1; {
		case !on:
		case i > 0 && p.summary[i-1]:
			list[last].To = p.at[i] + p.window
		default:
			list = append(list, board.Band{From: p.at[i], To: p.at[i] + p.window})
		}
	}
	if len(list) > 0 {
		list[0].Name = "summary mode"
	}
	return list
}

func unnamed(bands []board.Band) []board.Band {
	list := append([]board.Band(nil), bands...)
	for i := range list {
		list[i].Name = ""
	}
	return list
}

// pictured takes what a simulation shows.
func (s *simulation) pictured(rows []row) *picture {
	p := &picture{title: fmt.Sprintf("%s: %s", s.name, s.about), cpus: s.cpus, budget: s.budget * s.cpus, window: s.window}
	for i := range rows {
		r := &rows[i]
		cpu := r.setting("cpu")
		p.at, p.busy = append(p.at, r.at), append(p.busy, r.busy)
		p.rate, p.ceiling = append(p.rate, cpu.Rate), append(p.ceiling, cpu.Ceiling)
		p.spent, p.throttle = append(p.spent, r.spent), append(p.throttle, r.throttled("cpu"))
		p.summary = append(p.summary, r.settings.Mode == governor.Summary)
	}
	return p
}
