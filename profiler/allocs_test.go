package profiler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

// allocTruth is what the program alloc says of itself.
type allocTruth struct {
	total int64            // of /gc/heap/allocs:bytes
	sites map[string]int64 // bytes by function
	took  time.Duration
}

// allocRound probes proc while it allocates once, and returns the profile and the truth.
func allocRound(t *testing.T, c Config, proc *testprog.Proc) (*profile.Profile, allocTruth, Stats) {
	t.Helper()
	c.Kind = KindAllocs
	p, k := start(t, c)
	if err := p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	waitAttached(t, p)
	truth := allocate(t, proc)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return only(t, k), truth, p.Stats()
}

// waitAttached waits until all targets are probed.
func waitAttached(t *testing.T, p *Profiler) {
	t.Helper()
	for range 1000 {
		p.turn.Lock()
		n := 0
		for _, tg := range p.targets {
			if tg.alloc != nil && tg.alloc.attached != nil {
				n++
			}
		}
		all := n > 0 && n == len(p.targets)
		p.turn.Unlock()
		if all {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no target is probed after 10 s")
}

// allocate makes proc, which must not have done so before, allocate once.
func allocate(t *testing.T, proc *testprog.Proc) (truth allocTruth) {
	t.Helper()
	if err := syscall.Kill(proc.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	proc.WaitLine(t, "done", time.Minute)
	truth.sites = make(map[string]int64)
	for _, line := range proc.Lines() {
		var name string
		var n, bytes int64
		if k, _ := fmt.Sscanf(line, "site %s %d %d", &name, &n, &bytes); k == 3 {
			truth.sites[name] = bytes
		}
		if k, _ := fmt.Sscanf(line, "allocated %d %d", &n, &bytes); k == 2 {
			truth.total, truth.took = n, time.Duration(bytes)
		}
	}
	if truth.total == 0 || len(truth.sites) == 0 {
		t.Fatalf("the program tells nothing: %q", proc.Lines())
	}
	return truth
}

// leaves adds up bytes by the function that allocated.
func leaves(p *profile.Profile) (bytes map[string]int64, total int64) {
	bytes = make(map[string]int64)
	for _, s := range p.Sample {
		bytes[s.Location[0].Line[0].Function.Name] += s.Value[1]
		total += s.Value[1]
	}
	return bytes, total
}

// checkAllocs compares sums within 2 percent and shares within some points.
func checkAllocs(t *testing.T, p *profile.Profile, want allocTruth, points float64) {
	t.Helper()
	got, total := leaves(p)
	if d := math.Abs(float64(total-want.total)) / float64(want.total); d > 0.02 {
		t.Errorf("%d bytes in all, want %d: off by %.2f %%", total, want.total, 100*d)
	}
	sum := int64(0)
	for _, bytes := range want.sites {
		sum += bytes
	}
	for name, bytes := range want.sites {
		is, be := 100*float64(got[name])/float64(total), 100*float64(bytes)/float64(sum)
		if math.Abs(is-be) > points {
			t.Errorf("%s has %.1f %% of the bytes, want %.1f", name, is, be)
		}
	}
	if t.Failed() {
		t.Logf("profile %v\nprogram %v", got, want.sites)
	}
}

// TestProbedAllocs: sums are exact and shares right, for programs of all versions and kinds that are linked without memory
// profiling.
func TestProbedAllocs(t *testing.T) {
	type test struct {
		o    testprog.Options
		args []string
		c    Config
	}
	race := []string{"-race"}
	all := map[string]test{
		"random":               {},
		"stripped PIE":         {o: testprog.Options{Strip: true, PIE: true}},
		"cgo":                  {o: testprog.Options{Cgo: true}},
		"race":                 {o: testprog.Options{Cgo: true, Flags: race}, args: []string{"-mb", "200"}},
		"one size":             {args: []string{"-mode", "same"}},
		"bursts":               {args: []string{"-mode", "bursts"}},
		"large objects":        {args: []string{"-mode", "large"}},
		"tiny objects":         {args: []string{"-mode", "tiny", "-mb", "50"}},
		"many threads":         {args: []string{"-workers", "64"}},
		"no collections":       {args: []string{"-gc", "-1", "-mb", "1000"}},
		"perf events":          {c: Config{noMulti: true}},
		"a stack every 64 KiB": {c: Config{AllocInterval: 64 << 10}},
	}
	for _, version := range testprog.Versions() {
		for name, tt := range all {
			if version != "" && name != "random" && name != "stripped PIE" && os.Getenv("PPROFD_FULL") != "1" {
				continue
			}
			t.Run("go"+version+" "+name, func(t *testing.T) {
				needs.BPF(t)
				tt.o.Go = version
				args := append([]string{"-mb", "600"}, tt.args...)
				proc := testprog.Start(t, testprog.Build(t, "alloc", tt.o), args...)
				p, want, stats := allocRound(t, tt.c, proc)
				if strings.Contains(name, "tiny") {
					for site := range want.sites {
						want.sites[site] = want.total
					}
				}
				checkAllocs(t, p, want, 5)
				if stats.Lost > 0 || stats.Broken > 0 || stats.Truncated > 0 {
					t.Errorf("%+v", stats)
				}
			})
		}
	}
}

// TestProbedAllocsRefused: what cannot be had says why.
func TestProbedAllocsRefused(t *testing.T) {
	p, _ := start(t, Config{Kind: KindAllocs})
	if err := p.Add(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	sleep := exec.CommandContext(t.Context(), "sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		sleep.Process.Kill()
		_ = sleep.Wait()
	}()
	if err := p.Add(sleep.Process.Pid); !errors.Is(err, objfile.ErrNotGo) {
		t.Errorf("not Go: %v", err)
	}
}
