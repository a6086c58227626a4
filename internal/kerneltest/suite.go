package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// suite is a package whose tests run in the machines.
type suite struct {
	pkg      string   // as the go command takes it, from the module's root
	run      string   // regexp of the tests; "" is all
	short    string   // the same for -short; "" is run
	skip     string   // regexp of tests that cannot run there: they build programs, for one
	targets  []string // programs of internal/testprog/targets that the tests profile
	versions []string // Go toolchains that build them, besides the local one
	amd64    []string // more of these, for amd64
	slow     bool     // not part of -short
	timeout  time.Duration
}

// allSuites is the one place that says what runs on other kernels.
func allSuites() []suite {
	return []suite{
		{pkg: "./internal/kerneltest/smoke"},
		{pkg: "./internal/testprog/needs"},
		{pkg: "./internal/procfs"},
		{pkg: "./bpf"},
		{
			pkg: "./profiler",
			// Not TestTotals: an emulated machine loses timer ticks. Not TestAddRefuses: there is no program that is not Go.
			run:      "^(TestKnownStacks|TestLabels|TestDeep|TestExit)$",
			short:    "^(TestKnownStacks|TestExit)$",
			targets:  []string{"leaf", "labels", "deep", "spin"},
			versions: []string{"1.21.13", "1.23.12"},
			// Up to Go 1.20 arm64's frame pointers are stale in stacks that have grown: about one stack in a thousand is wrong.
			amd64:   []string{"1.18.10"},
			timeout: 6 * time.Minute,
		},
	}
}

// choose keeps the suites that the command line asks for. A package that is not in the suite may be asked for, too.
func choose(all []suite, c *config) ([]suite, error) {
	var chosen []suite
	for _, s := range all {
		named := slices.Contains(c.pkgs, s.pkg)
		if len(c.pkgs) > 0 && !named || s.slow && c.short && !named {
			continue
		}
		chosen = append(chosen, s)
	}
	for _, pkg := range c.pkgs {
		if !strings.HasPrefix(pkg, "./") {
			return nil, fmt.Errorf("package %s: write it as ./%s, from the module's root", pkg, pkg)
		}
		if !slices.ContainsFunc(all, func(s suite) bool { return s.pkg == pkg }) {
			chosen = append(chosen, suite{pkg: pkg})
		}
	}
	for i := range chosen {
		chosen[i].adapt(c)
	}
	return chosen, nil
}

func (s *suite) adapt(c *config) {
	if c.short && s.short != "" {
		s.run = s.short
	}
	if c.run != "" {
		s.run = c.run
	}
	if s.timeout == 0 {
		s.timeout = 5 * time.Minute
	}
}

// toolchains are those that build the suite's targets: the local one first, and alone in the short suite.
func (s *suite) toolchains(arch string, short bool) []string {
	versions := []string{""}
	if short {
		return versions
	}
	if arch == "amd64" {
		versions = append(versions, s.amd64...)
	}
	return append(versions, s.versions...)
}

// args are the flags of the test binary. The binary's own time limit comes first, since it shows where a test hangs.
func (s *suite) args(short bool) []string {
	args := []string{"-test.v", "-test.timeout=" + (s.timeout - 5*time.Second).String()}
	if s.run != "" {
		args = append(args, "-test.run="+s.run)
	}
	if s.skip != "" {
		args = append(args, "-test.skip="+s.skip)
	}
	if short {
		args = append(args, "-test.short")
	}
	return args
}
