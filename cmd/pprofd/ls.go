package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/discover"
)

// lsOptions are the flags of ls.
type lsOptions struct {
	conditions      [][2]string // of the selector: key, value
	asJSON, summary bool
}

// lsRow is one profile in ls --json. The names of the fields do not change.
type lsRow struct {
	Service string    `json:"service"`
	PID     int       `json:"pid"`
	Start   uint64    `json:"process_start_ticks"`
	Kind    string    `json:"kind"`
	Time    time.Time `json:"time"`
	Size    int64     `json:"size"`
	Path    string    `json:"path"`
}

func newLS() *cobra.Command {
	var o lsOptions
	c := &cobra.Command{
		Use:   "ls [DIR | SELECTOR]",
		Short: "List the profiles that the agent keeps",
		Long: `Ls lists the profiles in a directory of the agent, by default ` + storeDir() + `, the oldest first: the start of the
window, service, PID, kind, size in bytes, and the file, which go tool pprof opens.

` + selectorHelp + `

The flags are the same conditions. With --label files have to be opened, which takes longer.`,
		Example: `  sudo pprofd ls                                    # all
  sudo pprofd ls --summary                          # a line for each service and kind
  sudo pprofd ls --service 'web*' --kind cpu --from -1h
  sudo pprofd ls 'dir:/var/lib/pprofd?service=api&from=2026-11-23T09:00&to=2026-11-23T10:00'
  sudo pprofd ls --json | jq -r 'max_by(.size).path'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("ls wants one directory or selector, got %d", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			s, err := o.selector(args, time.Now())
			switch {
			case err != nil:
				return usageError{err}
			case o.asJSON && o.summary:
				return usagef("choose one of --json and --summary")
			}
			return ls(c.OutOrStdout(), c.ErrOrStderr(), s, &o)
		},
	}
	o.flags(c)
	return c
}

// condition is a flag that adds to a selector.
type condition struct {
	o   *lsOptions
	key string
}

func (v condition) String() string { return "" }
func (v condition) Type() string   { return map[string]string{"label": "NAME=VALUE"}[v.key] }
func (v condition) Set(value string) error {
	v.o.conditions = append(v.o.conditions, [2]string{v.key, value})
	return (&file.Selector{}).Set(v.key, value, time.Now())
}

func (o *lsOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.Var(condition{o, "service"}, "service", "of this `NAME`; a pattern")
	f.Var(condition{o, "kind"}, "kind", "of this `KIND`: cpu, heap or allocs; a pattern")
	f.Var(condition{o, "pid"}, "pid", "of this process `PID`; repeat or separate by commas")
	f.Var(condition{o, "from"}, "from", "that began at this `TIME` or later, as -1h or 2026-11-23T09:00")
	f.Var(condition{o, "to"}, "to", "that began before this `TIME`")
	f.Var(condition{o, "label"}, "label", "with this label of the process, as `NAME=VALUE`; the value is a pattern; repeatable")
	f.BoolVar(&o.asJSON, "json", false, "print a JSON array with one object per profile")
	f.BoolVar(&o.summary, "summary", false, "a line for each service and kind: how many, how large, from when to when")
	complete(c, "kind", words(knownKinds()))
	complete(c, "service", completeServices)
}

// selector is what the argument and the flags choose.
func (o *lsOptions) selector(args []string, now time.Time) (*file.Selector, error) {
	text := storeDir()
	if len(args) > 0 {
		text = args[0]
	}
	s := &file.Selector{Dir: text}
	if strings.HasPrefix(text, file.SelectorPrefix) {
		var err error
		if s, err = file.ParseSelector(text, now); err != nil {
			return nil, err
		}
	}
	var errs []error
	for _, c := range o.conditions {
		errs = append(errs, s.Set(c[0], c[1], now))
	}
	return s, errors.Join(errs...)
}

// completeServices offers those whose profiles there are.
func completeServices(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := (&lsOptions{}).selector(args, time.Now())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for f, err := range file.List(s.Dir) {
		if err == nil && !slices.Contains(names, f.Service) && discover.Printable(f.Service) == f.Service {
			names = append(names, f.Service)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func ls(stdout, stderr io.Writer, s *file.Selector, o *lsOptions) error {
	list, err := find(stderr, s)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintf(stderr, "pprofd: %v\n", noMatch(file.SelectorPrefix+s.Dir, s))
	}
	out := bufio.NewWriter(stdout)
	switch {
	case o.asJSON:
		err = writeRows(out, s.Dir, list)
	case len(list) == 0:
	case o.summary:
		err = printSummary(out, list)
	default:
		printStored(out, s.Dir, list)
	}
	return errors.Join(err, out.Flush())
}

func newLSRow(dir string, f *file.StoredFile) lsRow {
	return lsRow{
		Service: f.Service, PID: f.PID, Start: f.Start, Kind: f.Kind, Time: f.Time, Size: f.Size, Path: filepath.Join(dir, f.Path),
	}
}

// writeRows writes an array one element after the other: there may be a million.
func writeRows(w *bufio.Writer, dir string, list []file.StoredFile) error {
	between := "["
	for i := range list {
		b, err := json.MarshalIndent(newLSRow(dir, &list[i]), "  ", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\n  %s", between, b)
		between = ","
	}
	if len(list) == 0 {
		_, err := w.WriteString("[]\n")
		return err
	}
	_, err := w.WriteString("\n]\n")
	return err
}

// lsTime is a time that from= and to= take.
const lsTime = "2006-01-02T15:04:05.000Z07:00"

// printStored writes a table. Errors stay in w.
func printStored(w *bufio.Writer, dir string, list []file.StoredFile) {
	cells := func(f *file.StoredFile) [6]string {
		pid := strconv.Itoa(f.PID)
		if f.PID == 0 {
			pid = "-" // of several processes
		}
		return [...]string{
			f.Time.Format(lsTime), discover.Printable(f.Service), pid, discover.Printable(f.Kind), strconv.FormatInt(f.Size, 10),
			discover.Printable(filepath.Join(dir, f.Path)),
		}
	}
	head := [...]string{"TIME", "SERVICE", "PID", "KIND", "SIZE", "FILE"}
	var width [len(head)]int
	widen := func(row [6]string) {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	line := func(row [6]string) {
		last := len(row) - 1
		for i, c := range row[:last] {
			fmt.Fprintf(w, "%-*s  ", width[i], c)
		}
		fmt.Fprintln(w, row[last])
	}
	widen(head)
	for i := range list {
		widen(cells(&list[i]))
	}
	line(head)
	for i := range list {
		line(cells(&list[i]))
	}
}

// group is a line of ls --summary.
type group struct {
	service, kind string
	n, processes  int
	size          int64
	first, last   time.Time
}

func printSummary(w io.Writer, list []file.StoredFile) error {
	type key struct{ service, kind string }
	type process struct {
		key
		pid   int
		start uint64
	}
	groups, processes := make(map[key]*group), make(map[process]bool)
	var order []*group
	for _, f := range list { // by time
		k := key{f.Service, f.Kind}
		g := groups[k]
		if g == nil {
			g = &group{service: f.Service, kind: f.Kind, first: f.Time}
			groups[k] = g
			order = append(order, g)
		}
		if p := (process{k, f.PID, f.Start}); !processes[p] {
			processes[p] = true
			g.processes++
		}
		g.n, g.size, g.last = g.n+1, g.size+f.Size, f.Time
	}
	slices.SortFunc(order, func(a, b *group) int {
		return cmp.Or(strings.Compare(a.service, b.service), strings.Compare(a.kind, b.kind))
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tKIND\tPROFILES\tPROCESSES\tSIZE\tFROM\tTO")
	for _, g := range order {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", discover.Printable(g.service), discover.Printable(g.kind), g.n, g.processes, g.size,
			g.first.Format(lsTime), g.last.Format(lsTime))
	}
	return t.Flush()
}
