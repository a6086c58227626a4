package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSystemdCapabilities takes capabilities away from the service, and looks what it loses. CAP_SYS_ADMIN would stand in for some
// of the others.
func TestSystemdCapabilities(t *testing.T) {
	h := newHost(t)
	for _, s := range services() {
		s.start(t)
	}
	const cpu, all = "CPU, kernel names, names", "CPU, heap, kernel names, names"
	for _, tt := range []struct{ without, paranoid, lost string }{
		{"", "3", ""}, // as Debian has it
		{"CAP_SYS_ADMIN", "3", cpu},
		{"CAP_SYS_ADMIN", "2", ""},
		{"CAP_SYS_ADMIN CAP_BPF", "2", cpu},
		{"CAP_SYS_ADMIN CAP_PERFMON", "2", cpu},
		{"CAP_SYS_ADMIN CAP_SYS_PTRACE", "2", all},
		{"CAP_SYS_ADMIN CAP_DAC_READ_SEARCH", "2", all},
		{"CAP_SYS_ADMIN CAP_CHECKPOINT_RESTORE", "2", ""}, // it is for shared libraries, of which there are none here
	} {
		t.Run(fmt.Sprintf("all but (%s), perf_event_paranoid %s", tt.without, tt.paranoid), func(t *testing.T) {
			sysctl(t, "kernel/perf_event_paranoid", tt.paranoid)
			sysctl(t, "kernel/kptr_restrict", "1")
			if tt.without != "" {
				dropIn(t, "capability", "CapabilityBoundingSet=~"+tt.without)
			}
			h.configure(t, "select: ['unit=shop*']\n"+quick)
			if got := h.lost(t); got != tt.lost {
				t.Errorf("lost: %s; want %s", got, tt.lost)
				h.journal(t, 12)
			}
		})
	}
}

func sysctl(t *testing.T, name, value string) {
	t.Helper()
	file := "/proc/sys/" + name
	before, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0); err != nil {
			t.Error(err)
		}
	})
}

// lost starts the service and says what it does not do.
func (h *host) lost(t *testing.T) (lost string) {
	t.Helper()
	run(t, "systemctl", "stop", "pprofd.service")
	for _, service := range h.services(t) {
		if err := os.RemoveAll(filepath.Join(dataDir, service)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "systemctl", "start", "pprofd.service")
	for end := time.Now().Add(25 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if lost = h.missing(t); lost == "" {
			break
		}
	}
	return lost
}

// missing is what the agent should do, and does not do so far.
func (h *host) missing(t *testing.T) string {
	t.Helper()
	var all []string
	names := h.allFunctions(t, "shop", "cpu")
	for what, ok := range map[string]bool{
		"CPU":          len(h.profiles(t, "shop", "cpu")) > 0,
		"heap":         len(h.profiles(t, "shop-heap", "heap")) > 0,
		"names":        slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, "main.") }),
		"kernel names": slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, "do_syscall_64") }),
		"opting out":   len(h.profiles(t, "shop-off", "cpu")) == 0,
		"selection":    len(h.profiles(t, "other", "cpu")) == 0,
	} {
		if !ok {
			all = append(all, what)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (h *host) allFunctions(t *testing.T, service, kind string) (names []string) {
	t.Helper()
	for _, file := range h.profiles(t, service, kind) {
		names = append(names, functions(t, file)...)
	}
	return names
}
