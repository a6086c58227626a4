package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

const (
	execName = "__exec"
	orderFD  = 3 // see child
	resultFD = 4
)

// newExec is the command that pprofd starts itself with for a program behind --.
func newExec() *cobra.Command {
	return &cobra.Command{
		Use:    execName,
		Hidden: true,
		Args:   noArgs,
		RunE: func(*cobra.Command, []string) error {
			return execOrdered(os.NewFile(orderFD, "order"), os.NewFile(resultFD, "result"))
		},
	}
}

// execOrdered waits for the order and becomes the program. It returns only where that failed; the cause has then been
// written to result for pprofd to tell.
func execOrdered(in, result *os.File) error {
	if in == nil || result == nil {
		return usagef("%s is for pprofd's own use", execName)
	}
	syscall.CloseOnExec(orderFD)
	syscall.CloseOnExec(resultFD)
	var o order
	switch err := json.NewDecoder(in).Decode(&o); {
	case errors.Is(err, io.EOF): // abandoned
		return exitError{code: exitFailure}
	case err != nil:
		return fmt.Errorf("%s is for pprofd's own use: %w", execName, err)
	}
	code, err := become(o)
	fmt.Fprint(result, err)
	return exitError{code: code}
}

// become takes the identity on and executes the program.
func become(o order) (code int, err error) {
	who := ""
	if o.As != nil {
		if err := o.As.assume(); err != nil {
			return exitFailure, fmt.Errorf("run the program as user %d: %w (--as-root runs it as root)", o.As.UID, err)
		}
		who = fmt.Sprintf(" as user %d", o.As.UID)
	}
	err = syscall.Exec(o.Path, o.Args, os.Environ())
	code = exitNotExecutable
	if errors.Is(err, os.ErrNotExist) {
		code = exitNotFound
	}
	return code, fmt.Errorf("cannot execute %s%s: %w", o.Path, who, err)
}
