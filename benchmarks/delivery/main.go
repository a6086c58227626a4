package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

type config struct {
	window  time.Duration
	windows int
	fleet   int           // processes
	pause   time.Duration // of their clients
	rounds  int
}

func main() {
	if os.Getenv(receiverVariable) != "" {
		if err := receive(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "receiver:", err)
			os.Exit(1)
		}
		return
	}
	c := config{window: 10 * time.Second, fleet: 200, pause: 50 * time.Millisecond}
	flag.IntVar(&c.windows, "windows", 2, "whole `windows` of each measurement")
	flag.IntVar(&c.rounds, "rounds", 5, "how often the window of 200 processes is exported")
	out := flag.String("o", "", "`file` for the report; default is standard output")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := write(ctx, *out, &c)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "delivery:", err)
		os.Exit(1)
	}
}

func write(ctx context.Context, path string, c *config) (err error) {
	if path == "" {
		return run(ctx, os.Stdout, c)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return run(ctx, io.MultiWriter(f, os.Stdout), c)
}

// bench is what all measurements need.
type bench struct {
	*config
	dir      string
	agent    string // the program
	services agents.Services
	receiver *receiver
	report   *board.Report
}

// run measures what c asks for and writes it to out.
func run(ctx context.Context, out io.Writer, c *config) error {
	dir, err := os.MkdirTemp("", "pprofd-delivery-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{config: c, dir: dir, services: agents.Services{Dir: dir}, report: board.New(out)}
	if err := b.build(ctx); err != nil {
		return err
	}
	if b.receiver, err = startReceiver(ctx); err != nil {
		return err
	}
	defer b.receiver.stop()
	b.report.Facts(board.Facts(ctx))
	if err := b.measure(ctx); err != nil {
		return err
	}
	b.tables()
	return b.report.Err()
}

func (b *bench) build(ctx context.Context) error {
	if err := b.services.Build(ctx); err != nil {
		return err
	}
	b.agent = filepath.Join(b.dir, "pprofd")
	return agents.BuildPprofd(ctx, b.agent)
}

func (b *bench) measure(ctx context.Context) error {
	var dir string // of the fleet at the highest rate
	for _, l := range loads(b.config) {
		for _, hz := range []int{19, 99} {
			var err error
			if dir, err = b.wire(ctx, &l, hz); err != nil {
				return fmt.Errorf("%s at %d Hz: %w", l.name, hz, err)
			}
		}
	}
	f, err := readFiles(dir)
	if err != nil {
		return err
	}
	list := aWindow(f, b.fleet)
	if len(list) == 0 {
		return errors.New("none of the services had a sample")
	}
	if err := errors.Join(b.toFiles(ctx, list), b.toSpool(list)); err != nil {
		return err
	}
	for _, name := range protocols {
		if err := b.toServer(ctx, name, list); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// tables are medians, and the goal.
func (b *bench) tables() {
	for _, l := range loads(b.config) {
		for _, hz := range []int{19, 99} {
			b.report.Table(fmt.Sprintf("Export/load=%s/hz=%d/to=", l.name, hz), "B/sample", "B/core-h")
		}
	}
	prefix := fmt.Sprintf("ExportWindow/processes=%d/to=", b.fleet)
	b.report.Table(prefix, "cpu-s/window", "s/window", "B/window")
	b.report.Printf("\n# goal: CPU time of exporting a window of %d processes, s\n", b.fleet)
	for _, name := range append([]string{"files"}, protocols...) {
		if v, ok := b.report.Median(prefix+name, "cpu-s/window"); ok {
			b.report.Goal(name, v, 1)
		}
	}
}
