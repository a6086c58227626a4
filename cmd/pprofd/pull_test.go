package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// pulled is an agent that is asked for profiles.
type pulled struct {
	*agentRun
	addr, token string
}

func startPulled(t *testing.T, programs string, args ...string) *pulled {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a := &pulled{startAgent(t, programs, nil, append([]string{"--listen", addr}, args...)...), addr, ""}
	b, err := os.ReadFile(filepath.Join(a.dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	a.token = strings.TrimSpace(string(b))
	return a
}

// answer is one of the agent.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request with the token.
func (a *pulled) ask(ctx context.Context, path string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.addr+path, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+a.token)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, b}, err
}

// get is ask for what must be there.
func (a *pulled) get(t *testing.T, path string) (http.Header, []byte) {
	t.Helper()
	got, err := a.ask(t.Context(), path)
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("%s: %v, %d\n%s", path, err, got.status, got.body)
	}
	return got.header, got.body
}

func (a *pulled) profile(t *testing.T, path string) *profile.Profile {
	t.Helper()
	_, b := a.get(t, path)
	return parsed(t, b)
}

// took says whether a profile is of at least so much time, and of at most what the request took, which began then and has ended.
func took(p *profile.Profile, least time.Duration, began time.Time) bool {
	d := time.Duration(p.DurationNanos)
	return d >= least && d <= time.Since(began)
}

