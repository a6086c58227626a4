package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
	fakeotlp "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
	fakeparca "github.com/pprofd/pprofd/internal/testprog/fakes/parca"
	fakepyroscope "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// sent is samples by process and time.
type sent map[string]int64

func sentAs(pid string, nanos int64) string { return fmt.Sprintf("%s at %d", pid, nanos) }

// inFiles is what the agent has written of a process, by its CPU profiles.
func (a *agentRun) inFiles(t *testing.T, pid int) sent {
	t.Helper()
	all := sent{}
	for _, f := range a.files(t, "cpu", pid) {
		p := readProfile(t, f)
		for _, s := range p.Sample {
			all[sentAs(fmt.Sprint(pid), p.TimeNanos)] += s.Value[0]
		}
	}
	return all
}

func atPyroscope(s *fakepyroscope.Server) sent {
	all := sent{}
	for _, x := range s.Series(true) {
		if strings.HasPrefix(x.Type, "process_cpu:samples:count:") {
			all[sentAs(x.Labels["pid"], x.Time)] += x.Total
		}
	}
	return all
}

func atParca(s *fakeparca.Server) sent {
	all := sent{}
	for _, x := range s.Stored() {
		if x.Name == "process_cpu" {
			all[sentAs(x.Labels["pid"], x.TimeNanos)] = x.Sum("samples")
		}
	}
	return all
}

func atOTLP(s *fakeotlp.Server) sent {
	all := sent{}
	for _, x := range s.Profiles() {
		if x.Type == "samples" {
			all[sentAs(fmt.Sprint(x.Resource["process.pid"]), x.Time.UnixNano())] = x.Sum
		}
	}
	return all
}

func (s sent) sum() (n int64) {
	for _, v := range s {
		n += v
	}
	return n
}

// wantSame: of those in files all arrived, but for what late allows.
func wantSame(t *testing.T, name string, files, there sent) {
	t.Helper()
	if len(files) == 0 {
		t.Error("there are no files")
	}
	for key, n := range files {
		if there[key] != n {
			t.Errorf("%s: process %s: %d samples of %d", name, key, there[key], n)
		}
	}
	if len(there) != len(files) {
		t.Errorf("%s: %d profiles, %d files", name, len(there), len(files))
	}
}

