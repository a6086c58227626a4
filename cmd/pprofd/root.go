package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/internal/discover"
)

const (
	exitFailure = 1
	exitUsage   = 2
	exitNoOOM   = 3 // record --on-oom: nothing was killed
)

// usageError is an error of the command line: exit code 2 and a pointer to --help.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError ends pprofd with code. A nil err says that there is nothing to print: all has been said already.
type exitError struct {
	code int
	err  error
}

func (e exitError) Unwrap() error { return e.err }
func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

// newRoot builds the command tree. *started becomes true once a command's own code runs:
// errors before that are cobra's, about the command line.
func newRoot(stdout, stderr io.Writer, started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "pprofd",
		Short: "Profile Go processes from outside: CPU, memory, goroutines, waiting",
		Long: `Pprofd profiles Go processes that know nothing of it, through eBPF and by reading their memory, and writes pprof files:
CPU, heap, allocations, goroutines, and where time passes in waiting. The processes need no import, no restart and no symbols;
nothing is written into them.`,
		Example: `  sudo pprofd record -p 4242        # 10 s of CPU -> cpu.pb.gz
  sudo pprofd dump -p 4242          # what every goroutine does and waits for
  sudo pprofd top -p 4242           # the same and more, live
  sudo pprofd record -- ./server    # from exec to exit
  sudo pprofd ps                    # every Go process of this machine
  sudo pprofd doctor                # what this machine allows, and how to fix the rest`,
		SuggestionsMinimumDistance: 2,
		SilenceErrors:              true,
		SilenceUsage:               true,
		Args:                       cobra.ArbitraryArgs,
		RunE:                       runGroup,
		PersistentPreRun: func(*cobra.Command, []string) {
			*started = true
		},
	}
	root.AddCommand(newRecord(), newAgent(), newLS(), newMerge(), newDiff(), newPS(), newDump(), newTop(), newDoctor(), newURL(), newVersion(), newMan(), newExec(), newRender(os.Stdin, stdout))
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.InitDefaultCompletionCmd("") // any argument: cobra leaves it out for programs that it takes to have no subcommands
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args, c.RunE = cobra.ArbitraryArgs, runGroup
		}
	}
	return root
}

// runGroup is what a command does that has only subcommands: help, and a usage error for what is none of them.
func runGroup(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	if s := c.SuggestionsFor(args[0]); len(s) > 0 {
		return usagef("unknown command %q; did you mean %s?", args[0], strings.Join(s, " or "))
	}
	return usagef("unknown command %q", args[0])
}

// toldError is an error whose text needs no more than text: the cause is for errors.Is.
type toldError struct {
	text string
	err  error
}

func (e toldError) Error() string { return e.text }
func (e toldError) Unwrap() error { return e.err }

// noArgs refuses arguments.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// report prints err as people want it, in one line where it has one, and returns the exit code.
func report(stderr io.Writer, command string, err error) int {
	var exit exitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintf(stderr, "pprofd: %s\n", legible(exit.err))
		}
		return exit.code
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "pprofd: %s (see %s --help)\n", legible(err), command)
		return exitUsage
	}
	fmt.Fprintf(stderr, "pprofd: %s\n", legible(err))
	return exitFailure
}

// legible is the text of an error, which may have been written by others: names of files, what a profile says, answers of servers.
func legible(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = discover.Printable(line)
	}
	return strings.Join(lines, "\n")
}
