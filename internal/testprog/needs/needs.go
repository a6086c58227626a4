// Package needs says what a test cannot do without: privileges, a kernel facility, a tool.
//
// A test that lacks it is skipped and the skip names what is missing. Where everything must be there, a skip
// would hide that the main job was not tested, so it is a failure:
//
//	PPROFD_CI=1               everything is required (.ci/run)
//	PPROFD_REQUIRE=root,bpf   these are required, the rest may be skipped (make test-kernels: no Go tool in the VM)
package needs

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Root is for tests that read other users' processes, mount, or change identity.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root", "effective UID 0: run the test as root")
	}
}

// BPF is for tests that load and attach BPF programs. It loads a perf_event program and attaches it to a CPU,
// which is the least that the profiler does, and tells which step the kernel refused.
func BPF(t testing.TB) {
	t.Helper()
	if err := probeBPF(); err != nil {
		Missing(t, "bpf", err.Error())
	}
}

// Tool is for tests that run a program of the host; it returns the program's path.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "tool", name+" in PATH: "+err.Error())
	}
	return path
}

// Missing ends the test: as a skip, or as a failure where the named kind of need is required.
// It is exported for needs that only one package has; kind is then a word of its own.
func Missing(t testing.TB, kind, what string) {
	t.Helper()
	end := t.Skipf
	if required(kind, os.Getenv("PPROFD_CI"), os.Getenv("PPROFD_REQUIRE")) {
		end = t.Fatalf
	}
	end("needs %s: %s", kind, what)
}

func required(kind, ci, list string) bool {
	return ci == "1" || slices.Contains(strings.Split(list, ","), kind)
}
