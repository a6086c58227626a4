package bpf

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// older are helpers of Linux 5.4 and before that every program may take for granted (include/uapi/linux/bpf.h).
var older = []asm.BuiltinFunc{
	asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnKtimeGetNs, asm.FnGetCurrentPidTgid,
	asm.FnGetSmpProcessorId, asm.FnProbeRead,
}

// probed are the helpers that Features asks for, by their names there.
var probed = map[asm.BuiltinFunc]string{
	asm.FnGetCurrentTaskBtf: "bpf_get_current_task_btf", asm.FnTaskPtRegs: "bpf_task_pt_regs", asm.FnProbeReadUser: "bpf_probe_read_user",
	asm.FnRingbufOutput: "bpf_ringbuf_output", asm.FnRingbufQuery: "bpf_ringbuf_query", asm.FnGetStack: "bpf_get_stack",
	asm.FnGetNsCurrentPidTgid: "bpf_get_ns_current_pid_tgid", asm.FnLoop: "bpf_loop", asm.FnProbeReadKernel: "bpf_probe_read_kernel",
}

// The compiled programs are the truth about what is asked of a kernel.
func TestFeaturesListsWhatTheProgramsUse(t *testing.T) {
	spec, err := loadCpu()
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, f := range wanted() {
		listed = append(listed, f.Name)
	}
	for name, prog := range spec.Programs {
		for _, ins := range prog.Instructions {
			fn := asm.BuiltinFunc(ins.Constant)
			if !ins.IsBuiltinCall() || slices.Contains(older, fn) {
				continue
			}
			if !slices.Contains(listed, probed[fn]) {
				t.Errorf("%s calls %v, which Features does not ask for", name, fn)
			}
		}
	}
	maps := map[ebpf.MapType]string{ebpf.Hash: "hash maps", ebpf.PerCPUArray: "per-CPU array maps", ebpf.RingBuf: "ring buffer maps"}
	for name, m := range spec.Maps {
		if m.Type != ebpf.Array && !slices.Contains(listed, maps[m.Type]) { // .rodata is an array
			t.Errorf("map %s is a %v, which Features does not ask for", name, m.Type)
		}
	}
}

// The kernel's version is another witness of what it has; distributions add features to old kernels, but take none away.
func TestFeaturesAgreeWithTheKernelsVersion(t *testing.T) {
	needs.BPF(t)
	code, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	if code < 6<<16|1<<8 {
		needs.Missing(t, "linux6.1", fmt.Sprintf("Linux 6.1, this is %d.%d", code>>16, code>>8&0xff))
	}
	for _, f := range Features() {
		if !f.OK || f.Fix != "" {
			t.Errorf("%s: %v, %q, but it is in Linux since %s", f.Name, f.Err, f.Fix, f.Since)
		}
	}
}
