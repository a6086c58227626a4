package board

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
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

// Numbers is for flag.Func: it sets list to the numbers of an argument, with commas between them. what they are is for errors.
func Numbers(list *[]int, what string) func(string) error {
	return func(text string) error {
		*list = nil
		for _, word := range strings.Split(text, ",") {
			n, err := strconv.Atoi(word)
			if err != nil || n < 0 {
				return fmt.Errorf("%q is no %s", word, what)
			}
			*list = append(*list, n)
		}
		return nil
	}
}
