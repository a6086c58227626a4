package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// Feature is something that the BPF programs ask of the kernel, and whether the kernel has it.
type Feature struct {
	Name     string // of the helper, map or program type: "bpf_loop"
	Since    string // the kernel version that has it first
	Use      string // what it is for
	Required bool   // without it there is no CPU profile
	OK       bool
	Err      error  // where not OK; it wraps ebpf.ErrNotSupported where the kernel lacks it, os.ErrPermission where we may not ask
	Fix      string // where not OK: what to do about it
}

// feature is a Feature before its probe ran.
type feature struct {
	Feature
	probe func() error
}

// Features asks the running kernel for everything that the programs use. It needs CAP_BPF and CAP_PERFMON: without
// them most answers are os.ErrPermission. The kernel's answers are kept for the life of the process.
//
// Versions are from the kernel's own history, as bpf-helpers(7) and include/uapi/linux/bpf.h have it.
func Features() []Feature {
	var all []Feature
	for _, f := range wanted() {
		f.Err = f.probe()
		f.OK = f.Err == nil
		f.Fix = f.fix()
		all = append(all, f.Feature)
	}
	return all
}

func (f feature) fix() string {
	switch {
	case f.OK:
		return ""
	case errors.Is(f.Err, os.ErrPermission):
		return "run as root, or with CAP_BPF and CAP_PERFMON"
	case errors.Is(f.Err, ebpf.ErrNotSupported):
		return fmt.Sprintf("boot Linux %s or newer", f.Since)
	}
	return "" // the error speaks for itself
}

// lacking is an error that wraps ErrNotSupported and names the required features that the kernel lacks, each with the
// version that has it; nil if there are none.
func lacking(all []Feature) error {
	var names []string
	for _, f := range all {
		if f.Required && errors.Is(f.Err, ErrNotSupported) {
			names = append(names, fmt.Sprintf("%s (Linux %s)", f.Name, f.Since))
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("%w: this kernel lacks %s", ErrNotSupported, strings.Join(names, ", "))
}

func wanted() []feature {
	return []feature{
		program(ebpf.PerfEvent, "perf_event programs", "4.9", "take samples", true),
		program(ebpf.RawTracepoint, "raw_tracepoint programs", "4.17", "see processes exec and exit", true),
		mapType(ebpf.Hash, "hash maps", "3.19", "know the targets"),
		mapType(ebpf.LRUHash, "LRU hash maps", "4.10", "leave out programs that are not Go"),
		mapType(ebpf.PerCPUArray, "per-CPU array maps", "4.6", "count"),
		mapType(ebpf.RingBuf, "ring buffer maps", "5.8", "hand samples over"),
		helper(asm.FnGetCurrentTaskBtf, "bpf_get_current_task_btf", "5.11", "know the process, not only its PID", true),
		helper(asm.FnTaskPtRegs, "bpf_task_pt_regs", "5.15", "find the user's registers while in the kernel", true),
		helper(asm.FnProbeReadKernel, "bpf_probe_read_kernel", "5.5", "know which process is killed for lack of memory", false),
		helper(asm.FnProbeReadUser, "bpf_probe_read_user", "5.5", "walk the user's stack", true),
		helper(asm.FnRingbufOutput, "bpf_ringbuf_output", "5.8", "hand samples over", true),
		helper(asm.FnRingbufQuery, "bpf_ringbuf_query", "5.8", "wake the reader in batches", true),
		helper(asm.FnGetStack, "bpf_get_stack", "4.18", "take kernel stacks", true),
		helper(asm.FnGetNsCurrentPidTgid, "bpf_get_ns_current_pid_tgid", "5.7", "run inside a PID namespace", false),
		helper(asm.FnSnprintf, "bpf_snprintf", "5.13", "name kernel functions without reading all of kallsyms", false),
		program(ebpf.Kprobe, "kprobe programs", "4.1", "see allocations", false),
		{
			Feature{Name: "uprobe_multi links", Since: "6.10", Use: "probe all threads of one process by one link; perf events stand in"},
			func() error {
				if haveUprobeMulti() {
					return nil
				}
				return fmt.Errorf("uprobe_multi links of all threads: %w", ebpf.ErrNotSupported)
			},
		},
		helper(asm.FnLoop, "bpf_loop", "5.17", "walk stacks deeper than 255 frames, up to 1024", false),
	}
}

func program(pt ebpf.ProgramType, name, since, use string, required bool) feature {
	return feature{
		Feature{Name: name, Since: since, Use: use, Required: required},
		func() error { return features.HaveProgramType(pt) },
	}
}

func mapType(mt ebpf.MapType, name, since, use string) feature {
	return feature{
		Feature{Name: name, Since: since, Use: use, Required: true},
		func() error { return features.HaveMapType(mt) },
	}
}

func helper(fn asm.BuiltinFunc, name, since, use string, required bool) feature {
	return feature{
		Feature{Name: name, Since: since, Use: use, Required: required},
		func() error { return features.HaveProgramHelper(ebpf.PerfEvent, fn) },
	}
}
