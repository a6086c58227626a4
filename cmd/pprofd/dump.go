package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/profiler"
)

type dumpOptions struct {
	pid int
}

func newDump() *cobra.Command {
	var o dumpOptions
	c := &cobra.Command{
		Use:   "dump -p PID",
		Short: "Show what every goroutine of a process does and waits for, without stopping it",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return dump(c.Context(), c.OutOrStdout(), &o)
		},
	}
	c.Flags().IntVarP(&o.pid, "pid", "p", 0, "process")
	return c
}

func dump(ctx context.Context, stdout io.Writer, o *dumpOptions) error {
	g, err := profiler.OpenGoroutines(o.pid, procRoot)
	if err != nil {
		return err
	}
	defer g.Close()
	counts, err := g.Read(ctx, profiler.GoroutineQuery{Labels: true}, func(gr *profiler.Goroutine) error {
		fmt.Fprintf(stdout, "goroutine %d [%s %s %v] complete %v incons %v tries %d\n", gr.ID, gr.State, gr.Reason, gr.Waited, gr.Complete, gr.Inconsistent, gr.Tries)
		for _, a := range gr.Stack {
			for _, f := range g.Frames(a) {
				fmt.Fprintf(stdout, "%s\n\t%s:%d\n", f.Func, f.File, f.Line)
			}
		}
		return nil
	})
	fmt.Fprintln(stdout, counts)
	return err
}
