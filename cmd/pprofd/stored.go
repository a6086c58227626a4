package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/profiler"
)

// selectorHelp is for the commands that take selectors.
const selectorHelp = `A selector is dir:DIR?CONDITION&CONDITION...: the profiles that the agent keeps in DIR, those that fit all conditions:

  service=NAME      of the service; a pattern (* does not match /)
  kind=KIND         cpu, heap or allocs; a pattern
  pid=PID           of one of these processes; repeat, or separate by commas
  label=NAME=VALUE  with this label of the process, such as label=pod=web-*; repeatable
  from=TIME         whose window began then or later
  to=TIME           whose window began before

TIME is 2026-11-23T09:00:00Z, 2026-11-23 or 2026-11-23T09:00 (local time), now, or how long ago: -90s, -1h30m, -7d.
The agent may be writing to DIR meanwhile. Quote selectors: & and ? mean something to shells.`

// storeDir is where the agent keeps profiles unless it is told otherwise.
func storeDir() string {
	flags := config.Flags()
	i := slices.IndexFunc(flags, func(f config.Flag) bool { return f.Name == "dir" })
	return flags[i].Default
}

// explainDir says what to do about a directory that cannot be read.
func explainDir(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return toldError{fmt.Sprintf("%s: permission denied: profiles are the agent's user's alone; try sudo", discover.Printable(dir)), err}
	case errors.Is(err, fs.ErrNotExist):
		return toldError{fmt.Sprintf("%s does not exist: the agent makes it (pprofd agent --dir DIR)", discover.Printable(dir)), err}
	}
	return err
}

// find lists the files that fit by their names, the oldest first, and tells w what could not be read.
func find(w io.Writer, s *file.Selector) ([]file.StoredFile, error) {
	var list []file.StoredFile
	unread := 0
	for f, err := range s.Files() {
		if err != nil {
			if len(list) == 0 && unread == 0 && unreadable(s.Dir) != nil {
				return nil, explainDir(s.Dir, err)
			}
			unread++
			fmt.Fprintf(w, "pprofd: note: left out: %s\n", discover.Printable(err.Error()))
			continue
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b file.StoredFile) int {
		return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.Path, b.Path))
	})
	return list, nil
}

