package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/pprofd/pprofd/export/file"
)

// output is where the profiles of a recording go.
type output struct {
	path  string // "-" is standard output
	isDir bool   // path is a directory, to be made where it does not exist, with one file for each profile
}

// standard says whether the profile goes to standard output, where nothing else may go then.
func (o output) standard() bool { return o.path == "-" }

// planOutput applies the rules for -o. All its errors are usage errors. terminal says that standard output is one.
func planOutput(o *recordOptions, processes int, terminal bool, now time.Time) (output, error) {
	one := len(o.kinds) == 1 && (processes == 1 || o.merge)
	switch {
	case o.output == "-" && !one:
		return output{}, usagef("%s, but -o - takes one profile%s", several(o, processes), hintMerge(o))
	case o.output == "-" && o.format == "pprof" && terminal:
		return output{}, usagef("a profile in pprof format would garble the terminal: pipe it on, or choose --format text or folded")
	case o.output == "-":
		return output{path: "-"}, nil
	case one && o.output == "":
		return output{path: defaultFile(o)}, nil
	case o.output == "":
		return output{path: "pprofd-" + now.UTC().Format("20060102T150405Z"), isDir: true}, nil
	}
	info, err := os.Stat(o.output)
	isDir := err == nil && info.IsDir() || strings.HasSuffix(o.output, "/")
	if err == nil && !info.IsDir() && !one {
		return output{}, usagef("%s, but %s is a file: give a directory%s", several(o, processes), o.output, hintMerge(o))
	}
	return output{path: o.output, isDir: isDir || !one}, nil
}

func several(o *recordOptions, processes int) string {
	if len(o.kinds) > 1 {
		return fmt.Sprintf("%d kinds of profiles are asked for", len(o.kinds))
	}
	return fmt.Sprintf("%d processes are to be profiled", processes)
}

func hintMerge(o *recordOptions) string {
	if len(o.kinds) > 1 {
		return ""
	}
	return ", or --merge them"
}

func defaultFile(o *recordOptions) string {
	if o.pgo {
		return "default.pgo"
	}
	return o.kinds[0] + file.Format(o.format).Suffix()
}

// isTerminal says whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalWidth is how many columns w has; 0: it is no terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}
