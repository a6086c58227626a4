package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/profiler"
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

	MemProfile       string `json:"memory_profile"` // one of the words below
	MemProfileRate   int64  `json:"memory_profile_rate"`
	MemProfileReason string `json:"memory_profile_reason"` // why it is unknown

	BlockProfile  string `json:"block_profile"`      // memOn, memOff or memUnknown
	BlockRate     int64  `json:"block_profile_rate"` // argument of SetBlockProfileRate, nanoseconds
	MutexProfile  string `json:"mutex_profile"`
	MutexFraction int64  `json:"mutex_profile_fraction"` // argument of SetMutexProfileFraction
	WaitsReason   string `json:"contention_reason"`      // why these are unknown

	start uint64 // clock ticks since boot
}

// What a process's runtime does about its memory profile, which record -t heap and -t allocs read.
const (
	memOn        = "on"         // it samples one of so many bytes
	memOff       = "off"        // the program has set MemProfileRate to 0
	memLinkedOut = "linked out" // nothing in the program reads the profile: the linker has left it out
	memUnknown   = "unknown"
)

func newPS() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ps",
		Short: "List every Go process: version, module, how it was built, whether it can be profiled",
		Long: `Ps lists the Go processes of this machine (in a container: of the container), found by what their executables hold,
not by name. Without root it lists those that it may read, mostly one's own, and counts the rest.

FLAGS: pie, stripped (no symbol table), cgo, deleted (the executable was removed or replaced since the start).
REVISION ends in "+dirty" where the source was modified. PROFILABLE is about the program; doctor is about the machine.
MEMPROFILE says what record -t heap and -t allocs have to read: on, with runtime.MemProfileRate (of how many allocated
bytes the runtime samples one); off, where the program has set that to 0; linked out, where nothing in the program reads
its memory profile, so that the linker has left it out (import net/http/pprof to have it); unknown, and why.
BLOCK and MUTEX say the same of record -t block and -t mutex: on, with what the program has given to
runtime.SetBlockProfileRate (nanoseconds) and runtime.SetMutexProfileFraction; off, where it has not; unknown.`,
		Example: `  sudo pprofd ps
  sudo pprofd ps --json | jq -r '.[] | select(.memory_profile == "linked out") | .exe'
  pprofd ps --json | jq -r '.[] | select(.vcs_revision | endswith("+dirty")) | .exe'`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return ps(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), procRoot, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array with one object per process")
	return c
}

const procRoot = "/proc"

func ps(ctx context.Context, stdout, stderr io.Writer, root string, asJSON bool) error {
	in := discover.NewInspector(root)
	found, err := in.All(ctx)
	if err != nil {
		return err
	}
	rows := psRows(found.Found)
	memory := profiler.NewMemory(profiler.MemoryConfig{ProcRoot: root})
	defer memory.Close()
	for i := range rows {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rows[i].memProfile(memory)
		rows[i].contention(memory)
	}
	rows = slices.DeleteFunc(rows, func(r psRow) bool { return r.ended(in) })
	if asJSON {
		err = printJSON(stdout, rows)
	} else {
		err = printRows(stdout, rows)
	}
	for _, why := range slices.Sorted(maps.Keys(found.Unread)) {
		n := found.Unread[why]
		if why == objfile.ErrFUSE.Error() { // that is so for everybody
			fmt.Fprintf(stderr, "pprofd: processes that could not be read: %d: %s\n", n, why)
			continue
		}
		fmt.Fprintf(stderr, "pprofd: processes that could not be read: %d: %s (%s)\n", n, why, whoMayLook())
	}
	return err
}

func psRows(found []*discover.Process) []psRow {
	users := map[uint32]string{}
	rows := make([]psRow, 0, len(found)) // never nil: an empty array in JSON
	for _, p := range found {
		rows = append(rows, psRow{
			start: p.Start, PID: p.PID, UID: p.UID, User: userName(users, p.UID),
			Comm: p.Comm, Exe: p.Exe, Deleted: p.Deleted, Command: p.Args,
			GoVersion: p.GoVersion, Module: p.Module, Version: p.Version, Revision: p.Revision,
			Stripped: p.Stripped, PIE: p.PIE, Cgo: p.Cgo,
			Profilable: p.Obstacle == "", Reason: p.Obstacle,
		})
	}
	return rows
}

// ended says whether the process is one of the past by now: what could not be read of it says nothing.
func (r *psRow) ended(in *discover.Inspector) bool {
	stat, err := in.Proc(r.PID).Stat()
	return err != nil && discover.Gone(err) || err == nil && (stat.StartTime != r.start || stat.State == 'Z')
}

// memProfile asks the process's memory.
func (r *psRow) memProfile(m *profiler.Memory) {
	if !r.Profilable {
		r.MemProfile, r.MemProfileReason = memUnknown, r.Reason
		return
	}
	rate, err := m.Rate(r.PID)
	switch {
	case errors.Is(err, goruntime.ErrNoMemProfile):
		r.MemProfile = memLinkedOut
	case err != nil:
		r.MemProfile, r.MemProfileReason = memUnknown, firstLine(err)
	case rate == 0:
		r.MemProfile = memOff
	default:
		r.MemProfile, r.MemProfileRate = memOn, rate
	}
}

// contention asks for the profiles of waiting.
func (r *psRow) contention(m *profiler.Memory) {
	r.BlockProfile, r.MutexProfile, r.WaitsReason = memUnknown, memUnknown, r.Reason
	if !r.Profilable {
		return
	}
	rates, err := m.WaitRates(r.PID)
	if err != nil {
		r.WaitsReason = firstLine(err)
		return
	}
	r.BlockProfile, r.BlockRate = onOff(rates.Block), rates.Block
	r.MutexProfile, r.MutexFraction = onOff(rates.Mutex), rates.Mutex
}

func onOff(rate int64) string {
	if rate == 0 {
		return memOff
	}
	return memOn
}

// rated is a state with its rate.
func rated(state string, rate int64) string {
	if state == memOn {
		return fmt.Sprintf("on (%d)", rate)
	}
	return state
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
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PID\tUSER\tGO\tMODULE\tVERSION\tREVISION\tFLAGS\tPROFILABLE\tMEMPROFILE\tBLOCK\tMUTEX\tCOMMAND")
	for _, r := range rows {
		cells := []string{
			strconv.Itoa(r.PID), r.User, strings.TrimPrefix(r.GoVersion, "go"), r.Module, r.Version,
			r.Revision, r.flags(), r.profilable(), r.memory(), rated(r.BlockProfile, r.BlockRate), rated(r.MutexProfile, r.MutexFraction),
			strings.Join(r.Command, " "),
		}
		for i, cell := range cells {
			if cells[i] = discover.Printable(cell); cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, shortRows(text.String(), terminalWidth(w)))
	return err
}

// leastCommand is how many columns of a command a terminal shows, however narrow it is.
const leastCommand = 40

// shortRows cuts commands that go beyond a terminal of so many columns; 0: it is none, all is wanted.
func shortRows(text string, width int) string {
	if width == 0 {
		return text
	}
	head, _, _ := strings.Cut(text, "\n")
	width = max(width, strings.Index(head, "COMMAND")+leastCommand)
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width-1]) + "…"
		}
		fmt.Fprintln(&out, line)
	}
	return out.String()
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

func (r psRow) memory() string {
	if r.MemProfile == memUnknown {
		return "unknown: " + r.MemProfileReason
	}
	return rated(r.MemProfile, r.MemProfileRate)
}