func parsed(t *testing.T, b []byte) *profile.Profile {
	t.Helper()
	p, err := profile.ParseData(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return p
}

// own is what a program that serves net/http/pprof says of itself.
func own(t *testing.T, ready, path string) (http.Header, []byte) {
	t.Helper()
	resp, err := http.Get("http://" + strings.TrimPrefix(ready, "ready ") + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return resp.Header, b
}

// byStack adds up the values of each stack of functions.
func byStack(p *profile.Profile) map[string][]int64 {
	all := make(map[string][]int64)
	for _, s := range p.Sample {
		var names []string
		for _, l := range s.Location {
			for _, line := range l.Line {
				names = append(names, line.Function.Name)
			}
		}
		key := strings.Join(names, ";")
		if all[key] == nil {
			all[key] = make([]int64, len(s.Value))
		}
		for i, v := range s.Value {
			all[key][i] += v
		}
	}
	maps.DeleteFunc(all, allZero)
	return all
}

// sumOf is the sum of one value of all samples.
func sumOf(p *profile.Profile, value int) (n int64) {
	for _, s := range p.Sample {
		n += s.Value[value]
	}
	return n
}

// TestPull: what the agent gives of a program is what its own net/http/pprof gives, with the same headers.
func TestPull(t *testing.T) {
	for name, o := range map[string]testprog.Options{"plain": {}, "stripped PIE": {Strip: true, PIE: true}} {
		t.Run(name, func(t *testing.T) { wantAsItsOwn(t, o) })
	}
}

func wantAsItsOwn(t *testing.T, o testprog.Options) {
	t.Helper()
	bin := t.TempDir()
	if b, err := exec.CommandContext(t.Context(), "cp", testprog.Build(t, "debug", o), bin+"/debug").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	a := startPulled(t, bin)
	p := testprog.Start(t, bin+"/debug")
	ready := p.Lines()[0]
	prefix := fmt.Sprintf("/pid/%d", p.PID)
	for _, kind := range []string{"heap", "allocs"} {
		ownHeader, b := own(t, ready, "/debug/pprof/"+kind)
		want := parsed(t, b)
		header, b := a.get(t, prefix+"/debug/pprof/"+kind)
		got := parsed(t, b)
		if d := cmp.Diff(byStack(want), byStack(got)); d != "" || len(want.Sample) < 4 {
			t.Errorf("%s: %d samples: %s", kind, len(want.Sample), d)
		}
		if got.DefaultSampleType != want.DefaultSampleType || got.Period != want.Period || got.DurationNanos != want.DurationNanos {
			t.Errorf("%s: default %q, period %d, duration %d", kind, got.DefaultSampleType, got.Period, got.DurationNanos)
		}
		for _, name := range []string{"Content-Type", "Content-Disposition", "X-Content-Type-Options"} {
			if header.Get(name) != ownHeader.Get(name) {
				t.Errorf("%s: %s is %q, its own %q", kind, name, header.Get(name), ownHeader.Get(name))
			}
		}
		_, text := own(t, ready, "/debug/pprof/"+kind+"?debug=1")
		textHeader, ours := a.get(t, prefix+"/debug/pprof/"+kind+"?debug=1")
		if textHeader.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("as text: %v", textHeader)
		}
		inText := byAddress(parsed(t, ours), want)
		if d := cmp.Diff(byAddress(parsed(t, text), want), inText); d != "" || len(inText) < 4 {
			t.Errorf("%s as text: %d stacks: %s", kind, len(inText), d)
		}
	}
	_, want := own(t, ready, "/debug/pprof/cmdline")
	if _, got := a.get(t, prefix+"/debug/pprof/cmdline"); !bytes.Equal(got, want) {
		t.Errorf("command line %q, its own %q", got, want)
	}
	wantSameCPU(t, a, ready, prefix)
	wantSymbols(t, a, ready, prefix)
}

// byAddress adds up the values of each stack of addresses, of those that are the program's own by a profile with names: as text,
// runtime/pprof has all frames of the runtime, too.
func byAddress(p, named *profile.Profile) map[string][]int64 {
	has := make(map[uint64]bool)
	for _, l := range named.Location {
		has[l.Address] = strings.HasPrefix(l.Line[0].Function.Name, "main.")
	}
	all := make(map[string][]int64)
	for _, s := range p.Sample {
		var pcs string
		for _, l := range s.Location {
			if has[l.Address] {
				pcs += fmt.Sprintf(" %#x", l.Address)
			}
		}
		if all[pcs] == nil {
			all[pcs] = make([]int64, len(s.Value))
		}
		for i, v := range s.Value {
			all[pcs][i] += v
		}
	}
	delete(all, "")
	maps.DeleteFunc(all, allZero)
	return all
}

func allZero(_ string, v []int64) bool {
	return !slices.ContainsFunc(v, func(n int64) bool { return n != 0 })
}

// wantSameCPU holds a CPU profile against the one that the program takes of itself at the same time.
func wantSameCPU(t *testing.T, a *pulled, ready, prefix string) {
	t.Helper()
	var theirs *profile.Profile
	var done sync.WaitGroup
	began := time.Now()
	done.Go(func() {
		_, b := own(t, ready, "/debug/pprof/profile?seconds=8")
		theirs = parsed(t, b)
	})
	ours := a.profile(t, prefix+"/debug/pprof/profile?seconds=8")
	exact := took(ours, 8*time.Second, began)
	done.Wait()
	got, want := float64(sumOf(ours, 1)), float64(sumOf(theirs, 1))
	if math.Abs(got-want) > max(0.15, spread(ours))*want {
		t.Errorf("%v of CPU time, by itself %v", time.Duration(got), time.Duration(want))
	}
	for _, name := range []string{"main.alpha", "main.beta"} {
		g, w := float64(holds(ours, name))/float64(sumOf(ours, 0)), float64(holds(theirs, name))/float64(sumOf(theirs, 0))
		deviation := math.Sqrt(w * (1 - w) * (1/float64(sumOf(ours, 0)) + 1/float64(sumOf(theirs, 0))))
		if math.Abs(g-w) > max(0.1, 4*deviation) {
			t.Errorf("%s: %.2f of the samples, by itself %.2f", name, g, w)
		}
	}
	if at := time.Unix(0, ours.TimeNanos); ours.Period != theirs.Period || !exact || at.Before(began) || time.Since(at) < 8*time.Second {
		t.Errorf("period %d, duration %d, time %d", ours.Period, ours.DurationNanos, ours.TimeNanos)
	}
}

// wantSymbols: functions have the names that the program has for them, in the same form.
func wantSymbols(t *testing.T, a *pulled, ready, prefix string) {
	t.Helper()
	var pcs []string
	_, text := own(t, ready, "/debug/pprof/heap?debug=1")
	for pc := range strings.FieldsSeq(string(text)) {
		if strings.HasPrefix(pc, "0x") {
			pcs = append(pcs, pc)
		}
	}
	query := "/debug/pprof/symbol?" + strings.Join(pcs[:20], "+")
	_, want := own(t, ready, query)
	if _, got := a.get(t, prefix+query); !bytes.Equal(got, want) {
		t.Errorf("symbols:\n%s\nits own:\n%s", got, want)
	}
}

// TestPullTools: go tool pprof and curl take profiles with the URL that pprofd url prints; heap as text is named by the agent.
func TestPullTools(t *testing.T) {
	bin := ownPrograms(t, "debug")
	a := startPulled(t, bin)
	p := testprog.Start(t, bin+"/debug")
	_, out, _ := call(t, "url", "--listen", a.addr, "--dir", a.dir, "-p", fmt.Sprint(p.PID), "heap")
	heap := strings.TrimSpace(out)
	_, out, _ = call(t, "url", "--listen", a.addr, "--dir", a.dir, "-p", fmt.Sprint(p.PID), "cpu")
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"cpu":          {[]string{"-seconds=3", strings.TrimSpace(out)}, []string{"Type: cpu", "main.alpha", "main.beta", "File: debug"}},
		"heap":         {[]string{heap}, []string{"Type: inuse_space", "main.keep"}},
		"heap as text": {[]string{heap + "?debug=1"}, []string{"Type: inuse_space", "main.keep"}},
		"allocs":       {[]string{strings.Replace(heap, "heap", "allocs", 1)}, []string{"Type: alloc_space", "main.keep", "main.drop"}},
	} {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"tool", "pprof", "-top"}, c.args...)...)
		cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
		top, err := cmd.CombinedOutput()
		for _, want := range c.want {
			if err != nil || !strings.Contains(string(top), want) {
				t.Errorf("%s: %v, no %q in\n%s", name, err, want, top)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "heap")
	if b, err := exec.CommandContext(t.Context(), needs.Tool(t, "curl"), "-fsS", "-o", file, heap).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if p := readProfile(t, file); sumOf(p, 3) == 0 {
		t.Error("curl got nothing")
	}
}

