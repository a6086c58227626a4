package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
)

// psRow is one process in ps --json. The names of the fields do not change.
type psRow struct {
	PID        int      `json:"pid"`
	UID        uint32   `json:"uid"`
	User       string   `json:"user"`
	Comm       string   `json:"comm"`
	Exe        string   `json:"exe"`
	Deleted    bool     `json:"exe_deleted"`
	Command    []string `json:"command"`
	GoVersion  string   `json:"go_version"`
	Module     string   `json:"module"`
	Version    string   `json:"module_version"`
	Revision   string   `json:"vcs_revision"`
	Stripped   bool     `json:"stripped"`
	PIE        bool     `json:"pie"`
	Cgo        bool     `json:"cgo"`
	Profilable bool     `json:"profilable"`
	Reason     string   `json:"reason"` // why not
}

func newPS() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ps",
		Short: "List every Go process: version, module, how it was built, whether it can be profiled",
		Long: `Ps lists the Go processes of this machine (in a container: of the container), found by what their executables hold,
not by name. Without root it lists those that it may read, mostly one's own, and counts the rest.

FLAGS: pie, stripped (no symbol table), cgo, deleted (the executable was removed or replaced since the start).
REVISION ends in "+dirty" where the source was modified. PROFILABLE is about the program; doctor is about the machine.`,
		Example: `  sudo pprofd ps
  pprofd ps --json | jq -r '.[] | select(.vcs_revision | endswith("+dirty")) | .exe'`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return ps(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), procRoot, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array with one object per process")
	return c
}

func ps(ctx context.Context, stdout, stderr io.Writer, root string, asJSON bool) error {
	found, err := newInspector(root).all(ctx)
	if err != nil {
		return err
	}
	rows := psRows(found.found)
	if asJSON {
		err = printJSON(stdout, rows)
	} else {
		err = printRows(stdout, rows)
	}
	for _, why := range slices.Sorted(maps.Keys(found.unread)) {
		fmt.Fprintf(stderr, "pprofd: processes that could not be read: %d: %s (%s)\n", found.unread[why], why, whoMayLook())
	}
	return err
}

func psRows(found []*process) []psRow {
	users := map[uint32]string{}
	rows := make([]psRow, 0, len(found)) // never nil: an empty array in JSON
	for _, p := range found {
		rows = append(rows, psRow{
			PID: p.PID, UID: p.UID, User: userName(users, p.UID),
			Comm: p.Comm, Exe: p.Exe, Deleted: p.Deleted, Command: p.Args,
			GoVersion: p.GoVersion, Module: p.Module, Version: p.Version, Revision: p.Revision,
			Stripped: p.Stripped, PIE: p.PIE, Cgo: p.Cgo,
			Profilable: p.Obstacle == "", Reason: p.Obstacle,
		})
	}
	return rows
}

// userName is the user's name, or the number where there is no name, as for users of containers.
func userName(known map[uint32]string, uid uint32) string {
	name, ok := known[uid]
	if !ok {
		name = strconv.FormatUint(uint64(uid), 10)
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		known[uid] = name
	}
	return name
}

func printRows(w io.Writer, rows []psRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PID\tUSER\tGO\tMODULE\tVERSION\tREVISION\tFLAGS\tPROFILABLE\tCOMMAND")
	for _, r := range rows {
		cells := []string{
			strconv.Itoa(r.PID), r.User, strings.TrimPrefix(r.GoVersion, "go"), r.Module, r.Version,
			r.Revision, r.flags(), r.profilable(), strings.Join(r.Command, " "),
		}
		for i, cell := range cells {
			if cells[i] = printable(cell); cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

func (r psRow) flags() string {
	var words []string
	for _, f := range []struct {
		on   bool
		word string
	}{{r.PIE, "pie"}, {r.Stripped, "stripped"}, {r.Cgo, "cgo"}, {r.Deleted, "deleted"}} {
		if f.on {
			words = append(words, f.word)
		}
	}
	return strings.Join(words, ",")
}

func (r psRow) profilable() string {
	if r.Profilable {
		return "yes"
	}
	return "no: " + r.Reason
}

// printable makes text that a process chose safe for a terminal and a table: it may hold escape sequences.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 && !strings.ContainsRune(s, unicode.ReplacementChar) {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}
