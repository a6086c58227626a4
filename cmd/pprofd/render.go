package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/export/pprofhttp/ui/render"
)

// newRender is the command that the agent starts itself with for a page of pprof's web UI.
func newRender(in io.Reader, out io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:    render.Arg,
		Hidden: true,
		Args:   noArgs,
		RunE:   func(*cobra.Command, []string) error { return render.Child(in, out) },
	}
}