// TestPullDelta: allocs of some seconds are those that were counted in them, and the profile says so.
func TestPullDelta(t *testing.T) {
	bin := ownPrograms(t, "heap")
	a := startPulled(t, bin)
	p := testprog.Start(t, bin+"/heap", "-quiet", "-busy", "-life", "1m")
	path := fmt.Sprintf("/pid/%d/debug/pprof/allocs", p.PID)
	before := a.profile(t, path)
	began := time.Now()
	header, b := a.get(t, path+"?seconds=2")
	delta := parsed(t, b)
	exact := took(delta, 2*time.Second, began)
	after := a.profile(t, path)
	if got, most := sumOf(delta, 1), sumOf(after, 1)-sumOf(before, 1); got <= 0 || got > most {
		t.Errorf("%d bytes in 2 s, %d in a time around that", got, most)
	}
	if !exact {
		t.Errorf("duration %v", time.Duration(delta.DurationNanos))
	}
	if got := header.Get("Content-Disposition"); got != `attachment; filename="allocs-delta"` {
		t.Errorf("Content-Disposition %q", got)
	}
}

// history is what a process has used of CPU time at which moment.
type history struct {
	pid   int
	times []time.Time
	used  []time.Duration
}

// watch writes the history of processes until stop is called.
func watch(t *testing.T, pids ...int) (all []*history, stop func()) {
	t.Helper()
	for _, pid := range pids {
		all = append(all, &history{pid: pid})
	}
	end := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			for _, h := range all {
				if used, ok := usedCPU(h.pid); ok {
					h.times, h.used = append(h.times, time.Now()), append(h.used, used)
				}
			}
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	return all, sync.OnceFunc(func() {
		close(end)
		done.Wait()
	})
}

