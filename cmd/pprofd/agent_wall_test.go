package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// sharer is a running program that knows how its goroutines spend their time.
type sharer struct {
	*testprog.Proc
	in    *os.File
	marks int
}

func startSharer(t *testing.T, path string) *sharer {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	return &sharer{Proc: testprog.StartWith(t, testprog.StartOptions{Stdin: in}, path), in: out}
}

// spent is how it has spent its time until now, ns by what for.
func (s *sharer) spent(t *testing.T) (m map[string]int64) {
	t.Helper()
	s.marks++
	name := fmt.Sprintf("mark %d ", s.marks)
	if _, err := fmt.Fprintln(s.in, s.marks); err != nil {
		t.Fatal(err)
	}
	line := s.WaitLine(t, name, time.Minute)
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, name)), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// offBy says by how many points shares of a profile differ from the truth, at most.
func offBy(t *testing.T, p *profile.Profile, before, after map[string]int64) (most float64) {
	t.Helper()
	in := map[string]string{"main.(*worker).receive": "receive", "main.(*worker).lock": "lock", "main.(*worker).compute": "compute", "[runs without a CPU]": "compute",
		"main.(*worker).run": "receive", // until it is told what to do next
	}
	got, total, all := make(map[string]int64), int64(0), int64(0)
	for _, s := range p.Sample {
		for _, l := range s.Location {
			i := slices.IndexFunc(l.Line, func(l profile.Line) bool { return in[l.Function.Name] != "" })
			if i >= 0 {
				got[in[l.Line[i].Function.Name]] += s.Value[1]
				total += s.Value[1]
				break
			}
		}
	}
	for _, what := range []string{"receive", "lock", "compute"} {
		all += after[what] - before[what]
	}
	for _, what := range []string{"receive", "lock", "compute"} {
		share, truth := 100*float64(got[what])/float64(total), 100*float64(after[what]-before[what])/float64(all)
		t.Logf("%s: %.1f %%, in truth %.1f %%", what, share, truth)
		most = max(most, math.Abs(share-truth))
	}
	return most
}

// TestAgentWall: windows of wall profiles, in files and as they are asked for, have the shares of time that the program knows of itself,
// within 3 points; their sum is the time of all its goroutines; and the last window is there after SIGTERM.
func TestAgentWall(t *testing.T) {
	needs.BPF(t)
	bin := ownPrograms(t, "shares")
	p := startSharer(t, bin+"/shares")
	addr := freeAddress(t)
	a := startAgent(t, bin, nil, "--listen", addr, "--insecure-loopback", "--window", "2s", "--cpu-hz", "97",
		"--config", writeConfig(t, "heap: {enabled: false}\nwall: {enabled: true, hz: 97}\n"))
	until(t, "a window", func() bool { return len(a.files(t, "wall", p.PID)) > 0 })
	first := p.spent(t)
	had := len(a.files(t, "wall", p.PID))
	for windows, off := 4, 100.0; off > 3; windows += 4 { // chance vanishes in time, a bias does not
		if windows > 16 {
			t.Fatalf("%.1f points off", off)
		}
		until(t, "more windows", func() bool { return len(a.files(t, "wall", p.PID)) > had+windows })
		off = offBy(t, checkedWall(t, a.files(t, "wall", p.PID)[had+1:]), first, p.spent(t))
	}
	wantShares(t, p, fmt.Sprintf("http://%s/pid/%d/debug/pprof/wall", addr, p.PID), 6*time.Second)
	pullFor(t, fmt.Sprintf("http://%s/pid/%d/debug/fgprof", addr, p.PID), time.Second)
	service := filepath.Base(filepath.Dir(filepath.Dir(a.files(t, "wall", p.PID)[0])))
	if both := pull(t, fmt.Sprintf("http://%s/service/%s/debug/pprof/wall?seconds=1", addr, service)); len(both.Sample) == 0 {
		t.Error("there is nothing of the service")
	}
	if status, body := fetch(t, fmt.Sprintf("http://%s/pid/%d/debug/fgprof?format=folded", addr, p.PID)); status != http.StatusBadRequest {
		t.Errorf("another format: %d, %s", status, body)
	}
	had = len(a.files(t, "wall", p.PID))
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "windows after a reload", func() bool { return len(a.files(t, "wall", p.PID)) >= had+3 })
	for name, is := range map[string]func(float64) bool{
		`pprofd_kind_up{kind="wall"}`:                    func(v float64) bool { return v == 1 },
		`pprofd_targets{kind="wall"}`:                    func(v float64) bool { return v == 1 },
		`pprofd_wall_snapshots_total{result="ok"}`:       func(v float64) bool { return v > 100 },
		`pprofd_wall_snapshots_total{result="failed"}`:   func(v float64) bool { return v == 0 },
		`pprofd_samples_lost_total{kind="wall"}`:         func(v float64) bool { return v == 0 },
		`pprofd_kind_cpu_seconds_total{kind="wall"}`:     func(v float64) bool { return v > 0 },
		`pprofd_profiles_undelivered_total{kind="wall"}`: func(v float64) bool { return v == 0 },
		`pprofd_sampling_hertz{kind="wall"}`:             func(v float64) bool { return v > 5 },
	} {
		until(t, name, func() bool { return is(metric(t, addr, name)) })
	}
	had = len(a.files(t, "wall", p.PID))
	if took := a.end(t); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	if n := len(a.files(t, "wall", p.PID)); n <= had {
		t.Errorf("%d windows after the end, %d before", n, had)
	}
}

