package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/pprofd/pprofd/internal/testprog"
)

// mode is a way to build the workload.
type mode struct {
	name    string
	options testprog.Options
}

// modes are the ways to build that change what a profiler finds: symbols, addresses, the linker, C threads, inlining.
var modes = []mode{
	{"default", testprog.Options{}},
	{"stripped", testprog.Options{Strip: true}},
	{"pie", testprog.Options{PIE: true}},
	{"cgo", testprog.Options{Cgo: true, LDFlags: "-linkmode=external"}},
	{"trimpath", testprog.Options{Flags: []string{"-trimpath"}}},
	{"noinline", testprog.Options{Flags: []string{"-gcflags=-l"}}}, // of the workload; what it calls stays inlined
	{"race", testprog.Options{Cgo: true, Flags: []string{"-race"}}},
}

// row is one program under measurement.
type row struct {
	version string // of Go; "" is the local one
	mode    mode
	peers   bool // perf and bpftrace take turns with pprofd
}

// name is the row as -rows takes it, such as go1.22.12/pie.
func (r row) name() string { return r.goName() + "/" + r.mode.name }

func (r row) goName() string {
	if r.version == "" {
		return "golocal"
	}
	return "go" + r.version
}

// comparison leaves out C code where the race detector is called, for most of what the program does: the runtime cannot
// walk it.
func (r row) comparison() *testprog.CompareOptions {
	return &testprog.CompareOptions{LeaveOutC: r.mode.name == "race"}
}

func (r row) options() testprog.Options {
	o := r.mode.options
	o.Go = r.version
	return o
}

// besidePeers are the rows of which perf and bpftrace take profiles, too.
var besidePeers = map[string]bool{
	"go1.18.10/default": true, "go1.21.13/default": true, "go1.23.12/default": true,
	"go1.27.4/default": true, "go1.27.4/stripped": true,
}

// allRows are all versions, each in all modes.
func allRows() []row {
	var rows []row
	for _, version := range testprog.AllVersions() {
		for _, m := range modes {
			r := row{version: version, mode: m}
			r.peers = besidePeers[r.name()]
			rows = append(rows, r)
		}
	}
	return rows
}

// chooseRows keeps the rows whose name the expression matches.
func chooseRows(expr string) ([]row, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("-rows: %w", err)
	}
	var rows []row
	var names []string
	for _, r := range allRows() {
		names = append(names, r.name())
		if re.MatchString(r.name()) {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("-rows %s: no row is called so; there are %s", expr, strings.Join(names, " "))
	}
	return rows, nil
}