func unreadable(dir string) error {
	f, err := os.Open(dir)
	if err == nil {
		_, err = f.ReadDir(1)
		f.Close()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// noMatch says what there is where a selector chooses nothing.
func noMatch(text string, s *file.Selector) error {
	services, kinds := map[string]bool{}, map[string]bool{}
	var first, last time.Time
	n := 0
	for f, err := range file.List(s.Dir) {
		if err != nil {
			continue // told already
		}
		n++
		services[f.Service], kinds[f.Kind] = true, true
		if first.IsZero() || f.Time.Before(first) {
			first = f.Time
		}
		if f.Time.After(last) {
			last = f.Time
		}
	}
	if n == 0 {
		return fmt.Errorf("%s: there is no profile in %s", discover.Printable(text), discover.Printable(s.Dir))
	}
	return fmt.Errorf("%s: no profile fits; there are %d, of services %s, of kinds %s, from %s to %s", discover.Printable(text), n,
		some(services), some(kinds), first.Format(time.RFC3339), last.Format(time.RFC3339))
}

// some names a few of many.
func some(names map[string]bool) string {
	const most = 10
	list := slices.Sorted(maps.Keys(names))
	more := ""
	if len(list) > most {
		list, more = list[:most], fmt.Sprintf(" and %d more", len(list)-most)
	}
	for i, name := range list {
		list[i] = discover.Printable(name)
	}
	return strings.Join(list, ", ") + more
}

// input is an argument: a file, or a selector.
type input struct {
	text     string
	selector *file.Selector // nil: a file
}

// parseInputs reads arguments. Its errors are usage errors.
func parseInputs(args []string, now time.Time) ([]input, error) {
	var list []input
	for _, arg := range args {
		in := input{text: arg}
		if strings.HasPrefix(arg, file.SelectorPrefix) {
			s, err := file.ParseSelector(arg, now)
			if err != nil {
				return nil, usageError{err}
			}
			in.selector = s
		} else if st, err := os.Stat(arg); err == nil && st.IsDir() {
			return nil, usagef("%s is a directory: write %s%s, and maybe ?service=NAME&kind=KIND", arg, file.SelectorPrefix, arg)
		}
		list = append(list, in)
	}
	return list, nil
}

// gathered is the sum of the profiles of some inputs.
type gathered struct {
	*profile.Profile
	n           int
	first, last time.Time // of windows' starts; zero: not known
}

// gather adds the profiles of inputs up.
func gather(stderr io.Writer, inputs ...input) (*gathered, error) {
	var m file.Merger
	g := &gathered{}
	for _, in := range inputs {
		if err := g.add(stderr, &m, in); err != nil {
			return nil, err
		}
	}
	var err error
	g.n = m.Merged()
	g.Profile, err = m.Profile()
	return g, err
}

func (g *gathered) add(stderr io.Writer, m *file.Merger, in input) error {
	if in.selector != nil {
		return g.addStored(stderr, m, in)
	}
	p, labels, err := file.ReadProfile(in.text)
	if err != nil {
		return err
	}
	if p.TimeNanos > 0 {
		g.saw(time.Unix(0, p.TimeNanos))
	}
	if err := m.Add(p, labels); err != nil {
		return fmt.Errorf("%s: %w", in.text, err)
	}
	return nil
}

func (g *gathered) saw(at time.Time) {
	if g.first.IsZero() || at.Before(g.first) {
		g.first = at
	}
	if at.After(g.last) {
		g.last = at
	}
}

// addStored adds what a selector chooses. What cannot be read is left out, and told.
func (g *gathered) addStored(stderr io.Writer, m *file.Merger, in input) error {
	byName := *in.selector
	byName.Labels = nil // they are looked at when a file is open
	list, err := find(stderr, &byName)
	if err != nil {
		return err
	}
	if err := checkFound(stderr, in, list); err != nil {
		return err
	}
	r, err := file.OpenReader(in.selector.Dir)
	if err != nil {
		return explainDir(in.selector.Dir, err)
	}
	defer r.Close()
	before := m.Merged()
	for i := range list {
		p, labels, err := r.Read(&list[i])
		switch {
		case errors.Is(err, fs.ErrNotExist): // the agent has removed it
			continue
		case err != nil:
			fmt.Fprintf(stderr, "pprofd: note: left out: %s\n", discover.Printable(err.Error()))
			continue
		case !in.selector.MatchesLabels(labels):
			continue
		}
		if err := m.Add(p, labels); err != nil {
			return fmt.Errorf("%s: %s: %w", discover.Printable(in.text), list[i].Path, err)
		}
		g.saw(list[i].Time)
	}
	if m.Merged() == before {
		return noMatch(in.text, in.selector)
	}
	return nil
}

// checkFound refuses kinds that cannot be added up, before anything is read.
func checkFound(stderr io.Writer, in input, list []file.StoredFile) error {
	kinds := make(map[string]int)
	heaps := make(map[string]int)
	most := 0
	for _, f := range list {
		kinds[f.Kind]++
		if f.Kind == profiler.KindHeap {
			process := fmt.Sprint(f.Service, f.PID, f.Start)
			heaps[process]++
			most = max(most, heaps[process])
		}
	}
	if len(kinds) > 1 {
		var words []string
		for _, k := range slices.Sorted(maps.Keys(kinds)) {
			words = append(words, fmt.Sprintf("%s (%d)", discover.Printable(k), kinds[k]))
		}
		return usagef("%s: there are several kinds, which do not add up: %s: choose one by kind=", discover.Printable(in.text), strings.Join(words, ", "))
	}
	if most > 1 {
		fmt.Fprintf(stderr, "pprofd: note: %s: up to %d heaps of one process are added up, also what is in use: choose a moment by from= and to=\n", discover.Printable(in.text), most)
	}
	return nil
}
