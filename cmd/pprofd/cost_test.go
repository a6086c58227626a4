package main

import (
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

func cpuIn(p *profile.Profile) (sum time.Duration) {
	for _, s := range p.Sample {
		sum += time.Duration(s.Value[1])
	}
	return sum
}

// TestRecordWithinBudget: the rate has been another one each second, and the sum is what the process used nevertheless.
func TestRecordWithinBudget(t *testing.T) {
	p := spin(t)
	cmd, out, errOut := command(t, "record", "-p", fmt.Sprint(p.PID), "-d", "6s", "--max-overhead", "3%")
	began := cpuOf(t, p.PID)
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	used := cpuOf(t, p.PID) - began
	prof := readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
	got := cpuIn(prof)
	t.Logf("%v used, %v in the profile; %q\n%s", used, got, prof.Comments, out)
	if got > used*103/100+20*time.Millisecond || got < used*85/100 { // /proc counts in 10 ms; the process uses some while pprofd begins and ends
		t.Errorf("%v of %v of CPU time are in the profile", got, used)
	}
	if !slices.ContainsFunc(prof.Comments, regexp.MustCompile(`^event .* at \S+ to \S+ Hz$`).MatchString) ||
		!slices.ContainsFunc(prof.Comments, regexp.MustCompile(`^mode full: spent \S+ % of a budget of 3 % of \d+ CPUs$`).MatchString) {
		t.Errorf("comments %q", prof.Comments)
	}
	line := regexp.MustCompile(`cost: (\S+) % of \d+ CPUs for \S+ s: pprofd \S+ s, BPF \S+ s \(\S+ µs a sample\), \d+ interrupts \S+ s \(\S+ µs each\); above 3% in \d+ of \d+ s\n`)
	if !line.MatchString(out.String()) {
		t.Errorf("no line of cost:\n%s", out)
	}
}

// TestRecordSaysWhatItCost: also where nothing is sampled.
func TestRecordSaysWhatItCost(t *testing.T) {
	p := spin(t)
	for name, args := range map[string][]string{"cpu": {"-d", "1s"}, "heap": {"-t", "heap"}} {
		t.Run(name, func(t *testing.T) {
			bin := testprog.Build(t, "heap", testprog.Options{})
			pid := p.PID
			if name == "heap" {
				pid = testprog.Start(t, bin).PID
			}
			cmd, out, errOut := command(t, append([]string{"record", "-p", fmt.Sprint(pid)}, args...)...)
			if err := cmd.Run(); err != nil {
				t.Fatal(err, errOut)
			}
			m := regexp.MustCompile(`cost: (\S+ % of \d+ CPUs for \S+ s: )?pprofd (\S+) s`).FindStringSubmatch(out.String())
			if m == nil || (m[1] == "") != (name == "heap") {
				t.Fatalf("no line of cost:\n%s", out)
			}
			own, err := strconv.ParseFloat(m[2], 64)
			if truth := (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(); err != nil || own <= 0 || own > truth+0.005 {
				t.Errorf("it says %v s, and used %v (%v)", own, truth, err)
			}
		})
	}
	for want, args := range map[string][]string{
		"200% is not within 0.01% and 100%":                           {"--max-overhead", "200%"},
		`"much" is no percentage: write it as 1% or 0.5%`:             {"--max-overhead", "much"},
		"--max-overhead is for what is sampled, cpu, allocs and wall": {"--max-overhead", "1%", "-t", "heap"},
	} {
		code, _, errOut := call(t, append([]string{"record", "-p", "1"}, args...)...)
		if code != 2 || !strings.Contains(errOut, want) {
			t.Errorf("%q: exit code %d: %s", args, code, errOut)
		}
	}
}

// TestAgentWithinBudget: rates rise where there is room, the totals stay true, and all of it is told.
func TestAgentWithinBudget(t *testing.T) {
	bin := ownPrograms(t, "spin")
	addr := freeAddress(t)
	a := startAgent(t, bin, nil, "--listen", addr, "--max-overhead", "5%", "--config",
		writeConfig(t, "cpu: {hz: 7, min_hz: 5, max_hz: 997}\noverhead: {load: 1000}\n"))
	p := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=60")
	// The log is asked, not /metrics: to answer costs the agent something, too.
	until(t, "the rate rises", func() bool { return regexp.MustCompile(`cpu: [^;]* rate \S+ -> \d{3,} Hz`).MatchString(a.log.String()) })
	until(t, "some windows at that rate", func() bool { return len(a.files(t, "cpu", p.PID)) >= 5 })
	for name, ok := range map[string]func(float64) bool{
		"pprofd_overhead_budget_cpus":                        func(v float64) bool { return v > 0 },
		"pprofd_overhead_spent_cpus":                         func(v float64) bool { return v > 0 },
		`pprofd_overhead_cpus{kind="cpu",part="bpf"}`:        func(v float64) bool { return v > 0 },
		`pprofd_overhead_cpus{kind="cpu",part="interrupts"}`: func(v float64) bool { return v > 0 },
		`pprofd_overhead_cpus{kind="agent",part="user"}`:     func(v float64) bool { return v >= 0 },
		`pprofd_mode{mode="full"}`:                           func(v float64) bool { return v == 1 },
		"pprofd_overhead_windows_total":                      func(v float64) bool { return v >= 3 },
		`pprofd_bpf_seconds_total{kind="cpu"}`:               func(v float64) bool { return v > 0 },
		`pprofd_ticks_total{kind="cpu"}`:                     func(v float64) bool { return v > 100 },
		"pprofd_overhead_memory_budget_bytes":                func(v float64) bool { return v == 100<<20 },
	} {
		if v := metric(t, addr, name); !ok(v) {
			t.Errorf("%s is %v", name, v)
		}
	}
	used := cpuOf(t, p.PID)
	a.end(t)
	got := a.cpu(t, p.PID)
	t.Logf("%v of %v of CPU time are in the profiles", got, used)
	if math.Abs(float64(got-used)) > 0.1*float64(used)+float64(500*time.Millisecond) {
		t.Errorf("%v of %v of CPU time are in the profiles", got, used)
	}
	for _, f := range a.files(t, "cpu", p.PID)[1:] {
		if c := readProfile(t, f).Comments; !slices.ContainsFunc(c, func(s string) bool { return strings.Contains(s, "of a budget of 5 % of") }) {
			t.Errorf("comments %q", c)
		}
	}
}

func TestShareOf(t *testing.T) {
	for want, d := range map[string][2]time.Duration{
		"0.031 s of CPU time in 0.0 s": {31 * time.Millisecond, 11 * time.Millisecond},
		fmt.Sprintf("%.2f %% of %d CPUs for 2.0 s", 50/float64(runtime.NumCPU()), runtime.NumCPU()): {time.Second, 2 * time.Second},
	} {
		if got := shareOf(d[0], d[1]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
