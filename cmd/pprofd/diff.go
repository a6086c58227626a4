package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/export/file"
)

// diffOptions are the flags of diff.
type diffOptions struct {
	output    string
	rows      int
	normalize bool
}

func newDiff() *cobra.Command {
	var o diffOptions
	c := &cobra.Command{
		Use:   "diff {FILE | SELECTOR} {FILE | SELECTOR} [-o FILE]",
		Short: "Tell what has grown and shrunk from one profile to another",
		Long: `Diff subtracts the first profile from the second, which are of one kind, and prints the functions that have changed
most: their own values before and after, and by how much that changed which they and what they call amount to. The
difference itself goes to -o: what has shrunk is negative there, as with go tool pprof -base, which opens it. Of profiles of
goroutines, waiting and contention the table has the functions that wait, not those of the runtime that they wait in.

What a selector chooses is added up, as by merge. Where one side is of more time than the other, so are its values: --normalize
scales the second to the sum of the first, as go tool pprof does, so that shares are compared.

` + selectorHelp,
		Example: `  pprofd diff before.pb.gz after.pb.gz
  sudo pprofd diff 'dir:/var/lib/pprofd?service=api&kind=cpu&from=-2h&to=-1h' 'dir:/var/lib/pprofd?service=api&kind=cpu&from=-1h' -o d.pb.gz
  go tool pprof -http=: d.pb.gz`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("diff wants two files or selectors, got %d", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			inputs, err := parseInputs(args, time.Now())
			if err != nil {
				return err
			}
			return diff(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), inputs, &o)
		},
	}
	c.Flags().StringVarP(&o.output, "output", "o", "", "file for the difference, or - for standard output; the table goes to standard error then")
	c.Flags().IntVarP(&o.rows, "rows", "n", 20, "functions in the table; 0: all that have changed")
	c.Flags().BoolVar(&o.normalize, "normalize", false, "scale the second to the sum of the first: compare shares")
	return c
}

func diff(ctx context.Context, stdout, stderr io.Writer, inputs []input, o *diffOptions) error {
	var out *file.Exporter
	if o.output != "" {
		var err error
		if out, err = openOutput(stdout, o.output, string(file.Pprof)); err != nil {
			return err
		}
		defer out.Close()
	}
	before, err := gather(stderr, inputs[0])
	if err != nil {
		return err
	}
	after, err := gather(stderr, inputs[1])
	if err != nil {
		return err
	}
	if err := o.scale(stderr, before, after); err != nil {
		return err
	}
	people := stdout
	if o.output == "-" {
		people = stderr
	}
	fmt.Fprintf(people, "before: %s\nafter:  %s\n\n", before.covers(), after.covers())
	if err := file.WriteDiff(people, before.Profile, after.Profile, o.rows); err != nil {
		return err
	}
	if after.Profile, err = file.Diff(before.Profile, after.Profile); err != nil || out == nil {
		return err
	}
	if err := writeProfile(ctx, out, after); err != nil {
		return err
	}
	fmt.Fprintln(people)
	tellFiles(people, out, string(file.Pprof))
	return nil
}

// scale brings both sides to the same sum where that is wanted, and tells where it may be.
func (o *diffOptions) scale(stderr io.Writer, before, after *gathered) error {
	if err := file.SameKind(before.Profile, after.Profile); err != nil {
		return err
	}
	if o.normalize {
		return after.Normalize(before.Profile)
	}
	was, is := float64(before.DurationNanos), float64(after.DurationNanos)
	if was > 0 && is > 0 && math.Abs(math.Log(is/was)) > 0.1 {
		fmt.Fprintf(stderr, "pprofd: note: the first is of %v, the second of %v: --normalize compares shares\n",
			time.Duration(was).Round(time.Millisecond), time.Duration(is).Round(time.Millisecond))
	}
	return nil
}
