package main

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// suite is a package whose tests run in the machines, or a command.
type suite struct {
	pkg      string   // as the go command takes it, from the module's root
	name     string   // tells suites of one package apart; "" if there is one
	run      string   // regexp of the tests; "" is all
	short    string   // the same for -short, of programs built in the plainest way; "" is run
	skip     string   // regexp of tests that cannot run there: they build programs, for one
	targets  []string // programs of internal/testprog/targets that the tests profile
	stripped []string // the same, without symbols
	pie      []string // the same, without symbols, as position-independent executables
	cgo      []string // the same, with C code, plainly and as pie; where there is no compiler for the architecture tests are skipped
	versions []string // Go toolchains that build them on the base kernel, besides the local one
	amd64    []string // more of these, for amd64
	arch     string   // the only architecture; "" is all
	where    where
	systemd  bool              // in machines whose init is systemd, which are those of -systemd, and only there
	programs map[string]string // commands that tests start: packages by where they are in the machine
	files    map[string]string // of the module, by where they are in the machine
	command  bool              // pkg is a command whose output is for the report, with the arguments flags
	flags    []string
	slow     bool // not part of -short
	timeout  time.Duration
}

// where says on which kernels a suite runs.
type where int

const (
	onSupported   where = iota
	onUnsupported       // on kernels that are too old, and nowhere else
	onBase              // what is tested does not depend on the kernel
	everywhere
)

// doctorName is the suite whose output says what a kernel lacks.
const doctorName = "pprofd doctor"

// allSuites is the one place that says what runs on other kernels.
func allSuites() []suite {
	return slices.Concat(suitesOfEvents(), suitesOfMemory(), suitesOfStacks(), suitesOfSystemd())
}

// suitesOfEvents are those of what the kernel side sees.
func suitesOfEvents() []suite {
	return []suite{
		{pkg: "./cmd/pprofd", name: doctorName, command: true, flags: []string{"doctor", "--json"}, where: everywhere},
		{pkg: "./internal/kerneltest/smoke"},
		{pkg: "./internal/testprog/needs"},
		{pkg: "./internal/procfs"},
		// The first three start programs of the host; the fourth measures pauses of milliseconds, of which an emulated machine has its own;
		// the others hold sums of samples, or what a tick costs, against CPU time, of which it loses some with the ticks that it loses.
		{
			pkg: "./bpf", skip: "^(TestTargetsAndLossesGo|TestDiscover|TestEventsFirst|TestLatencyOfAttaching|TestSetRate|TestSetLimit|TestJitter|TestMeasureTick)$",
			targets: []string{"alloc"},
		},
		{pkg: "./bpf", name: "./bpf refuses", run: "^TestLoadSaysWhatTheKernelLacks$", where: onUnsupported},
		{
			pkg: "./profiler",
			// Not TestTotals: an emulated machine loses timer ticks. Not TestOpenRefuses: there is no program that is not Go.
			run:      "^(TestKnownStacks|TestLabels|TestDeep|TestExit)$",
			short:    "^(TestKnownStacks|TestExit)$",
			targets:  []string{"leaf", "labels", "deep", "spin"},
			versions: []string{"1.21.13", "1.23.12"},
			// Up to Go 1.20 arm64's frame pointers are stale in stacks that have grown: about one stack in a thousand is wrong.
			amd64:   []string{"1.18.10"},
			timeout: 6 * time.Minute,
		},
		{
			pkg: "./profiler", name: "./profiler allocations", run: "^(TestProbesAreGone|TestProbedAllocs)$/(random|uprobe_multi|perf events)$",
			targets: []string{"alloc"}, versions: []string{"1.18.10", "1.23.12", "1.27.4"}, slow: true, timeout: 6 * time.Minute,
		},
		{
			pkg: "./profiler", name: "./profiler OOM", run: "^(TestOOM|TestOOMCopied)$", stripped: []string{"leak"}, slow: true, timeout: 6 * time.Minute,
		},
	}
}

// suitesOfMemory are those of what is read from a process's memory: goroutines, contention, what its heap is like.
func suitesOfMemory() []suite {
	return []suite{
		{
			pkg: "./profiler", name: "./profiler goroutines",
			// Not what compares shares of time: an emulated machine loses timer ticks.
			run: "^(TestGoroutines|TestGoroutinesUnderLoad|TestContention|TestContentionDifference|TestContentionOff|TestWaitRates|TestReadingsOfContention|" +
				"TestReadingsOfGoroutines|TestWallChoice|TestWallEnds)$/^(go[^-]*(-cgo|-pie-stripped|-cgo-pie-stripped)?|go.*_(plain|cgo|stripped_PIE)_.*)$",
			short:   "^(TestGoroutines|TestContention)$/^(golocal|go_plain_.*)$",
			targets: []string{"waits", "restless", "contend", "shares"}, pie: []string{"waits", "contend"}, cgo: []string{"waits", "contend"},
			versions: []string{"1.18.10", "1.23.12", "1.27.4"}, timeout: 6 * time.Minute,
		},
		{
			// Not TestWallShares, nor what is like it: a snapshot takes some 100 ms where the host is busy, so that a minute has a few dozen.
			pkg: "./profiler", name: "./profiler wall", run: "^(TestWallCost|TestWallUnseen|TestWallUnseenWaits|TestWallUnseenWindows)$", targets: []string{"pauses"}, slow: true,
		},
		{
			pkg: "./profiler", name: "./profiler crashes", run: "^TestCrashes$", targets: []string{"crash"}, cgo: []string{"crash"},
			versions: []string{"1.18.10", "1.27.4"}, slow: true, timeout: 6 * time.Minute,
		},
		{
			pkg: "./internal/goruntime", run: "^(TestReadGCState|TestMemProfile)$/^(go.*_stripped_PIE|.*_|.*_1\\..*)$", pie: []string{"gcstats", "heap"},
			versions: []string{"1.18.10", "1.23.12", "1.27.4"}, slow: true,
		},
		{
			// No wall profiles: reading is too slow there.
			pkg: "./cmd/pprofd", run: "^(TestDump|TestDumpJSON|TestDumpWritesProfiles|TestDumpNotRunning|TestDumpRunning|TestDumpWithoutRights|TestTopOnceIsText)$",
			targets: []string{"waits", "crash", "spin"}, slow: true,
		},
	}
}

