package main

import (
	"bufio"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
)

// trace is what a host has to do, second by second.
type trace struct {
	name, about string
	cpus        float64
	points      []point
}

// point is one second.
type point struct {
	busy float64 // CPUs
	load float64 // share of the second in which some process waited for a CPU (PSI)
}

// at is the second in which t lies, in seconds.
func (tr *trace) at(t float64) point {
	return tr.points[min(max(int(t), 0), len(tr.points)-1)]
}

func (tr *trace) seconds() float64 { return float64(len(tr.points)) }

// Kinds of synthetic load. Demand is in CPUs; what there are not has to wait.
const minute = 60

func synthetic() []trace {
	return []trace{
		made("step", "2 of 16 CPUs, then 11, then 2", 16, 15*minute, func(t float64) float64 {
			if t >= 5*minute && t < 10*minute {
				return 11
			}
			return 2
		}),
		made("ramp", "0 to 16 of 16 CPUs in five minutes, and back", 16, 12*minute, func(t float64) float64 {
			return 16 * min(max(0, t-minute)/(5*minute), max(0, 11*minute-t)/(5*minute))
		}),
		made("spike", "2 of 16 CPUs, and all of them for 3 seconds in every 47", 16, 10*minute, func(t float64) float64 {
			if math.Mod(t, 47) >= 44 {
				return 16
			}
			return 2
		}),
		made("idle-to-busy", "nothing, twice what 16 CPUs can do, then 4 CPUs", 16, 15*minute, func(t float64) float64 {
			switch {
			case t < 4*minute:
				return 0
			case t < 9*minute:
				return 32
			}
			return 4
		}),
		made("2-to-256", "2 of 256 CPUs, then all, then 2", 256, 15*minute, func(t float64) float64 {
			if t >= 5*minute && t < 10*minute {
				return 256
			}
			return 2
		}),
	}
}

func made(name, about string, cpus float64, seconds int, demand func(t float64) float64) trace {
	tr := trace{name: name, about: about, cpus: cpus}
	for i := range seconds {
		d := demand(float64(i))
		tr.points = append(tr.points, point{min(d, cpus), waiting(d, cpus)})
	}
	return tr
}

// waiting is about what PSI says of a demand for CPUs: nearly nothing while there are some left, all of the time at one and a
// half times what there is.
func waiting(demand, cpus float64) float64 {
	return min(1, max(0, (demand/cpus-0.9)/0.6))
}

//go:embed traces/*.csv
var recordings embed.FS

// recorded are the traces that were recorded, each on a host as it was and on one that is eight times as large.
func recorded() (list []trace, err error) {
	files, err := fs.Glob(recordings, "traces/*.csv")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		f, err := recordings.Open(file)
		if err != nil {
			return nil, err
		}
		tr, err := parseTrace(strings.TrimSuffix(path.Base(file), ".csv"), f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		list = append(list, tr)
		list = append(list, tr.times(8))
	}
	return list, nil
}

// times is the same load on a host that has n times as many CPUs.
func (tr trace) times(n float64) trace {
	large := trace{name: fmt.Sprintf("%s-x%g", tr.name, n), about: fmt.Sprintf("%s, %g times as many CPUs", tr.about, n), cpus: tr.cpus * n}
	for _, p := range tr.points {
		large.points = append(large.points, point{p.busy * n, p.load})
	}
	return large
}

// parseTrace reads what writeTrace has written.
func parseTrace(name string, r io.Reader) (trace, error) {
	tr := trace{name: name}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := lines.Text()
		if text, ok := strings.CutPrefix(line, "# "); ok {
			if _, err := fmt.Sscanf(text, "cpus %g", &tr.cpus); err != nil {
				tr.about = text
			}
			continue
		}
		if line == traceHeader {
			continue
		}
		var second int
		var p point
		if _, err := fmt.Sscanf(line, "%d,%g,%g", &second, &p.busy, &p.load); err != nil {
			return tr, fmt.Errorf("%q: %w", line, err)
		}
		if second != len(tr.points) {
			return tr, fmt.Errorf("%q: second %d is expected", line, len(tr.points))
		}
		tr.points = append(tr.points, p)
	}
	if tr.cpus <= 0 || len(tr.points) == 0 {
		return tr, fmt.Errorf("%d seconds of %v CPUs", len(tr.points), tr.cpus)
	}
	return tr, nil
}

const traceHeader = "second,busy_cpus,waiting"

func writeTrace(w io.Writer, tr *trace) error {
	_, err := fmt.Fprintf(w, "# %s\n# cpus %g\n%s\n", tr.about, tr.cpus, traceHeader)
	for i, p := range tr.points {
		if err == nil {
			_, err = fmt.Fprintf(w, "%d,%.3f,%.3f\n", i, p.busy, p.load)
		}
	}
	return err
}
