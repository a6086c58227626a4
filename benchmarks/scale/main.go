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
	rounds    int
	window    time.Duration // simulated, of each row
	paced     time.Duration // of the row that runs in real time; 0: leave it out
	recording time.Duration // of each program
	programs  []program
	rows      []row
	output    string
	svg       string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == workerCommand {
		os.Exit(board.Run("scale", func(context.Context) error { return worker(os.Stdin, os.Stdout, os.Args[2:]) }))
	}
	c := config{programs: programs, rows: curve(99)}
	short := flag.Bool("short", false, "a few seconds of everything: does it run?")
	flag.IntVar(&c.rounds, "rounds", 3, "measurements of which the median counts")
	flag.DurationVar(&c.window, "window", 60*time.Second, "simulated length of a recording")
	flag.DurationVar(&c.paced, "paced", 60*time.Second, "length of the recording that runs in real time; 0: none")
	flag.DurationVar(&c.recording, "record", 3*time.Second, "how long each program is recorded")
	flag.Func("row", "measure `CPUs,processes,binaries` only", func(s string) error {
		w := row{hz: 99}
		_, err := fmt.Sscanf(s, "%d,%d,%d", &w.cpus, &w.processes, &w.binaries)
		c.rows = []row{w}
		return err
	})
	flag.StringVar(&c.output, "o", "", "write to `file` as well")
	flag.StringVar(&c.svg, "svg", "", "draw the curves into `file`")
	flag.Parse()
	if *short {
		c.shorten()
	}
	os.Exit(board.Run("scale", func(ctx context.Context) error {
		return board.Output(c.output, func(out io.Writer) error { return run(ctx, out, &c) })
	}))
}

// shorten makes it a test of whether everything runs.
func (c *config) shorten() {
	c.rounds, c.window, c.paced, c.recording = 1, time.Second, time.Second, time.Second/2
	c.programs = programs[:2]
	c.rows = []row{{2, 20, 4, 99, false}, {8, 20, 4, 99, false}, {8, 40, 8, 99, false}}
}

// run records the programs, then measures all rows and writes them to out.
func run(ctx context.Context, out io.Writer, c *config) (err error) {
	dir, err := os.MkdirTemp("", "pprofd-scale-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := newLibrary(ctx, dir, c)
	if err != nil {
		return err
	}
	defer l.close()
	r := board.New(out)
	r.Facts(board.Facts(ctx))
	if err := l.measure(ctx, r, c); err != nil {
		return err
	}
	tables(r, c)
	if c.svg != "" {
		return errors.Join(r.Err(), draw(r, c))
	}
	return r.Err()
}