// wantShares asks for profiles of so much time, and compares the shares of all of them together with those that the program knows: each is of
// a few hundred snapshots, and chance vanishes in time.
func wantShares(t *testing.T, p *sharer, url string, d time.Duration) {
	t.Helper()
	var all []*profile.Profile
	first := p.spent(t)
	for range 2 {
		all = append(all, pullFor(t, url, d))
	}
	last := p.spent(t)
	merged, err := profile.Merge(all)
	if err != nil {
		t.Fatal(err)
	}
	if off := offBy(t, merged, first, last); off > 5 {
		t.Errorf("%s: %.1f points off", url, off)
	}
}

// pullFor asks for a profile of so much time, and checks that it is.
func pullFor(t *testing.T, url string, d time.Duration) *profile.Profile {
	t.Helper()
	began := time.Now()
	p := pull(t, fmt.Sprintf("%s?seconds=%d", url, d/time.Second))
	if got := time.Duration(p.DurationNanos); got < d*9/10 || got > time.Since(began) {
		t.Errorf("%s: %v instead of %v", url, got, d)
	}
	return p
}

// checkedWall merges windows, after it has looked at each.
func checkedWall(t *testing.T, files []string) *profile.Profile {
	t.Helper()
	var all []*profile.Profile
	for _, f := range files {
		p := readProfile(t, f)
		all = append(all, p)
		var sum int64
		for _, s := range p.Sample {
			sum += s.Value[1]
		}
		if n := float64(sum) / float64(p.DurationNanos); n < 5 || n > 25 { // 4 that share, their partners, main
			t.Errorf("%s: %.1f goroutines in %v", f, n, time.Duration(p.DurationNanos))
		}
		if got := strings.Join(p.Comments, "\n"); !strings.Contains(got, "snapshots at random moments") || !strings.Contains(got, "CPU profile") {
			t.Errorf("%s: comments\n%s", f, got)
		}
		if p.SampleType[0].Type != "samples" || p.SampleType[1].Type != "wall" || p.PeriodType.Type != "wall" || p.Period <= 0 {
			t.Errorf("%s: sample types %v, period %d %v", f, p.SampleType, p.Period, p.PeriodType)
		}
	}
	merged, err := profile.Merge(all)
	if err != nil {
		t.Fatal(err)
	}
	return merged
}

func pull(t *testing.T, url string) *profile.Profile {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d, %v: %s", url, resp.StatusCode, err, b)
	}
	p, err := profile.Parse(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