// between is what was used from one moment to another.
func (h *history) between(from, to time.Time) time.Duration { return h.at(to) - h.at(from) }

// at is what was used until then: between two looks, as if it had been used evenly.
func (h *history) at(when time.Time) time.Duration {
	n, _ := slices.BinarySearchFunc(h.times, when, time.Time.Compare)
	if n == 0 || n == len(h.times) {
		return h.used[min(n, len(h.used)-1)]
	}
	part := float64(when.Sub(h.times[n-1])) / float64(h.times[n].Sub(h.times[n-1]))
	return h.used[n-1] + time.Duration(part*float64(h.used[n]-h.used[n-1]))
}

// usedCPU is what the threads of a process have used so far, by the scheduler.
func usedCPU(pid int) (sum time.Duration, ok bool) {
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range list {
		var ns int64
		if b, err := os.ReadFile(f); err == nil {
			if _, err := fmt.Sscan(string(b), &ns); err == nil {
				sum, ok = sum+time.Duration(ns), true
			}
		}
	}
	return sum, ok
}

// events are the perf events that a process holds.
func events(pid int) (n int) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, _ := os.ReadDir(dir)
	for _, fd := range fds {
		if target, _ := os.Readlink(filepath.Join(dir, fd.Name())); target == "anon_inode:[perf_event]" {
			n++
		}
	}
	return n
}

// spread is by how much the samples of a profile may miss the truth: a tenth, and where they are few three standard deviations.
func spread(p *profile.Profile) float64 { return max(0.1, 3/math.Sqrt(float64(sumOf(p, 0)))) }

