package discover

import (
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// crowd are n processes that sleep, the first of which run a Go program; it returns those that do not.
func crowd(tb testing.TB, n, golang int) (d *Discovery, sleepers []Proc) {
	tb.Helper()
	sleep, spin := needs.Tool(tb, "sleep"), testprog.Build(tb, "spin", testprog.Options{})
	var running []*exec.Cmd
	tb.Cleanup(func() {
		for _, cmd := range running {
			cmd.Process.Kill()
		}
		for _, cmd := range running {
			_ = cmd.Wait()
		}
	})
	for i := range n {
		cmd := exec.CommandContext(tb.Context(), sleep, "600")
		if i < golang {
			cmd = exec.CommandContext(tb.Context(), spin, "-threads=1", "-seconds=600")
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		}
		if err := cmd.Start(); err != nil {
			tb.Fatal(err)
		}
		running = append(running, cmd)
		if i < golang { // it is there, but uses no CPU
			time.Sleep(5 * time.Millisecond)
			_ = cmd.Process.Signal(syscall.SIGSTOP)
			continue
		}
		sleepers = append(sleepers, startOf(tb, cmd.Process.Pid))
	}
	d, err := New(Config{})
	if err != nil {
		tb.Fatal(err)
	}
	return d, sleepers
}

// BenchmarkScan is one more look at 2,000 processes that are known, 100 of which run Go.
func BenchmarkScan(b *testing.B) {
	d, _ := crowd(b, 2000, 100)
	if found, err := d.Scan(b.Context()); err != nil || len(found) < 100 {
		b.Fatal(len(found), err)
	}
	for b.Loop() {
		if _, err := d.Scan(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLook is what an exec costs.
func BenchmarkLook(b *testing.B) {
	d, sleepers := crowd(b, 1, 0)
	for name, key := range map[string]Proc{"not Go": sleepers[0], "Go": startOf(b, os.Getpid())} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if d.Look(key.PID, key.Start) != (name == "Go") {
					b.Fatal("Look is wrong")
				}
			}
		})
	}
}

// TestCost: 2,000 processes, looked at once in 5 s, and 50 starts a second, 5 of which are Go's, cost less than 1 % of a CPU.
func TestCost(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	if bi, ok := debug.ReadBuildInfo(); ok && slices.Contains(bi.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector costs more")
	}
	const scans, looks = 3, 500
	d, sleepers := crowd(t, 2000, 50)
	own := startOf(t, os.Getpid())
	scan(t, d)
	before := cpuTime(t)
	for range scans {
		scan(t, d)
	}
	perScan := (cpuTime(t) - before) / scans
	before = cpuTime(t)
	for i := range looks {
		if d.Look(sleepers[i].PID, sleepers[i].Start) {
			t.Fatal("sleep is no Go program")
		}
	}
	perLook := (cpuTime(t) - before) / looks
	before = cpuTime(t)
	for range looks {
		if !d.Look(own.PID, own.Start) {
			t.Fatal("this test is a Go program")
		}
	}
	perGo := (cpuTime(t) - before) / looks
	perSecond := perScan/5 + 45*perLook + 5*perGo
	t.Logf("a scan %v, a look at a program %v, at a Go program %v: %v a second", perScan, perLook, perGo, perSecond)
	if perSecond > 10*time.Millisecond {
		t.Errorf("%v of CPU time a second", perSecond)
	}
}

// cpuTime is what this process has used.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
