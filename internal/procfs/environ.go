package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Bounds on an environment: the kernel lets no process start with more than 6 MiB of it and arguments (fs/exec.c,
// bprm_stack_limits); of one variable as much is looked at as anybody asks for.
const (
	maxEnviron  = 8 << 20
	maxVariable = 4 << 10
)

// Getenv looks a variable up in the environment that the process's program began with, or has written over it since.
// Its value is cut at 4 KiB. Where there are several of the name the first one counts, as for the program itself.
// The kernel reads the process's memory for it: see patiently.
func (p Proc) Getenv(name string) (value string, ok bool, err error) {
	found, err := patiently(func() (*string, error) { return p.variable(name) })
	switch {
	case err != nil:
		return "", false, fmt.Errorf("read environment of process %d: %w", p.PID, err)
	case found == nil:
		return "", false, nil
	}
	return *found, true, nil
}

// variable is that of the environment, nil where there is none.
func (p Proc) variable(name string) (*string, error) {
	f, err := p.open("environ")
	if err != nil {
		return nil, gone(err)
	}
	defer f.Close()
	return findVariable(f, name)
}

// findVariable reads "A=1\x00B=2\x00"; nil: there is none of the name.
func findVariable(r io.Reader, name string) (*string, error) {
	br := bufio.NewReaderSize(io.LimitReader(r, maxEnviron), maxVariable)
	prefix := []byte(name + "=")
	for {
		word, err := br.ReadSlice(0)
		if rest, ok := bytes.CutPrefix(word, prefix); ok {
			value := string(bytes.TrimSuffix(rest, []byte{0}))
			return &value, nil
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a long one
			_, err = br.ReadSlice(0)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, gone(err)
		}
	}
}
