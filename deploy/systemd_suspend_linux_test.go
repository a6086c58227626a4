package deploy

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
)

// asleep is a configuration with a server that is away, so that the spool has something when the machine is suspended.
const asleep = "select: ['unit=shop*']\npyroscope: [{url: 'http://127.0.0.1:9'}]\nspool: {max_age: 5m}\n" + quick

// TestSystemdSuspend suspends the machine, for 20 s or what kerneltest is told by -suspend, while the agent and what it profiles run: the time of day
// jumps, and the clocks that count what is done do not.
func TestSystemdSuspend(t *testing.T) {
	h := newHost(t)
	for _, s := range services()[:2] {
		s.start(t)
	}
	h.configure(t, asleep)
	began := readClocks(t)
	run(t, "systemctl", "start", "pprofd.service")
	t.Cleanup(func() {
		if t.Failed() {
			h.journal(t, 60)
		}
	})
	h.await(t, "shop", "cpu")
	h.await(t, "shop-heap", "heap")
	agent, shop := property(t, "MainPID"), h.process(t, "shop")
	before := h.profiles(t, "shop", "cpu")
	suspend(t)
	h.await(t, "shop", "cpu")
	h.await(t, "shop-heap", "heap")
	if now, restarts := property(t, "MainPID"), property(t, "NRestarts"); now != agent || restarts != "0" {
		t.Errorf("process %s was the agent, and %s is, after %s restarts", agent, now, restarts)
	}
	for _, file := range before {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	checkSpool(t, began)
	h.checkNewProcess(t)
	h.checkWindows(t, shop, began)
}

// process is the directory of profiles of a service's process, by what /proc says: its PID, and when it was started.
func (h *host) process(t *testing.T, service string) string {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(run(t, "systemctl", "show", "--property=MainPID", "--value", service+".service")))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := procfs.New("").Proc(pid).Stat()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dataDir, service, fmt.Sprintf("%d-%d", pid, stat.StartTime))
}

type clocks struct{ wall, boot, mono time.Duration }

func readClocks(t *testing.T) (c clocks) {
	t.Helper()
	for id, to := range map[int32]*time.Duration{unix.CLOCK_REALTIME: &c.wall, unix.CLOCK_BOOTTIME: &c.boot, unix.CLOCK_MONOTONIC: &c.mono} {
		var ts unix.Timespec
		if err := unix.ClockGettime(id, &ts); err != nil {
			t.Fatal(err)
		}
		*to = time.Duration(ts.Nano())
	}
	return c
}

// suspend has the machine's clock wake it up.
func suspend(t *testing.T) {
	t.Helper()
	d, err := time.ParseDuration(os.Getenv("PPROFD_SUSPEND"))
	if err != nil {
		t.Fatal(err)
	}
	if d == 0 {
		d = 20 * time.Second
	}
	const alarm = "/sys/class/rtc/rtc0/wakealarm"
	from := readClocks(t)
	for _, w := range []struct{ file, text string }{
		{alarm, "0"}, {alarm, fmt.Sprintf("+%d", int(d.Seconds()))}, {"/sys/power/mem_sleep", "deep"}, {"/sys/power/state", "mem"},
	} {
		if err := os.WriteFile(w.file, []byte(w.text), 0); err != nil {
			t.Fatal(err)
		}
	}
	to := readClocks(t)
	slept := to.boot - from.boot - (to.mono - from.mono)
	t.Logf("suspended for %v; the time of day went on by %v", slept.Round(time.Millisecond), (to.wall - from.wall).Round(time.Millisecond))
	const setting = 2 * time.Second // the alarm has seconds, and to suspend takes some
	if slept < d-setting || to.wall-from.wall < d-setting {
		t.Fatalf("the machine was suspended for %v, want %v", slept, d)
	}
}

// checkSpool: what waits for a server is as old as the agent could have been at work on it, and was not dropped for its age.
func checkSpool(t *testing.T, began clocks) {
	t.Helper()
	m := metrics(t)
	now := readClocks(t)
	up := (now.mono - began.mono).Seconds()
	if oldest := m["pprofd_spool_oldest_seconds"]; oldest <= 0 || oldest > up {
		t.Errorf("the oldest batch has waited for %v s, of the %v s that the machine ran since the start", oldest, up)
	}
	for name, v := range m {
		if strings.HasPrefix(name, "pprofd_spool_removed_total") && v != 0 {
			t.Errorf("%s %v", name, v)
		}
	}
}

// metrics are those of the agent, by name with labels.
func metrics(t *testing.T) map[string]float64 {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	answer, err := client.Get("http://127.0.0.1:6061/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	all := map[string]float64{}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			all[name] = v
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// checkNewProcess: one that starts after the suspension is found, and named by the start that /proc tells.
func (h *host) checkNewProcess(t *testing.T) {
	t.Helper()
	run(t, "systemctl", "restart", "shop.service")
	dir := h.process(t, "shop")
	eventually(t, patience, "no profile in "+dir, func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "cpu-*.pb.gz"))
		return err == nil && len(files) > 0
	})
}

// checkWindows: the windows of a process follow each other, in the time of day and by their names; none is as long as the
// suspension, and none has more CPU time than its process could have had.
func (h *host) checkWindows(t *testing.T, dir string, began clocks) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "cpu-*.pb.gz"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d profiles in %s, %v", len(files), dir, err)
	}
	slices.Sort(files)
	end := time.Unix(0, int64(began.wall))
	for _, file := range files {
		p := read(t, file)
		start, length := time.Unix(0, p.TimeNanos), time.Duration(p.DurationNanos)
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "cpu-"), ".pb.gz")
		if want := start.UTC().Format("20060102T150405.000Z"); name != want {
			t.Errorf("%s: it begins at %s", name, want)
		}
		if start.Before(end) || start.Add(length).After(time.Now()) {
			t.Errorf("%s and %v: the window before ended at %v, now it is %v", name, length, end.UTC(), time.Now().UTC())
		}
		var cpu time.Duration
		for _, s := range p.Sample {
			cpu += time.Duration(s.Value[len(s.Value)-1])
		}
		t.Logf("%s: %v, %v of CPU time", name, length.Round(time.Millisecond), cpu)
		if length > 15*time.Second || cpu > length/2+time.Second { // windows of 2 s; CPUQuota is a quarter
			t.Errorf("%s: %v of CPU time in a window of %v", name, cpu, length)
		}
		end = start.Add(length)
	}
}

func read(t *testing.T, file string) *profile.Profile {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return p
}
