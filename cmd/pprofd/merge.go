package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/pprof/profile"
	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/discover"
)

// mergeOptions are the flags of merge.
type mergeOptions struct {
	output, format string
	quiet          bool
}

func newMerge() *cobra.Command {
	var o mergeOptions
	c := &cobra.Command{
		Use:   "merge {FILE | SELECTOR}... -o FILE",
		Short: "Add profiles up",
		Long: `Merge adds up profiles of one kind, as google/pprof does: files of any program, and what selectors choose from the
directory of an agent. It holds the sum and a few profiles in memory, however many there are.

` + selectorHelp + `

The durations of the profiles add up, too. What cannot be read of a selector's files is left out, and told.`,
		Example: `  pprofd merge cpu1.pb.gz cpu2.pb.gz -o cpu.pb.gz
  sudo pprofd merge 'dir:/var/lib/pprofd?service=api&kind=cpu&from=-1h' -o api.pb.gz
  sudo pprofd merge 'dir:/var/lib/pprofd?kind=cpu&label=namespace=shop&from=-1d' -o default.pgo
  sudo pprofd merge 'dir:/var/lib/pprofd?service=api&kind=cpu' --format folded -o - | flamegraph.pl > api.svg`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("nothing to merge: name files, or selectors as dir:DIR?service=NAME&kind=KIND")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			inputs, err := parseInputs(args, time.Now())
			if err != nil {
				return err
			}
			if o.output == "" {
				return usagef("-o is missing: where the sum goes")
			}
			return merge(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), inputs, &o)
		},
	}
	c.Flags().StringVarP(&o.output, "output", "o", "", "file, or - for standard output")
	c.Flags().StringVar(&o.format, "format", "pprof", strings.Join(knownFormats(), ", "))
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "no table of hot functions")
	complete(c, "format", words(knownFormats()))
	return c
}

func merge(ctx context.Context, stdout, stderr io.Writer, inputs []input, o *mergeOptions) error {
	out, err := openOutput(stdout, o.output, o.format)
	if err != nil {
		return err
	}
	defer out.Close()
	g, err := gather(stderr, inputs...)
	if err != nil {
		return err
	}
	if err := writeProfile(ctx, out, g); err != nil {
		return err
	}
	if o.output == "-" {
		return nil
	}
	if !o.quiet {
		if err := file.WriteTop(stdout, g.Profile, hottest); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "\n%s\n", g.covers())
	}
	tellFiles(stdout, out, o.format)
	return nil
}

// covers says what went into a sum.
func (g *gathered) covers() string {
	s := fmt.Sprintf("%d profiles", g.n)
	if g.n == 1 {
		s = "1 profile"
	}
	switch {
	case g.first.IsZero():
		return s
	case g.last.After(g.first):
		return fmt.Sprintf("%s from %s to %s", s, g.first.UTC().Format(time.RFC3339), g.last.UTC().Format(time.RFC3339))
	}
	return s + " of " + g.first.UTC().Format(time.RFC3339)
}

// openOutput prepares a file or standard output, so that what cannot be written is found before the work.
func openOutput(stdout io.Writer, path, format string) (*file.Exporter, error) {
	as, err := sudoUser(os.Geteuid(), os.Getenv)
	if err != nil {
		return nil, err
	}
	opt := &file.Options{Format: file.Format(format)}
	if as != nil {
		opt.Owner = &file.Owner{UID: as.UID, GID: as.GID}
	}
	var out *file.Exporter
	switch {
	case path == "-" && format == string(file.Pprof) && isTerminal(stdout):
		return nil, usagef("a profile in pprof format would garble the terminal: pipe it on, or choose --format text or folded")
	case path == "-":
		out, err = file.NewWriter(stdout, opt)
	default:
		out, err = file.Open(path, opt)
	}
	if errors.Is(err, file.ErrUsage) {
		err = usageError{err}
	}
	return out, err
}

func writeProfile(ctx context.Context, out *file.Exporter, g *gathered) error {
	p := &export.Profile{Kind: shownAs(g.Profile), Start: time.Unix(0, g.TimeNanos), Duration: time.Duration(g.DurationNanos), Data: g.Profile}
	if err := out.Export(ctx, p); err != nil {
		return err
	}
	return out.Close()
}

// shownAs is the sample type that readers show at first.
func shownAs(p *profile.Profile) string {
	if n := len(p.SampleType); n > 0 {
		return cmp.Or(p.DefaultSampleType, p.SampleType[n-1].Type)
	}
	return ""
}

func tellFiles(stdout io.Writer, out *file.Exporter, format string) {
	for _, name := range out.Names() {
		if format == string(file.Pprof) {
			fmt.Fprintf(stdout, "%s: go tool pprof %s\n", discover.Printable(name), shellQuote(name))
		} else {
			fmt.Fprintln(stdout, discover.Printable(name))
		}
	}
}
