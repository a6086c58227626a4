package board

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// Run runs a board until it ends or the user interrupts it, tells its error, and returns the exit code.
func Run(name string, f func(context.Context) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := f(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// Output lets f write to standard output, and to the file at path as well if that is not "".
func Output(path string, f func(io.Writer) error) (err error) {
	if path == "" {
		return f(os.Stdout)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return f(io.MultiWriter(os.Stdout, file))
}