// suitesOfStacks compare stacks with true ones.
func suitesOfStacks() []suite {
	return []suite{
		{
			pkg: "./benchmarks/accuracy", run: "^TestAccuracy$/^golocal$/^default$", targets: []string{"mixed"},
			timeout: 6 * time.Minute,
		},
		{
			pkg: "./internal/testprog/stepper", run: "^TestShadowStack$", targets: []string{"step"}, versions: steppedVersions, slow: true,
			arch: "arm64", where: onBase, timeout: 6 * time.Minute,
		},
		{
			pkg: "./unwind", run: "^TestEveryInstruction$", targets: []string{"step"}, versions: steppedVersions, slow: true,
			arch: "arm64", where: onBase, timeout: 10 * time.Minute,
		},
	}
}

func suitesOfSystemd() []suite {
	return []suite{
		{
			pkg: "./deploy", run: "^TestSystemd", systemd: true, where: onBase, targets: []string{"heap", "mixed"}, timeout: systemdTimeout,
			programs: map[string]string{"/usr/local/bin/pprofd": "./cmd/pprofd"},
			files: map[string]string{
				"/etc/systemd/system/pprofd.service": "deploy/pprofd.service",
				"/etc/pprofd/pprofd.yaml":            "deploy/pprofd.yaml",
			},
		},
	}
}

// systemdTimeout is three times what the suite takes on a quiet machine; with -suspend it is longer by that.
const systemdTimeout = 25 * time.Minute

// steppedVersions build what is single-stepped on arm64, besides the local toolchain: those whose assembler or runtime first keep
// frame pointers otherwise. Up to Go 1.20 frame pointers do not tell the true stack there with which stepping begins: unwind's
// TestEveryInstructionARM64 judges these.
var steppedVersions = []string{"1.21.13", "1.23.12", "1.27.4"}

// choose keeps the suites that the command line asks for. A package that is not in the suite may be asked for, too.
func choose(all []suite, c *config) ([]suite, error) {
	var chosen []suite
	for _, s := range all {
		named := slices.Contains(c.pkgs, s.pkg)
		if s.systemd != c.systemd {
			continue
		}
		if len(c.pkgs) > 0 && !named || s.slow && c.short && !named {
			continue
		}
		if i := slices.IndexFunc(chosen, func(have suite) bool { return have.pkg == s.pkg && have.command == s.command }); i >= 0 && c.run != "" {
			chosen[i].targets = append(chosen[i].targets, s.targets...) // the same tests; run them once
			chosen[i].stripped = append(chosen[i].stripped, s.stripped...)
			chosen[i].pie = append(chosen[i].pie, s.pie...)
			chosen[i].cgo = append(chosen[i].cgo, s.cgo...)
			chosen[i].versions = appendNew(chosen[i].versions, s.versions)
			chosen[i].amd64 = appendNew(chosen[i].amd64, s.amd64)
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

// appendNew appends what is not in the list yet, to a copy.
func appendNew(list, more []string) []string {
	list = slices.Clone(list)
	for _, m := range more {
		if !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list
}

func (s *suite) adapt(c *config) {
	if c.short && s.short != "" {
		s.run, s.pie, s.cgo = s.short, nil, nil
	}
	if c.run != "" {
		s.run, s.skip = c.run, ""
	}
	if s.timeout == 0 {
		s.timeout = 5 * time.Minute
	}
	if s.systemd {
		s.timeout += c.suspend
	}
}

// title is what the report calls the suite.
func (s *suite) title() string { return cmp.Or(s.name, s.pkg) }

// patience is how long a test may take that takes up to d on the host's architecture: another one is emulated two to three times
// slower.
func patience(arch string, d time.Duration) time.Duration {
	if arch == runtime.GOARCH {
		return d
	}
	return 3 * d
}

// forKernel keeps the suites that are for a kernel.
func forKernel(suites []suite, k *kernel, arch string) []suite {
	suites = slices.DeleteFunc(slices.Clone(suites), func(s suite) bool {
		if s.arch != "" && s.arch != arch {
			return true
		}
		switch s.where {
		case onSupported:
			return !k.supported()
		case onUnsupported:
			return k.supported()
		case onBase:
			return !k.isBase()
		default:
			return false
		}
	})
	for i := range suites {
		suites[i].timeout = patience(arch, suites[i].timeout)
	}
	return suites
}

// toolchains are those that build the suite's targets: the local one first, and alone if local.
func (s *suite) toolchains(arch string, local bool) []string {
	versions := []string{""}
	if local {
		return versions
	}
	if arch == "amd64" {
		versions = append(versions, s.amd64...)
	}
	return appendNew(versions, s.versions)
}

// args are the flags of the test binary. The binary's own time limit comes first, since it shows where a test hangs.
func (s *suite) args(short bool) []string {
	if s.command {
		return s.flags
	}
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
