package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the man pages into a directory",
		Long:    "Man writes one page per command, pprofd.1, pprofd-record.1 and so on, into DIR, which must exist.",
		Example: "  pprofd man /usr/local/share/man/man1",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("man wants one directory, got %d", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return writeMan(c.Root(), args[0])
		},
	}
}

// writeMan writes the same pages whenever it runs with the same SOURCE_DATE_EPOCH, so that they can be packaged
// reproducibly.
func writeMan(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Source: "pprofd " + version(), Manual: "pprofd"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("write man pages: %w", err)
	}
	return nil
}
