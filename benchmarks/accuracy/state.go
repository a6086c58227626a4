package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// attempt is one measurement of a row.
type attempt struct {
	Build   string
	Row     string
	Load    string   // load average when it began
	Windows []window `json:",omitempty"`
	Why     string   `json:",omitempty"` // there are no windows: the reason
}

// state is what was measured, in a file of one JSON object a line, so that a run that was interrupted goes on.
type state struct {
	build    string
	any      bool // what other builds measured counts, too
	file     *os.File
	attempts map[string][]attempt // by name of the row
}

const changedTree = "+changed"

// buildID is the commit that this program, and with it the profiler that it measures, was built from.
func buildID() string {
	info, _ := debug.ReadBuildInfo()
	settings := map[string]string{}
	if info != nil {
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
	}
	id := settings["vcs.revision"]
	if id == "" || settings["vcs.modified"] != "false" {
		return id + changedTree
	}
	return id[:min(12, len(id))]
}

// openState reads what the same build has measured, or any build. What a changed tree measured is never taken for the same.
func openState(path, build string, anyBuild bool) (*state, error) {
	s := &state{build: build, any: anyBuild, attempts: map[string][]attempt{}}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var err error
	if s.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := s.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("state %s: %w; remove the file to begin anew", path, err), s.file.Close())
	}
	return s, nil
}

func (s *state) read() error {
	r := bufio.NewReader(s.file)
	for d := json.NewDecoder(r); d.More(); {
		var a attempt
		if err := d.Decode(&a); err != nil {
			return err
		}
		if (a.Build == s.build || s.any) && !strings.HasSuffix(a.Build, changedTree) {
			s.attempts[a.Row] = append(s.attempts[a.Row], a)
		}
	}
	return nil
}

func (s *state) Close() error { return s.file.Close() }

// of returns the measurements of a row, the oldest first.
func (s *state) of(r row) []attempt { return s.attempts[r.name()] }

func (s *state) add(a attempt) error {
	a.Build = s.build
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	s.attempts[a.Row] = append(s.attempts[a.Row], a)
	_, err = s.file.Write(append(line, '\n'))
	return err
}

// wants tells whether a row is to be measured for the try-th time, counted from 0.
func (s *state) wants(r row, try int) bool {
	have := s.of(r)
	return len(have) == try && (try == 0 || judge(have).missed)
}
