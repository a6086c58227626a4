package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/discover"
)

// host is where checks look. Tests point it at fixtures.
type host struct {
	proc, sys string
	release   string // of the kernel, as uname -r has it
	arch      string // GOARCH
	exe       string // of pprofd
	has       func(capability.Cap) bool
	openEvent func(typ uint32, config uint64) error // opens a perf event on all of CPU 0
}

func thisHost() (*host, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	caps, err := capability.NewPid2(0)
	if err == nil {
		err = caps.Load()
	}
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		exe = "pprofd"
	}
	return &host{
		proc:      "/proc",
		sys:       "/sys",
		release:   unix.ByteSliceToString(u.Release[:]),
		arch:      runtime.GOARCH,
		exe:       exe,
		has:       func(c capability.Cap) bool { return caps.Get(capability.EFFECTIVE, c) },
		openEvent: openEvent,
	}, nil
}

// openEvent opens, and closes, a sampling event in the way the profiler does: any process, one CPU.
func openEvent(typ uint32, config uint64) error {
	attr := unix.PerfEventAttr{Type: typ, Config: config, Sample: 99, Bits: unix.PerfBitFreq | unix.PerfBitDisabled}
	attr.Size = uint32(unix.PERF_ATTR_SIZE_VER5)
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (h *host) checks() []check {
	return []check{
		h.kernel(), h.machine(), h.btf(),
		h.capability(capability.CAP_BPF, statusFail, "load BPF programs"),
		h.capability(capability.CAP_PERFMON, statusFail, "sample with them, and read the kernel's memory"),
		h.capability(capability.CAP_SYS_PTRACE, statusWarn, "look at processes of other users"),
		h.capability(capability.CAP_CHECKPOINT_RESTORE, statusWarn, "read the executables of processes after they were deleted"),
		h.paranoid(), h.cpuClock(), h.cycles(),
		h.unprivilegedBPF(), h.lockdown(), h.kallsyms(), h.ptraceScope(),
		h.pidNamespace(), h.userNamespace(), h.hidepid(), h.cgroup(),
	}
}

// kernel: 5.15 has the last helper that the programs cannot do without, bpf_task_pt_regs.
func (h *host) kernel() check {
	c := check{Name: "kernel", Means: "5.15 or newer is needed, 6.1 or newer is tested"}
	major, minor, ok := kernelVersion(h.release)
	const fix = "boot Linux 6.1 or newer; Debian 12 and Ubuntu 24.04 have it"
	switch {
	case !ok:
		return c.warn(h.release, "the version could not be understood; Linux 6.1 or newer is expected")
	case major < 5 || major == 5 && minor < 15:
		return c.fail(h.release, fix)
	case major < 6 || major == 6 && minor < 1:
		return c.warn(h.release, fix)
	}
	return c.ok(h.release)
}

func kernelVersion(release string) (major, minor int, ok bool) {
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major, minor, n == 2
}

func (h *host) machine() check {
	c := check{Name: "machine", Means: "amd64 and arm64 are supported"}
	if h.arch != "amd64" && h.arch != "arm64" {
		return c.fail(h.arch, "use an amd64 or arm64 machine")
	}
	return c.ok(h.arch)
}

func (h *host) btf() check {
	c := check{Name: "BTF", Means: "the kernel's own description of its types"}
	path := filepath.Join(h.sys, "kernel/btf/vmlinux")
	if _, err := os.Stat(path); err != nil {
		return c.fail(err.Error(), "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's and Ubuntu's are; in a container, mount /sys")
	}
	return c.ok(path)
}

// capability checks a capability, for which CAP_SYS_ADMIN also stands (not for CAP_SYS_PTRACE): capabilities(7).
func (h *host) capability(want capability.Cap, without status, use string) check {
	name := capName(want)
	c := check{Name: name, Means: "to " + use}
	switch {
	case h.has(want):
		return c.ok("yes")
	case want != capability.CAP_SYS_PTRACE && h.has(capability.CAP_SYS_ADMIN):
		return c.ok("yes, by CAP_SYS_ADMIN")
	}
	return c.with(without, "no", h.capabilityFix())
}

func capName(c capability.Cap) string { return "CAP_" + strings.ToUpper(c.String()) }

// capabilityFix is the same for every capability: all that pprofd can use, so that one command is enough.
func (h *host) capabilityFix() string {
	return fmt.Sprintf("run with sudo; or sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_checkpoint_restore,cap_syslog+ep %s; "+
		"or in a container --cap-add=BPF --cap-add=PERFMON --cap-add=SYS_PTRACE --cap-add=CHECKPOINT_RESTORE --cap-add=SYSLOG", shellQuote(h.exe))
}

// paranoid: CAP_PERFMON stands above kernel.perf_event_paranoid (kernel/events/core.c), except that Debian and Ubuntu know
// levels 3 and 4, which only CAP_SYS_ADMIN passes.
func (h *host) paranoid() check {
	c := check{Name: "kernel.perf_event_paranoid", Means: "who may sample; Debian's and Ubuntu's levels 3 and 4 demand CAP_SYS_ADMIN"}
	level, err := h.sysctl("kernel/perf_event_paranoid")
	switch {
	case err != nil:
		return c.fail(err.Error(), "boot a kernel with CONFIG_PERF_EVENTS=y")
	case level >= 3 && !h.has(capability.CAP_SYS_ADMIN):
		return c.warn(strconv.Itoa(level), "sudo sysctl -w kernel.perf_event_paranoid=2")
	}
	return c.ok(strconv.Itoa(level))
}

func (h *host) cpuClock() check {
	c := check{Name: "perf event cpu-clock", Means: "the timer behind CPU samples"}
	err := h.openEvent(unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CPU_CLOCK)
	if err != nil {
		return c.fail(err.Error(), h.perfFix(err))
	}
	return c.ok("opens")
}

// perfFix tells a lack of rights from a filter: a container's seccomp profile answers EPERM even to root.
func (h *host) perfFix(err error) string {
	level, sysctlErr := h.sysctl("kernel/perf_event_paranoid")
	admin := h.has(capability.CAP_SYS_ADMIN)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return "boot a kernel with CONFIG_PERF_EVENTS=y; in a container allow the system call: --security-opt seccomp=unconfined"
	case !errors.Is(err, os.ErrPermission):
		return ""
	case !admin && !h.has(capability.CAP_PERFMON):
		return h.capabilityFix()
	case !admin && sysctlErr == nil && level >= 3:
		return "sudo sysctl -w kernel.perf_event_paranoid=2"
	}
	return "something filters the system call; in a container: --security-opt seccomp=unconfined"
}

