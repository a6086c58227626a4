// Pprofd profiles Go processes from outside, through eBPF, and writes pprof files.
//
// Each command lives in a file of its own, as func(ctx, stdout, stderr, ...) error, so that tests call it.
// Exit codes: 0 done, 1 failure, 2 wrong usage; "record -- program" exits as the program did.
package main

import (
	"context"
	"io"
	"os"
	"strings"
)

func main() {
	os.Exit(run(context.Background(), os.Stdout, os.Stderr, os.Args[1:]))
}

// run executes the command line args and returns the exit code.
func run(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	started := false
	root := newRoot(stdout, stderr, &started)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started {
		err = usageError{err}
		if cmd == root && len(args) > 0 && !strings.HasPrefix(args[0], "-") { // flags of a command that is none were read as the root's
			err = runGroup(root, args)
		}
	}
	return report(stderr, cmd.CommandPath(), err)
}
