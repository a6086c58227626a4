package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// services are profiled, or not: shop and shop-heap are selected, shop-off, too, but opts out; other is not selected at first.
func services() []service {
	const long = "-seconds 3600 -procs 1"
	return []service{
		{name: "shop", program: "mixed", args: long},
		{name: "shop-heap", program: "heap", args: "-quiet -life 1h"}, // mixed has no memory profile
		{name: "shop-off", program: "mixed", args: long, env: "PPROFD=off"},
		{name: "other", program: "mixed", args: long},
	}
}

// TestSystemd runs the agent as the service that pprofd.service makes of it.
func TestSystemd(t *testing.T) {
	h := newHost(t)
	for _, s := range services() {
		s.start(t)
	}
	t.Cleanup(func() {
		if t.Failed() {
			h.journal(t, 150)
		}
	})
	before := bpfObjects(t)
	t.Run("unit", func(t *testing.T) { checkUnit(t) })
	t.Run("start", func(t *testing.T) { checkStart(t, h) })
	if t.Failed() {
		t.FailNow()
	}
	if bpfObjects(t).without(before).programs == 0 {
		t.Error("the agent has no BPF program: the test does not see them")
	}
	t.Run("selection", func(t *testing.T) { checkSelection(t, h) })
	t.Run("pages", checkPages)
	t.Run("reload", func(t *testing.T) { checkReload(t, h) })
	t.Run("a wrong configuration", func(t *testing.T) { checkWrongConfiguration(t, h) })
	t.Run("watchdog", func(t *testing.T) { checkWatchdog(t, h) })
	t.Run("stop", func(t *testing.T) { checkStop(t, h) })
	t.Run("nothing is left in the kernel", func(t *testing.T) {
		eventually(t, 10*time.Second, "BPF objects are left", func() bool {
			return bpfObjects(t).without(before) == (counts{})
		})
	})
}

// maxExposure is the most that systemd-analyze may find, of 100.
const maxExposure = "40"

func checkUnit(t *testing.T) {
	if out := run(t, "systemd-analyze", "verify", "pprofd.service"); out != "" {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
	out := run(t, "systemd-analyze", "security", "--offline=yes", "--threshold="+maxExposure, "/etc/systemd/system/pprofd.service")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	t.Log(lines[len(lines)-1])
	run(t, "/usr/local/bin/pprofd", "agent", "--config", configFile, "--check-config")
}

// checkStart: systemctl start returns when the agent says that it is ready.
func checkStart(t *testing.T, h *host) {
	h.configure(t, "select: ['unit=shop*']\n"+quick)
	run(t, "systemctl", "start", "pprofd.service")
	if got := property(t, "ActiveState"); got != "active" {
		t.Errorf("the unit is %s after its start, want active", got)
	}
	h.await(t, "shop", "cpu")
	h.await(t, "shop-heap", "heap")
}

func checkSelection(t *testing.T, h *host) {
	names := functions(t, h.await(t, "shop", "cpu"))
	if !slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, "main.") }) {
		t.Errorf("functions of the profile: %q, want some of package main", names)
	}
	h.await(t, "shop", "cpu") // a window later
	if got := h.services(t); !slices.Equal(got, []string{"shop", "shop-heap"}) {
		t.Errorf("there are profiles of %q, want shop and shop-heap", got)
	}
}

func checkReload(t *testing.T, h *host) {
	pid := property(t, "MainPID")
	h.configure(t, "select: ['unit=shop*', 'unit=other.service']\n"+quick)
	run(t, "systemctl", "reload", "pprofd.service")
	h.await(t, "other", "cpu")
	h.await(t, "shop", "cpu")
	if got := h.services(t); !slices.Equal(got, []string{"other", "shop", "shop-heap"}) {
		t.Errorf("there are profiles of %q, want other, shop and shop-heap: shop-off opted out", got)
	}
	if got := property(t, "MainPID"); got != pid {
		t.Errorf("the reload made process %s of %s", got, pid)
	}
}

func checkWrongConfiguration(t *testing.T, h *host) {
	h.configure(t, "windw: 1s\n")
	out, err := try(t, "systemctl", "reload", "pprofd.service")
	if err == nil {
		t.Errorf("systemctl reload succeeded:\n%s", out)
	}
	if log := run(t, "journalctl", "--unit=pprofd.service", "--no-pager", "--output=cat"); !strings.Contains(log, configFile+":1: ") {
		t.Errorf("the journal does not say what is wrong, and in which line:\n%s", tail(log))
	}
	h.await(t, "shop", "cpu")
}

// checkWatchdog: systemd is told that all is well, and restarts an agent that does not tell.
func checkWatchdog(t *testing.T, h *host) {
	h.configure(t, "select: ['unit=shop*']\n"+quick)
	told := property(t, "WatchdogTimestampMonotonic")
	eventually(t, 30*time.Second, "systemd's watchdog was not told", func() bool {
		return property(t, "WatchdogTimestampMonotonic") != told
	})
	if got := property(t, "NRestarts"); got != "0" {
		t.Fatalf("%s restarts so far, want 0", got)
	}
	pid := property(t, "MainPID")
	run(t, "kill", "-STOP", pid)
	eventually(t, time.Minute, "the agent that hangs was not restarted", func() bool {
		return property(t, "ActiveState") == "active" && property(t, "MainPID") != pid
	})
	h.await(t, "shop", "cpu")
}

// stopTime is how long the agent may take to deliver its last window.
const stopTime = 5 * time.Second

// checkStop: a window that would take an hour is delivered.
func checkStop(t *testing.T, h *host) {
	h.configure(t, "select: ['unit=shop*']\n"+strings.Replace(quick, "window: 2s", "window: 1h", 1))
	run(t, "systemctl", "reload", "pprofd.service")
	time.Sleep(8 * time.Second)
	files := h.profiles(t, "shop", "cpu")
	time.Sleep(4 * time.Second) // two of the windows before
	if got := h.profiles(t, "shop", "cpu"); len(got) != len(files) {
		t.Fatalf("%d profiles more in a window of an hour", len(got)-len(files))
	}
	start := time.Now()
	run(t, "systemctl", "stop", "pprofd.service")
	took := time.Since(start)
	t.Logf("systemctl stop took %v", took)
	if took > stopTime {
		t.Errorf("systemctl stop took %v, want at most %v", took, stopTime)
	}
	if got := property(t, "Result"); got != "success" {
		t.Errorf("the service ended with %q, want success", got)
	}
	if got := h.profiles(t, "shop", "cpu"); len(got) != len(files)+1 {
		t.Errorf("%d profiles came at the end, want 1", len(got)-len(files))
	}
	checkModes(t)
}

// checkModes: nobody else may look at profiles.
func checkModes(t *testing.T) {
	for _, dir := range []string{dataDir, filepath.Join(dataDir, "shop")} {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, mode %v: only its owner may enter it", dir, err, info.Mode())
		}
	}
}
