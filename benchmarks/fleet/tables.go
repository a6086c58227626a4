package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// The project's goals.
const (
	goalSteady  = 100 // MB
	goalPeak    = 150 // MB
	goalCore    = 1   // percent, idle, at 19 Hz
	goalFound   = 1   // percent, of 2,000 processes and 50 starts a second that are found
	goalStart   = 5   // s until all are profiled
	goalSamples = 0.1 // how far profiles of short processes may be from their rusage
)

const (
	curveStep  = 2 * time.Second
	curveEvery = 5 // steps: over which the CPU time is averaged
)

// curve writes how CPU time and memory went, for the picture.
func (b *bench) curve(a *agent, m *measured) {
	span := curveEvery * curveStep
	for at := curveStep; ; at += curveStep {
		now, before := a.between(0, at), a.between(0, max(at-span, 0))
		if len(now) == 0 || at-now[len(now)-1].at > curveStep {
			return
		}
		s, d := now[len(now)-1], sample{}
		if len(before) > 0 {
			d = before[len(before)-1]
		}
		if s.at == d.at {
			return
		}
		b.report.Add(fmt.Sprintf("FleetCurve/load=%s/at=%ds", m.name, int(at.Seconds())), 1,
			board.Value{V: float64(s.rss), Unit: "RSS-B"}, board.Value{V: 100 * (s.cpu - d.cpu).Seconds() / (s.at - d.at).Seconds(), Unit: "%core"})
	}
}

// line is the name of what was measured of a load; "": nothing.
func (b *bench) line(load string) string {
	for _, name := range b.report.Names() {
		if strings.HasPrefix(name, "Fleet/load="+load+"/") {
			return name
		}
	}
	return ""
}

// tables writes medians and goals.
func (b *bench) tables() {
	r := b.report
	r.Printf("\n# %-6s %9s %10s %9s %7s %7s %8s %9s %7s %8s %5s %8s\n", "load", "sampled s", "profiled s", "1st 10s s", "% core", "% BPF",
		"steady", "peak MB", "after", "sleeps/s", "lost", "MB/h")
	for _, s := range situations() {
		name := b.line(s.name)
		m := func(unit string) float64 { v, _ := r.Median(name, unit); return v }
		if name == "" || s.short > 0 {
			continue
		}
		r.Printf("# %-6s %9.2f %10.2f %9.2f %7.2f %7.2f %8.1f %9.1f %7.1f %8.1f %5.0f %8.1f\n", s.name, m("sampled-s"), m("profiled-s"), m("start-cpu-s"), m("%core"),
			m("%BPF"), m("steady-RSS-B")/1e6, m("peak-RSS-B")/1e6, m("after-RSS-B")/1e6, m("sleeps/s"), m("lost"), m("disk-B/h")/1e6)
	}
	b.starts()
	b.goals()
}

// starts says what processes that start cost: the issue has a goal for finding them; what their profiles cost depends on how many
// of them are Go programs.
func (b *bench) starts() {
	name := b.line("churn")
	if _, ok := b.report.Median(name, "%core-of-finding"); !ok {
		return
	}
	m := func(unit string) float64 { v, _ := b.report.Median(name, unit); return v }
	b.report.Printf("\n# 50 starts a second, 10 of them Go            %% core   %% BPF   ms of CPU a Go process that starts\n")
	b.report.Printf("# %-42s %8.2f %7.2f %10.2f, all of it\n", "all found and named, none profiled", m("%core-of-finding"), m("%BPF-of-finding"),
		m("ms-a-process-by-finding"))
	b.report.Printf("# %-42s %8.2f %7.2f %10.2f, what it adds\n", "all profiled, each into a file of its own", m("%core-with-starts"), m("%BPF-with-starts"),
		m("ms-a-process-by-starts"))
}

func (b *bench) goals() {
	b.report.Printf("\n# %-44s %10s %10s\n", "goal", "measured", "at most")
	for _, g := range []struct {
		load, text, unit string
		scale, limit     float64
	}{
		{"idle", "all are sampled, s after the start", "sampled-s", 1, goalStart},
		{"idle", "all have a profile on disk, s", "profiled-s", 1, goalStart},
		{"idle", "% of a core at 19 Hz, idle", "%core", 1, goalCore},
		{"idle", "steady RSS, MB", "steady-RSS-B", 1e-6, goalSteady},
		{"idle", "peak RSS, MB", "peak-RSS-B", 1e-6, goalPeak},
		{"idle", "targets two windows after their end", "after-targets", 1, 0},
		{"idle", "lost", "lost", 1, 0},
		{"busy", "busy: steady RSS, MB", "steady-RSS-B", 1e-6, goalSteady},
		{"busy", "busy: peak RSS, MB", "peak-RSS-B", 1e-6, goalPeak},
		{"busy", "busy: lost", "lost", 1, 0},
		{"churn", "2,000 processes: % of a core without starts", "%core", 1, goalCore},
		{"churn", "and 50 starts a second, found and named", "%core-of-finding", 1, goalFound},
		{"churn", "churn: peak RSS, MB", "peak-RSS-B", 1e-6, goalPeak},
		{"churn", "churn: lost", "lost", 1, 0},
	} {
		if v, ok := b.report.Median(b.line(g.load), g.unit); ok {
			b.report.Goal(g.text, v*g.scale, g.limit)
		}
	}
	for _, g := range []struct {
		load, text, unit string
		limit            float64
		miss             func(float64) float64
	}{
		{"churn", "Go processes of 50 ms not found, share", "found/started", 0, missing}, // others of the host count, too
		{"churn", "the same, not counted as profiled", "counted/started", 0, missing},
		{"short", "the same, of 200 at 99 Hz", "counted/started", 0, missing},
		{"short", "profiles of those beside their rusage, off by", "profiled/used", goalSamples, func(v float64) float64 { return max(v-1, 1-v) }},
	} {
		if v, ok := b.report.Median(b.line(g.load), g.unit); ok {
			b.report.Goal(g.text, g.miss(v), g.limit)
		}
	}
}

func missing(v float64) float64 { return max(1-v, 0) }

// draw draws CPU time and memory over time.
func (b *bench) draw() error {
	cpu, memory := b.series("%core", 1), b.series("RSS-B", 1e-6)
	return board.WriteSVG(b.svg,
		board.Chart{Title: "CPU time of pprofd agent beside 200 Go processes, over 10 s", X: "seconds since its start", Y: "% of one core", Lines: cpu},
		board.Chart{Title: "memory", X: "seconds since its start", Y: "MB RSS", Lines: memory})
}

func (b *bench) series(unit string, scale float64) (lines []board.Series) {
	for _, s := range situations() {
		line := board.Series{Name: s.name}
		for at := curveStep; ; at += curveStep {
			v, ok := b.report.Median(fmt.Sprintf("FleetCurve/load=%s/at=%ds", s.name, int(at.Seconds())), unit)
			if !ok {
				break
			}
			line.X, line.Y = append(line.X, at.Seconds()), append(line.Y, v*scale)
		}
		if len(line.X) > 1 && s.short == 0 {
			lines = append(lines, line)
		}
	}
	return lines
}
