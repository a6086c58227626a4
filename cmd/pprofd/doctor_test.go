package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// goodHost is a machine where everything works, as files; files may be replaced or, with "", left out.
func goodHost(t *testing.T, files map[string]string) *host {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"proc/sys/kernel/perf_event_paranoid":       "2\n",
		"proc/sys/kernel/kptr_restrict":             "1\n",
		"proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
		"proc/sys/kernel/yama/ptrace_scope":         "1\n",
		"proc/kallsyms":                             "ffffffff81000000 T _text\n",
		"proc/self/mountinfo":                       "22 1 0:21 / /proc rw,nosuid shared:1 - proc proc rw\n",
		"sys/kernel/btf/vmlinux":                    "x",
		"sys/kernel/security/lockdown":              "none [integrity] confidentiality\n",
		"sys/fs/cgroup/cgroup.controllers":          "cpu\n",
	}
	for name, content := range files {
		all[name] = content
	}
	for name, content := range all {
		if content == "" {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := &host{
		proc: filepath.Join(dir, "proc"), sys: filepath.Join(dir, "sys"),
		release: "6.12.0-1-amd64", arch: "amd64", exe: "/usr/bin/pprofd",
		has:       func(capability.Cap) bool { return true },
		openEvent: func(uint32, uint64) error { return nil },
	}
	h.namespaces(t, initPIDNS, initUserNS)
	return h
}

func (h *host) namespaces(t *testing.T, pid, user string) {
	t.Helper()
	dir := filepath.Join(h.proc, "self/ns")
	os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"pid": pid, "user": user} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func only(caps ...capability.Cap) func(capability.Cap) bool {
	return func(c capability.Cap) bool { return slices.Contains(caps, c) }
}

func TestDoctorFindsEachLackAndItsFix(t *testing.T) {
	denied := func(uint32, uint64) error { return unix.EACCES }
	for name, c := range map[string]struct {
		files  map[string]string
		change func(*host)
		check  string
		status status
		fix    string
	}{
		"old kernel":            {nil, func(h *host) { h.release = "5.10.0-30-amd64" }, "kernel", statusFail, "boot Linux 6.1"},
		"untested kernel":       {nil, func(h *host) { h.release = "5.15.0-91-generic" }, "kernel", statusWarn, "boot Linux 6.1"},
		"new kernel":            {nil, func(h *host) { h.release = "7.0-rc1" }, "kernel", statusOK, ""},
		"strange kernel":        {nil, func(h *host) { h.release = "mine" }, "kernel", statusWarn, "could not be understood"},
		"32 bits":               {nil, func(h *host) { h.arch = "386" }, "machine", statusFail, "amd64 or arm64"},
		"no BTF":                {map[string]string{"sys/kernel/btf/vmlinux": ""}, nil, "BTF", statusFail, "CONFIG_DEBUG_INFO_BTF"},
		"no CAP_BPF":            {nil, func(h *host) { h.has = only(capability.CAP_PERFMON) }, "CAP_BPF", statusFail, "sudo setcap cap_bpf"},
		"no CAP_PERFMON":        {nil, func(h *host) { h.has = only(capability.CAP_BPF) }, "CAP_PERFMON", statusFail, "--cap-add=PERFMON"},
		"CAP_SYS_ADMIN instead": {nil, func(h *host) { h.has = only(capability.CAP_SYS_ADMIN) }, "CAP_PERFMON", statusOK, ""},
		"not instead of ptrace": {nil, func(h *host) { h.has = only(capability.CAP_SYS_ADMIN) }, "CAP_SYS_PTRACE", statusWarn, "sudo"},
		"Debian's level 3": {map[string]string{"proc/sys/kernel/perf_event_paranoid": "3\n"},
			func(h *host) { h.has = only(capability.CAP_BPF, capability.CAP_PERFMON) }, "kernel.perf_event_paranoid", statusWarn, "sudo sysctl -w kernel.perf_event_paranoid=2"},
		"Debian's level 3 as root": {map[string]string{"proc/sys/kernel/perf_event_paranoid": "3\n"}, nil, "kernel.perf_event_paranoid", statusOK, ""},
		"event denied by level 4": {map[string]string{"proc/sys/kernel/perf_event_paranoid": "4\n"},
			func(h *host) { h.has, h.openEvent = only(capability.CAP_PERFMON), denied }, "perf event cpu-clock", statusFail, "perf_event_paranoid=2"},
		"event denied by seccomp": {nil, func(h *host) { h.openEvent = denied }, "perf event cpu-clock", statusFail, "seccomp=unconfined"},
		"event denied to users":   {nil, func(h *host) { h.has, h.openEvent = only(), denied }, "perf event cpu-clock", statusFail, "sudo"},
		"no counter":              {nil, func(h *host) { h.openEvent = func(uint32, uint64) error { return unix.ENOENT } }, "perf event cycles", statusInfo, ""},
		"lockdown":                {map[string]string{"sys/kernel/security/lockdown": "none integrity [confidentiality]\n"}, nil, "lockdown", statusFail, "lockdown=integrity"},
		"lockdown integrity":      {nil, nil, "lockdown", statusOK, ""},
		"kptr_restrict 2": {map[string]string{"proc/kallsyms": "0000000000000000 T _text\n", "proc/sys/kernel/kptr_restrict": "2\n"},
			nil, "kernel symbols", statusWarn, "sudo sysctl -w kernel.kptr_restrict=1"},
		"kallsyms hidden": {map[string]string{"proc/kallsyms": "0000000000000000 T _text\n"}, nil, "kernel symbols", statusWarn, "cap_syslog"},
		"kallsyms of Linux 6.1": {map[string]string{"proc/kallsyms": "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\n"},
			nil, "kernel symbols", statusOK, ""},
		"Yama 3":  {map[string]string{"proc/sys/kernel/yama/ptrace_scope": "3\n"}, nil, "kernel.yama.ptrace_scope", statusWarn, "reboot"},
		"no Yama": {map[string]string{"proc/sys/kernel/yama/ptrace_scope": ""}, nil, "kernel.yama.ptrace_scope", statusOK, ""},
		"container": {nil, func(h *host) { h.namespaces(t, "pid:[4026532000]", initUserNS) },
			"PID namespace", statusInfo, ""},
		"rootless container": {nil, func(h *host) { h.namespaces(t, "pid:[4026532000]", "user:[4026532001]") }, "user namespace", statusFail, "--userns=host"},
		"hidepid": {map[string]string{"proc/self/mountinfo": "22 1 0:21 / /proc rw - proc proc rw,hidepid=invisible\n"},
			func(h *host) { h.has = only() }, "/proc hidepid", statusWarn, "hidepid=0"},
		"hidepid as root": {map[string]string{"proc/self/mountinfo": "22 1 0:21 / /proc rw - proc proc rw,hidepid=2\n"}, nil, "/proc hidepid", statusOK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := goodHost(t, c.files)
			if c.change != nil {
				c.change(h)
			}
			checks := h.checks()
			i := slices.IndexFunc(checks, func(got check) bool { return got.Name == c.check })
			if i < 0 {
				t.Fatalf("no check %q", c.check)
			}
			if got := checks[i]; got.Status != c.status || !strings.Contains(got.Fix, c.fix) || (c.fix == "") != (got.Fix == "") {
				t.Errorf("%+v, want %s with fix %q", got, c.status, c.fix)
			}
		})
	}
}

