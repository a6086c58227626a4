package discover

import (
	"maps"
	"slices"
	"time"

	"github.com/pprofd/pprofd/export"
)

// counters only grow.
type counters struct {
	looks, scans, late, found uint64
	unread                    map[string]uint64
}

func (d *Discovery) tally(f func(*counters)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.count)
}

// Stats says what discovery has done, and what it knows.
type Stats struct {
	Looks, Scans uint64            // calls
	Late         uint64            // looks that were not waited for: Scan finds what they find
	Found        uint64            // Go programs that processes were found to run, wanted or not
	Unreadable   map[string]uint64 // looks that failed, by reason
	Processes    map[Verdict]int   // Go processes that run now
	Programs     int               // executables that are remembered
	Sources      map[string]SourceStats
}

// Stats counts.
func (d *Discovery) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{
		Looks: d.count.looks, Scans: d.count.scans, Late: d.count.late, Found: d.count.found,
		Unreadable: maps.Clone(d.count.unread), Processes: map[Verdict]int{}, Programs: d.in.size(), Sources: d.meta.stats(),
	}
	for _, e := range d.entries {
		if e.ended.IsZero() {
			s.Processes[d.judge(e)]++
		}
	}
	return s
}

// Info is a Go process that runs now, wanted or not.
type Info struct {
	Proc
	Verdict   Verdict
	Obstacle  string // why it cannot be profiled
	Seen      time.Time
	Comm, Exe string
	Deleted   bool // Exe is, or another file is there
	Command   []string
	User      string
	Program   Program
	Service   string         // these two are "" and nil where it is not wanted
	Labels    []export.Label // shared: read only
}

// List is everything that is known of the Go processes that run now, in the order of their PIDs.
func (d *Discovery) List() []Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Info
	for _, e := range d.entries {
		if !e.ended.IsZero() {
			continue
		}
		i := Info{
			Proc: e.key, Verdict: d.judge(e), Obstacle: e.program.Obstacle, Seen: e.seen, Comm: e.comm, Exe: e.exe, Deleted: e.deleted,
			Command: e.cmdline, User: e.user, Program: *e.program,
		}
		if i.Verdict == Wanted {
			i.Service, i.Labels = e.service, e.labels
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Info) int { return a.PID - b.PID })
	return list
}