// TestAgentDelivers to all kinds of servers at once what it writes to files; the views of Pyroscope fill; what the agent says of
// that is true; one that hangs keeps neither the others nor the end.
func TestAgentDelivers(t *testing.T) {
	bin := ownPrograms(t, "spin", "heap")
	p := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=60")
	heap := testprog.Start(t, bin+"/heap", "-busy", "-profile", filepath.Join(t.TempDir(), "own"), "-life", "1m")
	pyroscope, ingest := fakepyroscope.Start(t, fakepyroscope.Options{}), fakepyroscope.Start(t, fakepyroscope.Options{})
	stuck := fakepyroscope.Start(t, fakepyroscope.Options{})
	stuck.FailAll(fakepyroscope.Fault{What: fakepyroscope.Hang})
	parca, otlp := fakeparca.Start(t, fakeparca.Options{}), fakeotlp.Start(t, fakeotlp.Options{})
	addr := freeAddress(t)
	conf := fmt.Sprintf(`heap: {interval: 1s}
allocs: {interval: 1s}
pyroscope: [{url: %q, name: push}, {url: %q, name: ingest, api: ingest}, {url: %q, name: stuck}]
otlp: {endpoint: %q, experimental: true, name: otlp, interval: 1s}
`, pyroscope.URL(), ingest.URL(), stuck.URL(), otlp.GRPC())
	a := startAgent(t, bin, nil, "--listen", addr, "--cpu-hz", "99", "--config", writeConfig(t, conf), "--parca", parca.Addr)
	until(t, "two windows", func() bool { return len(a.files(t, "cpu", p.PID)) >= 2 })
	until(t, "memory profiles", func() bool {
		return pyroscope.Sum("inuse_space", true) > 0 && pyroscope.Sum("alloc_space", true) > 0 && ingest.Sum("alloc_objects", true) > 0
	})
	until(t, "metrics", func() bool { return otlp.MetricSets() > 0 })
	for name, is := range map[string]func(float64) bool{
		`pprofd_exports_total{destination="push",result="delivered"}`:         func(v float64) bool { return v >= 2 },
		`pprofd_exports_total{destination="push",result="failed"}`:            func(v float64) bool { return v == 0 },
		`pprofd_exports_total{destination="push",result="dropped"}`:           func(v float64) bool { return v == 0 },
		`pprofd_exports_total{destination="stuck",result="delivered"}`:        func(v float64) bool { return v == 0 },
		`pprofd_export_queue_profiles{destination="stuck"}`:                   func(v float64) bool { return v >= 2 },
		`pprofd_export_queue_bytes{destination="stuck"}`:                      func(v float64) bool { return v > 100 },
		`pprofd_export_queue_oldest_seconds{destination="stuck"}`:             func(v float64) bool { return v > 0 },
		`pprofd_export_samples_total{destination="parca:` + parca.Addr + `"}`: func(v float64) bool { return v > 10 },
		`pprofd_export_attempts_total{destination="otlp"}`:                    func(v float64) bool { return v >= 2 },
		`pprofd_export_seconds_total{destination="otlp"}`:                     func(v float64) bool { return v > 0 },
		`pprofd_export_last_success_timestamp_seconds{destination="ingest"}`:  func(v float64) bool { return v > 1e9 },
		`pprofd_spool_bytes`:                      func(v float64) bool { return v >= 4096 },
		`pprofd_spool_profiles_total`:             func(v float64) bool { return v >= 4 },
		`pprofd_spool_failures_total{of="write"}`: func(v float64) bool { return v == 0 },
	} {
		until(t, name, func() bool { return is(metric(t, addr, name)) })
	}
	for path := range map[string]bool{"/healthz": true, "/readyz": true} {
		if status, body := fetch(t, "http://"+addr+path); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if took := a.end(t); took > 6*time.Second {
		t.Errorf("the end took %v", took)
	}
	for _, pid := range []int{p.PID, heap.PID} {
		files := a.inFiles(t, pid)
		only := func(all sent) sent {
			own := sent{}
			for key, n := range all {
				if strings.HasPrefix(key, fmt.Sprint(pid)+" ") {
					own[key] = n
				}
			}
			return own
		}
		wantSame(t, "push", files, only(atPyroscope(pyroscope)))
		wantSame(t, "ingest", files, only(atPyroscope(ingest)))
		wantSame(t, "parca", files, only(atParca(parca)))
		wantSame(t, "otlp", files, only(atOTLP(otlp)))
	}
	for name, list := range map[string][]string{"push": pyroscope.Complaints(), "ingest": ingest.Complaints()} {
		if len(list) > 0 {
			t.Errorf("%s complains: %q", name, list)
		}
	}
	if refused := otlp.Refused(); len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
	// Another one takes over what waits.
	stuck.Heal()
	b := startAgent(t, bin, nil, "--dir", a.dir, "--config", writeConfig(t, fmt.Sprintf("pyroscope: {url: %q, name: stuck}", stuck.URL())))
	waits := a.inFiles(t, p.PID)
	until(t, "what waited arrives", func() bool {
		there := atPyroscope(stuck)
		for key, n := range waits {
			if there[key] != n {
				return false
			}
		}
		return true
	})
	b.end(t)
}

// TestAgentKilledInAnOutage: a real agent is killed again and again while its servers are away. Each time it had put on the disk what was
// complete, a second ago at most; all of that arrives, with the samples that are in files.
func TestAgentKilledInAnOutage(t *testing.T) {
	needs.Root(t)
	bin := ownPrograms(t, "spin")
	p := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=600")
	pyroscope := fakepyroscope.Start(t, fakepyroscope.Options{})
	parca := fakeparca.Start(t, fakeparca.Options{})
	pyroscope.Close()
	parca.Stop()
	dir := filepath.Join(t.TempDir(), "data")
	args := []string{
		"--dir", dir, "--cpu-hz", "99", "--pyroscope", pyroscope.URL(), "--parca", parca.Addr,
		"--config", writeConfig(t, "heap: {enabled: false}\nallocs: {enabled: false}\n"),
	}
	kills := realKills(t)
	for i := range kills {
		a := startAgent(t, bin, nil, args...)
		a.dir = dir
		had := len(a.files(t, "cpu", p.PID))
		until(t, "some windows", func() bool { return len(a.files(t, "cpu", p.PID)) > had+2 })
		time.Sleep(time.Duration(i) * 311 * time.Millisecond % time.Second)
		if err := a.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = a.cmd.Wait()
	}
	waits, samples := spooled(t, dir)
	began := time.Now()
	if err := pyroscope.Listen(); err != nil {
		t.Fatal(err)
	}
	parca = fakeparca.Start(t, fakeparca.Options{Addr: parca.Addr})
	a := startAgent(t, bin, nil, args...)
	a.dir = dir
	had := len(a.files(t, "cpu", p.PID))
	until(t, "another window", func() bool { return len(a.files(t, "cpu", p.PID)) > had })
	until(t, "all is delivered", func() bool { n, _ := spooled(t, dir); return n == 0 })
	a.end(t)
	files := a.inFiles(t, p.PID)
	before := sent{}
	for key, n := range files {
		if isBefore(key, began) {
			before[key] = n
		}
	}
	if lost := len(before) - waits; lost < 0 || lost > 3*kills || waits < kills {
		t.Errorf("%d of %d profiles were on the disk after %d kills", waits, len(before), kills)
	}
	for name, there := range map[string]sent{"pyroscope": atPyroscope(pyroscope), "parca": atParca(parca)} {
		early := sent{}
		for key, n := range there {
			if files[key] != n {
				t.Errorf("%s: process %s: %d samples, in files %d", name, key, n, files[key])
			}
			if isBefore(key, began) {
				early[key] = n
			}
		}
		t.Logf("%s: %d profiles with %d samples of %d in files; after %d kills %d with %d waited", name, len(there), there.sum(), len(files), kills, waits, samples)
		if len(early) != waits || early.sum() != samples || len(there)-len(early) != len(files)-len(before) {
			t.Errorf("%s: %d profiles with %d samples arrived of those that waited, %d of the others, of %d", name, len(early), early.sum(), len(there)-len(early), len(files)-len(before))
		}
	}
}

// isBefore says whether a key is of a window that began before a time.
func isBefore(key string, at time.Time) bool {
	var pid, nanos int64
	_, err := fmt.Sscanf(key, "%d at %d", &pid, &nanos)
	return err == nil && nanos < at.UnixNano()
}

// spooled is how many profiles wait, and their samples, as the names of batches say.
func spooled(t *testing.T, dir string) (profiles int, samples int64) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, ".spool", "*.spool"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		var first, n, sum int64
		if _, err := fmt.Sscanf(filepath.Base(path), "%x-%d-%d.spool", &first, &n, &sum); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		profiles, samples = profiles+int(n), samples+sum
	}
	return profiles, samples
}

// realKills is fewer than PPROFD_KILLS, of those that deliver made-up windows on a fast clock.
func realKills(t *testing.T) int {
	t.Helper()
	n := 20
	if text := os.Getenv("PPROFD_KILLS"); text != "" {
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatalf("PPROFD_KILLS=%q", text)
		}
	}
	return max(3, n/7)
}
