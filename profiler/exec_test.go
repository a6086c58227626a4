package profiler

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestExec follows a process into another Go program: each sample is named by the program that it is of, labels are
// read by the new one's layout.
func TestExec(t *testing.T) {
	for _, c := range []struct{ name, before, after string }{
		{"same Go version", "", ""},
		{"another Go version", "1.18.10", ""},
		{"from newest to oldest", "1.27.4", "1.18.10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			after := testprog.Build(t, "labels", testprog.Options{Go: c.after})
			proc := testprog.Start(t, testprog.Build(t, "execer", testprog.Options{Go: c.before}), "-ms", "1500", after, "-seconds", "3")
			p, k := start(t, Config{Frequency: 499, NoKernel: true})
			if err := p.Add(proc.PID); err != nil {
				t.Fatal(err)
			}
			if err := p.Run(t.Context()); err != nil { // until it exits
				t.Fatal(err)
			}
			prof := only(t, k)
			if n := countWith(prof, "main.beforeExec"); n < 50 {
				t.Errorf("%d samples of before the exec", n)
			}
			if n, wrong := checkLabels(prof, labelSets(t, proc)); n < 50 || wrong*50 > n {
				t.Errorf("%d of %d samples of after the exec have wrong labels", wrong, n)
			}
			if prof.Mapping[0].File != after {
				t.Errorf("the first mapping is %s, not the last program", prof.Mapping[0].File)
			}
			if notes := strings.Join(p.Stats().Notes, "\n"); !strings.Contains(notes, "executed another program") {
				t.Errorf("notes %q", notes)
			}
		})
	}
}

// TestCatchUp: a target that has called exec, or has exited, while nobody could tell us is found out.
func TestCatchUp(t *testing.T) {
	after := testprog.Build(t, "spin", testprog.Options{})
	proc := testprog.Start(t, testprog.Build(t, "execer", testprog.Options{}), "-ms", "500", after, "-seconds", "60")
	p, _ := start(t, Config{})
	if err := p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	tg := p.targets[uint32(proc.PID)]
	runs := func() string { return tg.space.Main().Image.Path } // Add may have come after the exec
	for deadline := time.Now().Add(30 * time.Second); tg.current() && runs() != after; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no exec")
		}
	}
	p.catchUp()
	if m := tg.space.Main(); m == nil || m.Image.Path != after {
		t.Errorf("after the exec: %+v, want %s", m, after)
	}
	proc.Stop()
	p.catchUp()
	p.endGone() // after what is left in the ring buffer
	if len(p.targets) != 0 {
		t.Error("a process that is gone is still a target")
	}
}

// checkLabels counts samples of functions that set labels, and those whose labels are others.
func checkLabels(prof *profile.Profile, sets map[string]map[string]string) (n, wrong int64) {
	for _, s := range prof.Sample {
		for fn, want := range sets {
			if !slices.Contains(names(s), fn) {
				continue
			}
			n += s.Value[0]
			if wrongLabels(s.Label, want) != "" {
				wrong += s.Value[0]
			}
		}
	}
	return n, wrong
}

// countWith counts the samples with the function in their stack.
func countWith(prof *profile.Profile, function string) (n int64) {
	for _, s := range prof.Sample {
		if slices.Contains(names(s), function) {
			n += s.Value[0]
		}
	}
	return n
}

func only(t *testing.T, k *keep) *profile.Profile {
	t.Helper()
	if len(k.profiles) != 1 {
		t.Fatalf("%d profiles, want one", len(k.profiles))
	}
	if err := k.profiles[0].Data.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return k.profiles[0].Data
}

// TestIdleTargetHasAnEmptyProfile: that nothing ran is a result, too.
func TestIdleTargetHasAnEmptyProfile(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
	if err := syscall.Kill(proc.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	prof, stats := sample(t, Config{}, proc.PID, 300*time.Millisecond)
	if len(prof.Sample) > 0 || len(prof.Mapping) == 0 || !strings.HasSuffix(prof.Mapping[0].File, "spin") {
		t.Errorf("%v", prof)
	}
	if !slices.Contains(prof.Comments, "pprofd (devel)") {
		t.Errorf("comments %q", prof.Comments)
	}
	if notes := strings.Join(stats.Notes, "\n"); !strings.Contains(notes, "its profile is empty") {
		t.Errorf("notes %q", notes)
	}
}

// TestPIDIsNotTheProcess: a process that has taken over the number of one that ended is not sampled.
func TestPIDIsNotTheProcess(t *testing.T) {
	p, k := start(t, Config{Frequency: 999})
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
	if err := p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	// The target map says that the process started one tick earlier: what it would find of a PID that was reused.
	target := p.targets[uint32(proc.PID)]
	b := target.probeTarget()
	b.StartTime--
	target.start--
	if err := p.probes.SetTarget(target.pid, b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if prof := only(t, k); len(prof.Sample) > 0 {
		t.Errorf("%d samples of another process", len(prof.Sample))
	}
	if s, err := p.probes.Stats(); err != nil || s.StalePID == 0 {
		t.Errorf("%+v, %v: nothing was refused", s, err)
	}
}

// TestKilled: what was sampled of a target that is killed is written.
func TestKilled(t *testing.T) {
	p, k := start(t, Config{Frequency: 999})
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
	if err := p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, proc.Stop)
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := countWith(only(t, k), "main.thread"); n < 50 {
		t.Errorf("%d samples", n)
	}
}

// TestStopAndContinue: SIGSTOP and SIGCONT, 200 times a second, change nothing of what stacks look like.
func TestStopAndContinue(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
	kill := exec.CommandContext(t.Context(), needs.Tool(t, "bash"), "-c", `while :; do kill -STOP $0; kill -CONT $0; sleep 0.005; done`, fmt.Sprint(proc.PID))
	if err := kill.Start(); err != nil {
		t.Fatal(err)
	}
	prof, stats := sample(t, Config{Frequency: 999, NoKernel: true}, proc.PID, time.Second)
	kill.Process.Kill()
	_ = kill.Wait()
	for _, s := range prof.Sample {
		if n := names(s); n[len(n)-1] == "[broken]" {
			t.Logf("broken: %v", n)
		}
	}
	if n := countWith(prof, "main.thread"); n < 50 || stats.Broken*100 > stats.Recorded {
		t.Errorf("%d samples of the threads' function, %+v", n, stats)
	}
}
