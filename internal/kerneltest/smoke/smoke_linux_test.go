package smoke

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestMachine fails, in a machine of kerneltest, where the kernel or its init lack what the profiler's tests need.
func TestMachine(t *testing.T) {
	want := os.Getenv("PPROFD_KERNELTEST") // release, or "any"
	if want == "" {
		t.Skip("needs a machine booted by make test-kernels")
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if got := strings.TrimSpace(string(release)); err != nil || want != "any" && got != want {
		t.Errorf("kernel %q, %v; want %s", release, err, want)
	}
	for what, path := range map[string]string{
		"BTF of the kernel":   "/sys/kernel/btf/vmlinux",
		"the uprobe PMU":      "/sys/bus/event_source/devices/uprobe/type",
		"tracepoints":         "/sys/kernel/tracing/events/sched/sched_switch/id",
		"symbols":             "/proc/kallsyms",
		"cgroup v2":           "/sys/fs/cgroup/cgroup.controllers",
		"the BPF file system": "/sys/fs/bpf",
	} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("loopback: %v", err)
	}
	l.Close()
}

func TestBPFLoadsAndAttaches(t *testing.T) {
	needs.Root(t)
	needs.BPF(t)
}