func (h *host) cycles() check {
	c := check{Name: "perf event cycles", Means: "hardware counter; where there is none, record uses cpu-clock"}
	switch err := h.openEvent(unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV):
		return c.info("no such counter here, as in most virtual machines")
	case err != nil:
		return c.info(err.Error())
	}
	return c.ok("opens")
}

func (h *host) unprivilegedBPF() check {
	c := check{Name: "kernel.unprivileged_bpf_disabled", Means: "no matter to pprofd, which needs CAP_BPF anyway"}
	v, err := h.sysctl("kernel/unprivileged_bpf_disabled")
	if err != nil {
		return c.info(err.Error())
	}
	return c.info(strconv.Itoa(v))
}

// lockdown: confidentiality forbids BPF to read kernel memory (LOCKDOWN_BPF_READ_KERNEL in include/linux/security.h).
func (h *host) lockdown() check {
	c := check{Name: "lockdown", Means: "confidentiality forbids BPF to read the kernel's memory"}
	data, err := os.ReadFile(filepath.Join(h.sys, "kernel/security/lockdown"))
	if err != nil {
		return c.info("not known: " + discover.Reason(err))
	}
	_, mode, _ := strings.Cut(string(data), "[")
	mode, _, _ = strings.Cut(mode, "]")
	if mode == "confidentiality" {
		return c.fail(mode, "boot with lockdown=integrity, or without lockdown=confidentiality, on the kernel's command line")
	}
	return c.ok(mode)
}

// showsText reports whether the first function of kallsyms has an address. On x86 before Linux 6.15 per-CPU variables,
// whose addresses begin with 0 for everybody, come first.
func showsText(kallsyms io.Reader) bool {
	lines := bufio.NewScanner(kallsyms)
	for lines.Scan() {
		address, rest, _ := strings.Cut(lines.Text(), " ")
		if kind, _, _ := strings.Cut(rest, " "); kind == "T" || kind == "t" {
			return strings.Trim(address, "0") != ""
		}
	}
	return false
}

