package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// The largest machine, for which the goals are.
const maxCPUs, maxProcesses, maxBinaries = 256, 2000, 200

// curve are the rows that are measured: processes by binaries on the largest machine, then CPUs.
func curve(hz int) (rows []row) {
	for _, binaries := range []int{1, 20, maxBinaries} {
		for _, processes := range []int{50, 100, 200, 500, 1000, maxProcesses} {
			if binaries <= processes {
				rows = append(rows, row{maxCPUs, processes, binaries, hz, false})
			}
		}
	}
	for _, cpus := range []int{2, 8, 32, 128} {
		rows = append(rows, row{cpus, maxProcesses, maxBinaries, hz, false})
	}
	return rows
}

func (w *row) name() string {
	pace := ""
	if w.paced {
		pace = "/pace=real"
	}
	return fmt.Sprintf("Scale/cpus=%d/processes=%d/binaries=%d%s", w.cpus, w.processes, w.binaries, pace)
}

// samples that the row's CPUs give in a window.
func (w *row) samples(window time.Duration) int { return int(window.Seconds()*float64(w.hz)) * w.cpus }

// measure runs all rows in each round.
func (l *library) measure(ctx context.Context, r *board.Report, c *config) error {
	for range c.rounds {
		for _, w := range c.rows {
			if err := l.measureRow(ctx, r, w, c.window); err != nil {
				return err
			}
		}
		if err := l.measureReading(ctx, r, c); err != nil {
			return err
		}
	}
	if c.paced == 0 {
		return nil
	}
	w := largest(c)
	w.paced = true
	return l.measureRow(ctx, r, w, c.paced)
}

// largest is the row that the goals are for.
func largest(c *config) row {
	return slices.MaxFunc(c.rows, func(a, b row) int {
		return a.cpus*a.processes*a.binaries - b.cpus*b.processes*b.binaries
	})
}

func (l *library) measureRow(ctx context.Context, r *board.Report, w row, window time.Duration) error {
	m, err := l.run(ctx, w, window)
	if err != nil {
		return fmt.Errorf("%s: %w", w.name(), err)
	}
	sent := uint64(w.samples(window))
	if m.Samples != sent || m.Profiles != w.processes {
		return fmt.Errorf("%s: %d samples were sent, %d arrived, in %d profiles", w.name(), sent, m.Samples, m.Profiles)
	}
	for _, note := range m.Notes {
		r.Printf("# note: %s: %s\n", w.name(), note)
	}
	steady, write := m.Read.CPU-m.Added.CPU, m.Written.CPU-m.Read.CPU
	perSecond := func(d time.Duration) float64 { return 100 * d.Seconds() / window.Seconds() }
	r.Add(w.name(), int(m.Samples),
		board.Value{V: float64(steady.Nanoseconds()) / float64(m.Samples), Unit: "ns/sample"},
		board.Value{V: perSecond(steady), Unit: "%core"},
		board.Value{V: 2 * perSecond(m.Read.CPU-m.Half.CPU), Unit: "%core-2nd-half"},
		board.Value{V: perSecond(steady + write), Unit: "%core-with-write"},
		board.Value{V: (m.Added.CPU - m.Began.CPU).Seconds(), Unit: "add-cpu-s"},
		board.Value{V: write.Seconds(), Unit: "write-cpu-s"},
		board.Value{V: float64(m.Added.RSS), Unit: "start-RSS-B"},
		board.Value{V: float64(m.Read.RSS), Unit: "steady-RSS-B"},
		board.Value{V: float64(m.Written.Peak), Unit: "peak-RSS-B"},
		board.Value{V: float64(m.Stacks), Unit: "stacks"},
		board.Value{V: float64(m.Bytes) / float64(m.Profiles), Unit: "disk-B/profile"},
		board.Value{V: float64(m.Lost), Unit: "lost"},
		board.Value{V: float64(m.Broken), Unit: "broken"})
	return nil
}

// reading is the name of the row that shows the share of the replay.
const reading = "ScaleReadingOnly"

func (l *library) measureReading(ctx context.Context, r *board.Report, c *config) error {
	w := largest(c)
	m, err := l.run(ctx, w, c.window, "-read-only")
	if err != nil {
		return err
	}
	bytes, samples := 0, 0
	for _, o := range l.originals {
		bytes, samples = bytes+o.bytes, samples+len(o.samples)
	}
	r.Add(reading, int(m.Samples), board.Value{V: float64((m.Read.CPU - m.Added.CPU).Nanoseconds()) / float64(m.Samples), Unit: "ns/sample"},
		board.Value{V: float64(bytes) / float64(samples), Unit: "B/sample"})
	return nil
}