func TestGoodHostHasNothingToFix(t *testing.T) {
	for _, c := range goodHost(t, nil).checks() {
		if c.Status != statusOK && c.Status != statusInfo || c.Fix != "" || c.Value == "" || c.Means == "" {
			t.Errorf("%+v", c)
		}
	}
}

func TestDoctorExitsWith1WhereProfilesAreImpossible(t *testing.T) {
	h := goodHost(t, nil)
	h.has = only()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the host's own checks only
	if d := diagnose(ctx, h); d.CPUProfiles {
		t.Error("possible without any capability")
	}
	if d := diagnose(ctx, goodHost(t, nil)); !d.CPUProfiles {
		t.Errorf("impossible: %+v", d)
	}
}

// The verdict on this machine must agree between the two forms of output and the exit code.
func TestDoctorHere(t *testing.T) {
	code, out, errOut := call(t, "doctor", "--json")
	var d diagnosis
	if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Checks) == 0 || errOut != "" {
		t.Fatalf("%v, %q\n%s", err, errOut, out)
	}
	if (code == 0) != d.CPUProfiles {
		t.Errorf("exit code %d, cpu_profiles %v", code, d.CPUProfiles)
	}
	codeText, text, _ := call(t, "doctor")
	if codeText != code || strings.Contains(text, "\nCPU profiles: possible") != d.CPUProfiles {
		t.Errorf("exit code %d\n%s", codeText, text)
	}
	for _, c := range d.Checks {
		if !strings.Contains(text, c.Name) {
			t.Errorf("%s is not in the table", c.Name)
		}
	}
}
