package file

import (
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pprofd/pprofd/export"
)

// SelectorPrefix begins the text of a Selector. What begins otherwise is the name of a file.
const SelectorPrefix = "dir:"

// Selector chooses files of a Store: those that fit all of what is set. Service, Kind and the values of Labels are names, or patterns
// of path.Match.
type Selector struct {
	Dir           string
	Service, Kind string
	PIDs          []int
	From, To      time.Time // between which the window began: From <= start < To
	// Labels of the process. They are in the files, not in their names.
	Labels []export.Label
}

// selectorKeys are what a selector may say, in the order of the help.
const selectorKeys = "service, kind, pid, from, to, label"

// ParseSelector reads dir:DIR?service=…&kind=…&pid=…&from=…&to=…&label=NAME=VALUE, of which only dir:DIR must be there; pid and label
// may be there several times. In DIR and in values %3F is a question mark, %26 is &, %25 is %. now is the time that relative times count from.
func ParseSelector(text string, now time.Time) (*Selector, error) {
	rest, ok := strings.CutPrefix(text, SelectorPrefix)
	dir, query, _ := strings.Cut(rest, "?")
	dir, err := url.PathUnescape(dir)
	if !ok || dir == "" || err != nil {
		return nil, fmt.Errorf("selector %q: %sDIR is wanted, then maybe ?service=NAME&kind=KIND", text, SelectorPrefix)
	}
	s := &Selector{Dir: dir}
	for term := range strings.SplitSeq(query, "&") {
		if term == "" {
			continue
		}
		key, value, _ := strings.Cut(term, "=")
		if value, err = url.PathUnescape(value); err == nil { // + is itself, as in times
			err = s.Set(key, value, now)
		}
		if err != nil {
			return nil, fmt.Errorf("selector %q: %w", text, err)
		}
	}
	return s, nil
}

// Set adds a condition, as it stands in a selector's text.
func (s *Selector) Set(key, value string, now time.Time) (err error) {
	if value == "" {
		return fmt.Errorf("%s has no value", key)
	}
	switch key {
	case "service":
		s.Service, err = value, checkPattern(value)
	case "kind":
		s.Kind, err = value, checkPattern(value)
	case "pid":
		err = s.addPIDs(value)
	case "from":
		s.From, err = parseTime(value, now)
	case "to":
		s.To, err = parseTime(value, now)
	case "label":
		err = s.addLabel(value)
	default:
		return fmt.Errorf("%q is unknown: there are %s", key, selectorKeys)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if !s.To.IsZero() && !s.From.Before(s.To) {
		return errors.New("from is not before to")
	}
	return nil
}

func (s *Selector) addPIDs(list string) error {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxPID {
			return fmt.Errorf("%q is no PID", text)
		}
		s.PIDs = append(s.PIDs, n)
	}
	return nil
}

func (s *Selector) addLabel(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q: NAME=VALUE is wanted", text)
	}
	s.Labels = append(s.Labels, export.Label{Name: name, Value: value})
	return checkPattern(value)
}

func checkPattern(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("%q: %w", pattern, err)
	}
	return nil
}

// timeForms are what parseTime takes besides relative times; those without a zone are in the local one.
var timeForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly}

// parseTime reads a time: RFC 3339, a date, a date and a time of day, "now", or how long ago: -90s, -1h30m, -7d.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "now" {
		return now, nil
	}
	if ago, ok := strings.CutPrefix(text, "-"); ok {
		if days, ok := strings.CutSuffix(ago, "d"); ok {
			if n, err := strconv.ParseUint(days, 10, 15); err == nil {
				return now.AddDate(0, 0, -int(n)), nil
			}
		} else if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
			return now.Add(-d), nil
		}
	}
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write 2006-01-02T15:04:05Z, a date, or how long ago, as -1h or -7d", text)
}

// Matches says whether a file's name fits. Labels are not looked at.
func (s *Selector) Matches(f *StoredFile) bool {
	return matches(s.Service, f.Service) && matches(s.Kind, f.Kind) &&
		(len(s.PIDs) == 0 || slices.Contains(s.PIDs, f.PID)) &&
		(s.From.IsZero() || !f.Time.Before(s.From)) && (s.To.IsZero() || f.Time.Before(s.To))
}

// matches: a name is itself also where it has characters that mean something in patterns.
func matches(pattern, name string) bool {
	if pattern == "" || pattern == name {
		return true
	}
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

// MatchesLabels says whether the labels of a process fit.
func (s *Selector) MatchesLabels(have []export.Label) bool {
	for _, want := range s.Labels {
		if !slices.ContainsFunc(have, func(l export.Label) bool { return l.Name == want.Name && matches(want.Value, l.Value) }) {
			return false
		}
	}
	return true
}

// Files yields the files that fit, in no order, and errors for what cannot be read. See List. Files have to be opened where
// there are Labels.
func (s *Selector) Files() iter.Seq2[StoredFile, error] {
	return func(yield func(StoredFile, error) bool) {
		var r *Reader
		for f, err := range List(s.Dir) {
			if err == nil && !s.Matches(&f) {
				continue
			}
			if err == nil && len(s.Labels) > 0 {
				if r == nil {
					if r, err = OpenReader(s.Dir); err != nil {
						yield(StoredFile{}, err)
						return
					}
					defer r.Close()
				}
				_, labels, errRead := r.Read(&f)
				if errors.Is(errRead, os.ErrNotExist) || errRead == nil && !s.MatchesLabels(labels) {
					continue
				}
				err = errRead
			}
			if !yield(f, err) {
				return
			}
		}
	}
}