// TestPullTogether: ten clients at once, who want different processes for different times, share one sampling beside that which goes
// on always, and each gets its own process for its own time.
func TestPullTogether(t *testing.T) {
	bin := ownPrograms(t, "spin")
	a := startPulled(t, bin)
	var pids []int
	for range 3 {
		pids = append(pids, testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=120").PID)
	}
	before := events(a.cmd.Process.Pid)
	all, stop := watch(t, pids...)
	defer stop()
	profiles, exact := make([]*profile.Profile, 10), make([]bool, 10)
	var done sync.WaitGroup
	most := 0
	for i := range profiles {
		path := fmt.Sprintf("/pid/%d/debug/pprof/profile?seconds=%d", pids[i%3], 4+i)
		if i%4 == 3 {
			path = fmt.Sprintf("/service/spin/debug/pprof/profile?seconds=%d", 4+i)
		}
		done.Go(func() {
			time.Sleep(time.Duration(i) * 150 * time.Millisecond)
			began := time.Now()
			got, err := a.ask(t.Context(), path)
			if err != nil || got.status != http.StatusOK {
				t.Errorf("%s: %v, %d: %s", path, err, got.status, got.body)
				return
			}
			profiles[i], err = profile.ParseData(got.body)
			if err != nil {
				t.Error(err)
				return
			}
			exact[i] = took(profiles[i], time.Duration(4+i)*time.Second, began)
		})
	}
	ended := make(chan struct{})
	go func() {
		done.Wait()
		close(ended)
	}()
	for over := false; !over; {
		most = max(most, events(a.cmd.Process.Pid))
		select {
		case <-ended:
			over = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	stop()
	if before == 0 || most != 2*before {
		t.Errorf("%d perf events at the most, %d before: there should be one set more", most, before)
	}
	until(t, "the events are closed", func() bool { return events(a.cmd.Process.Pid) == before })
	for i, p := range profiles {
		if p == nil {
			continue
		}
		from := time.Unix(0, p.TimeNanos)
		to := from.Add(time.Duration(p.DurationNanos))
		var want time.Duration
		for n, h := range all {
			if i%4 == 3 || n == i%3 {
				want += h.between(from, to)
			}
		}
		got := time.Duration(sumOf(p, 1))
		t.Logf("client %d: %v of %v in %v", i, got, want, time.Duration(p.DurationNanos).Round(time.Millisecond))
		if math.Abs(float64(got-want)) > spread(p)*float64(want) {
			t.Errorf("client %d: %v of CPU time, the processes used %v in that time", i, got, want)
		}
		if !exact[i] {
			t.Errorf("client %d: its profile is of %v", i, time.Duration(p.DurationNanos))
		}
	}
}

// TestPullEndsEarly: nothing is sampled for a client that has gone; of a process that ends what there is is given, and so it is when
// the agent ends.
func TestPullEndsEarly(t *testing.T) {
	bin := ownPrograms(t, "spin")
	a := startPulled(t, bin)
	before := events(a.cmd.Process.Pid)
	long := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=120")
	path := fmt.Sprintf("/pid/%d/debug/pprof/profile?seconds=100", long.PID)

	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := a.ask(ctx, path)
		gone <- err
	}()
	until(t, "it is sampled", func() bool { return events(a.cmd.Process.Pid) > before })
	cancel()
	if err := <-gone; err == nil {
		t.Error("a request that was given up was answered")
	}
	until(t, "sampling for nobody ends", func() bool { return events(a.cmd.Process.Pid) == before })

	short := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=600", "-cpu=2s")
	began := time.Now()
	got := make(chan *profile.Profile, 1)
	go func() {
		answer, _ := a.ask(t.Context(), fmt.Sprintf("/pid/%d/debug/pprof/profile?seconds=300", short.PID))
		p, _ := profile.ParseData(answer.body)
		got <- p
	}()
	until(t, "it is sampled", func() bool { return events(a.cmd.Process.Pid) > before })
	missed, _ := usedCPU(short.PID)
	p := <-got
	if p == nil || !took(p, 0, began) || time.Since(began) > 4*time.Minute {
		t.Fatalf("of a process that ends a profile came after %v: %v", time.Since(began), p)
	}
	if got, most := float64(sumOf(p, 1)), float64(short.CPUTime()); got < (most-float64(missed))*(1-spread(p)) || got > most*(1+spread(p)) {
		t.Errorf("%v of %v are in the profile of a process that has ended, %v were before", time.Duration(got), time.Duration(most), missed)
	}

	until(t, "sampling ends with it", func() bool { return events(a.cmd.Process.Pid) == before })
	last := make(chan []byte, 1)
	go func() {
		got, _ := a.ask(t.Context(), path)
		last <- got.body
	}()
	until(t, "it is sampled", func() bool { return events(a.cmd.Process.Pid) > before })
	used, _ := usedCPU(long.PID)
	until(t, "it has used some time", func() bool { now, _ := usedCPU(long.PID); return now > used+700*time.Millisecond })
	if took := a.end(t); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	if p := parsed(t, <-last); sumOf(p, 0) < 10 {
		t.Errorf("%d samples of what was sampled when the agent ended", sumOf(p, 0))
	}
}

// TestPullAcrossExec: what a process did before and after it has executed another program is one profile, unless that program is
// excluded: then nothing is told of either.
func TestPullAcrossExec(t *testing.T) {
	bin := ownPrograms(t, "execer", "spin", "leaf")
	a := startPulled(t, bin, "--config", writeConfig(t, "exclude: ['exe=*/leaf']\n"))
	for next, want := range map[string]int{"spin": http.StatusOK, "leaf": http.StatusNotFound} {
		p := testprog.Start(t, bin+"/execer", "-ms", "1500", bin+"/"+next, "-seconds=60")
		got, err := a.ask(t.Context(), fmt.Sprintf("/pid/%d/debug/pprof/profile?seconds=4", p.PID))
		if err != nil || got.status != want {
			t.Errorf("then %s: %v, %d %.300s", next, err, got.status, got.body)
			continue
		}
		if want != http.StatusOK {
			if !strings.Contains(string(got.body), "exclude") {
				t.Errorf("%s", got.body)
			}
			continue
		}
		if prof := parsed(t, got.body); holds(prof, "main.beforeExec") == 0 || holds(prof, "main.alpha") == 0 {
			t.Errorf("then %s: %v", next, byStack(prof))
		}
	}
}
