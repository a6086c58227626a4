package needs

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const childEnv = "PPROFD_NEEDS_TEST_CHILD"

// TestBPFIsRefusedToNobody runs the probe as a user without capabilities: a perf_event program needs CAP_BPF and
// CAP_PERFMON whatever kernel.unprivileged_bpf_disabled says (linux/kernel/bpf/syscall.c, bpf_prog_load).
func TestBPFIsRefusedToNobody(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		if err := probeBPF(); err != nil {
			t.Fatal(err)
		}
		return
	}
	Root(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestBPFIsRefusedToNobody$")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "CAP_BPF") {
		t.Errorf("probe as nobody: %v, want a refusal that names CAP_BPF:\n%s", err, out)
	}
}

func TestBPFIsAllowedToRoot(t *testing.T) {
	Root(t)
	BPF(t)
}
