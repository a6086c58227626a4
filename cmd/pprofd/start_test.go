package main

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

// sum is the number of samples and their CPU time, losses included.
func sum(p *profile.Profile) (n int64, cpu time.Duration) {
	for _, s := range p.Sample {
		n += s.Value[0]
		cpu += time.Duration(s.Value[1])
	}
	return n, cpu
}

// TestShortProgramsAreSampledFromTheirStart adds up many programs of 50 ms: what is missed at their start, before what
// maps and tables say is known, would be missed in each. The truth is the kernel's: what getrusage says in each.
func TestShortProgramsAreSampledFromTheirStart(t *testing.T) {
	churn := testprog.Build(t, "churn", testprog.Options{})
	var n, lost int64
	var cpu, rusage time.Duration
	for range 40 {
		cmd, out, errOut := command(t, "record", "-q", "-F", "999", "--", churn, "-ms", "50")
		if err := cmd.Run(); err != nil {
			t.Fatal(err, errOut)
		}
		p := readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
		ni, ci := sum(p)
		n, cpu, lost = n+ni, cpu+ci, lost+holds(p, "[lost]")
		rusage += used(t, out.String())
	}
	t.Logf("%d samples, %d lost, %v; the programs used %v", n, lost, cpu, rusage)
	limit := max(0.1, 3/math.Sqrt(float64(n)))
	if diff := math.Abs(float64(cpu-rusage)) / float64(rusage); n == 0 || diff > limit {
		t.Errorf("weights are off by %.1f %%", 100*diff)
	}
	if lost > 0 {
		t.Errorf("%d samples lost", lost)
	}
}

// used is what churn says of itself.
func used(t *testing.T, out string) time.Duration {
	t.Helper()
	_, after, _ := strings.Cut(out, "\nused ")
	ns, err := strconv.ParseInt(strings.TrimSpace(after), 10, 64)
	if err != nil {
		t.Fatalf("churn says %q", out)
	}
	return time.Duration(ns)
}

// TestSamplingBeginsSoon measures what a recording of 1 ms costs: the best of several, by CPU time, since the machine may
// have other work. How long it takes is logged.
func TestSamplingBeginsSoon(t *testing.T) {
	p := spin(t)
	first, whole, cpu := time.Hour, time.Hour, time.Hour
	for range 5 {
		cmd, _, errOut := command(t, "record", "-q", "-p", fmt.Sprint(p.PID), "-d", "1ms")
		begin := time.Now()
		if err := cmd.Run(); err != nil {
			t.Fatal(err, errOut)
		}
		whole = min(whole, time.Since(begin))
		cpu = min(cpu, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		prof := readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
		first = min(first, time.Unix(0, prof.TimeNanos).Sub(begin))
	}
	t.Logf("sampling begins after %v; a recording of 1 ms takes %v, %v of CPU time", first, whole, cpu)
	if cpu > 150*time.Millisecond {
		t.Errorf("starting and ending cost %v of CPU time", cpu)
	}
}