// kallsyms asks for what matters, addresses that are not 0, and names kernel.kptr_restrict as the cause.
func (h *host) kallsyms() check {
	c := check{Name: "kernel symbols", Means: "names of kernel functions in stacks"}
	restrict, err := h.sysctl("kernel/kptr_restrict")
	if err != nil {
		return c.warn(err.Error(), "")
	}
	value := fmt.Sprintf("kernel.kptr_restrict=%d", restrict)
	f, err := os.Open(filepath.Join(h.proc, "kallsyms"))
	if err != nil {
		return c.warn(err.Error(), "boot a kernel with CONFIG_KALLSYMS=y")
	}
	defer f.Close()
	switch {
	case showsText(f):
		return c.ok(value)
	case restrict >= 2:
		return c.warn(value+" hides them", "sudo sysctl -w kernel.kptr_restrict=1")
	}
	return c.warn(value+" hides them from us", h.capabilityFix())
}

// ptraceScope: at 3 Yama forbids everybody to attach, which the memory of a process counts as (Documentation/admin-guide/LSM/Yama.rst).
func (h *host) ptraceScope() check {
	c := check{Name: "kernel.yama.ptrace_scope", Means: "who may read the memory of processes: heap, goroutines, labels"}
	v, err := h.sysctl("kernel/yama/ptrace_scope")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return c.ok("no Yama")
	case err != nil:
		return c.info(err.Error())
	case v >= 3:
		return c.warn(strconv.Itoa(v), "set kernel.yama.ptrace_scope=2 or less in /etc/sysctl.d and reboot: 3 cannot be undone before")
	case v >= 1 && !h.has(capability.CAP_SYS_PTRACE):
		return c.warn(strconv.Itoa(v), h.capabilityFix())
	}
	return c.ok(strconv.Itoa(v))
}

// The inode numbers of the initial namespaces are fixed: include/linux/proc_ns.h (include/uapi/linux/nsfs.h since 6.18).
const (
	initUserNS = "user:[4026531837]" // PROC_USER_INIT_INO, 0xEFFFFFFD
	initPIDNS  = "pid:[4026531836]"  // PROC_PID_INIT_INO, 0xEFFFFFFC
)

func (h *host) pidNamespace() check {
	c := check{Name: "PID namespace", Means: "which processes can be seen"}
	ns, err := os.Readlink(filepath.Join(h.proc, "self/ns/pid"))
	switch {
	case err != nil:
		return c.info("not known: " + discover.Reason(err))
	case ns != initPIDNS:
		return c.info("a container's: only its own processes can be seen; with --pid=host all of the machine's")
	}
	return c.ok("the host's")
}

// userNamespace: bpf(2) and perf_event_open(2) ask for capabilities in the initial user namespace.
func (h *host) userNamespace() check {
	c := check{Name: "user namespace", Means: "capabilities count in the host's only"}
	ns, err := os.Readlink(filepath.Join(h.proc, "self/ns/user"))
	switch {
	case err != nil:
		return c.info("not known: " + discover.Reason(err))
	case ns != initUserNS:
		return c.fail("not the host's: its root is nobody to the kernel", "run outside of rootless containers and user namespaces; with Docker: --userns=host")
	}
	return c.ok("the host's")
}

func (h *host) hidepid() check {
	c := check{Name: "/proc hidepid", Means: "whether processes of other users are hidden"}
	mode, err := hidepidOf(filepath.Join(h.proc, "self/mountinfo"))
	switch {
	case err != nil:
		return c.info("not known: " + discover.Reason(err))
	case mode == "" || mode == "0" || mode == "off":
		return c.ok("off")
	case h.has(capability.CAP_SYS_PTRACE):
		return c.ok(mode + ", not for CAP_SYS_PTRACE")
	}
	return c.warn(mode, "sudo mount -o remount,hidepid=0 /proc")
}

// hidepidOf finds the option of the mount at /proc: proc(5), proc_pid_mountinfo(5).
func hidepidOf(mountinfo string) (string, error) {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return "", err
	}
	mode := ""
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[4] != "/proc" {
			continue
		}
		for option := range strings.SplitSeq(f[5]+","+f[len(f)-1], ",") {
			if v, ok := strings.CutPrefix(option, "hidepid="); ok {
				mode = v
			}
		}
	}
	return mode, nil
}

func (h *host) cgroup() check {
	c := check{Name: "cgroups", Means: "which unit, container and pod a process belongs to"}
	switch {
	case exists(filepath.Join(h.sys, "fs/cgroup/cgroup.controllers")):
		return c.info("version 2")
	case exists(filepath.Join(h.sys, "fs/cgroup/unified/cgroup.controllers")):
		return c.info("version 1, and 2 beside it")
	case exists(filepath.Join(h.sys, "fs/cgroup")):
		return c.info("version 1")
	}
	return c.info("none")
}

func (h *host) sysctl(name string) (int, error) {
	data, err := os.ReadFile(filepath.Join(h.proc, "sys", name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
