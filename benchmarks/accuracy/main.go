package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
)

type config struct {
	rows    string
	windows int           // of each agent on a row
	length  time.Duration // of a window
	state   string
	any     bool
	report  bool
	output  string
}

func main() {
	var c config
	flag.StringVar(&c.rows, "rows", "", "measure only rows whose name matches the `regexp`; names are such as go1.22.12/pie")
	flag.IntVar(&c.windows, "windows", 5, "windows of each row of which the median counts")
	flag.DurationVar(&c.length, "window", 5*time.Second, "length of a window")
	flag.StringVar(&c.state, "state", "out/accuracy.state", "keep what was measured in `file`")
	flag.BoolVar(&c.any, "any-build", false, "rows that another build of this program measured are not measured again; the lines name it")
	flag.BoolVar(&c.report, "report", false, "measure nothing, report what was measured")
	flag.StringVar(&c.output, "o", "", "write to `file` as well")
	flag.Parse()
	os.Exit(board.Run("accuracy", func(ctx context.Context) error { return runAll(ctx, &c) }))
}

func runAll(ctx context.Context, c *config) error {
	rows, err := chooseRows(c.rows)
	if err != nil {
		return err
	}
	s, err := openState(c.state, buildID(), c.any)
	if err != nil {
		return err
	}
	var errMeasure error
	if !c.report {
		errMeasure = measureAll(ctx, rows, s, c)
	}
	errReport := board.Output(c.output, func(w io.Writer) error { return report(ctx, w, rows, s) })
	return errors.Join(errMeasure, errReport, s.Close())
}

// maxAttempts is how often a row is measured that misses the goal.
const maxAttempts = 2

// measureAll measures the rows that the state does not have, then those once more that miss the goal.
func measureAll(ctx context.Context, rows []row, s *state, c *config) error {
	m := newMeasurer(c)
	defer m.Close()
	for try := range maxAttempts {
		for i, r := range rows {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !s.wants(r, try) {
				continue
			}
			a, err := m.attempt(ctx, r)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name(), err)
			}
			if err := s.add(a); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%s row %d of %d: %s: %s\n", time.Now().UTC().Format(time.TimeOnly), i+1, len(rows), r.name(), verdict(s.of(r)))
		}
	}
	return nil
}

// report writes the facts, a line for each window, and the table.
func report(ctx context.Context, w io.Writer, rows []row, s *state) error {
	r := board.New(w)
	r.Facts(board.Facts(ctx))
	for _, row := range rows {
		for _, a := range s.of(row) {
			lines(r, row, a)
		}
	}
	table(r, rows, s)
	return r.Err()
}
