package main

import (
	"bytes"
	"fmt"
	"testing"
)

// What others have written does not steer the terminal, and lines stay lines.
func TestErrorsAreLegible(t *testing.T) {
	err := fmt.Errorf("profiles of different kinds: one has %s\nor größer\nas \"C:\\x\"", "\x1b[2J\u009b/count")
	want := "profiles of different kinds: one has \\x1b[2J\\u009b/count\nor größer\nas \"C:\\x\""
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{err, exitFailure, "pprofd: " + want + "\n"},
		{usageError{err}, exitUsage, "pprofd: " + want + " (see pprofd diff --help)\n"},
		{exitError{9, err}, 9, "pprofd: " + want + "\n"},
		{exitError{code: 9}, 9, ""},
		{nil, 0, ""},
	} {
		var out bytes.Buffer
		if code := report(&out, "pprofd diff", c.err); code != c.code || out.String() != c.want {
			t.Errorf("%v: %d, %q, want %d, %q", c.err, code, out.String(), c.code, c.want)
		}
	}
}
