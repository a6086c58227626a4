package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// older are helpers of Linux 5.4 and before that every program may take for granted (include/uapi/linux/bpf.h).
var older = []asm.BuiltinFunc{
	asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnKtimeGetNs, asm.FnGetCurrentPidTgid,
	asm.FnGetSmpProcessorId, asm.FnProbeRead, asm.FnGetPrandomU32, asm.FnTailCall,
}

// probed are the helpers that Features asks for, by their names there.
var probed = map[asm.BuiltinFunc]string{
	asm.FnGetCurrentTaskBtf: "bpf_get_current_task_btf", asm.FnTaskPtRegs: "bpf_task_pt_regs", asm.FnProbeReadUser: "bpf_probe_read_user",
	asm.FnRingbufOutput: "bpf_ringbuf_output", asm.FnRingbufQuery: "bpf_ringbuf_query", asm.FnGetStack: "bpf_get_stack",
	asm.FnGetNsCurrentPidTgid: "bpf_get_ns_current_pid_tgid", asm.FnLoop: "bpf_loop", asm.FnProbeReadKernel: "bpf_probe_read_kernel",
	asm.FnSnprintf: "bpf_snprintf",
}

// The compiled programs are the truth about what is asked of a kernel.
func TestFeaturesListsWhatTheProgramsUse(t *testing.T) {
	for _, load := range []func() (*ebpf.CollectionSpec, error){loadCpu, loadKsyms, loadAlloc, loadOom} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		checkListed(t, spec)
	}
}

func checkListed(t *testing.T, spec *ebpf.CollectionSpec) {
	t.Helper()
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
	maps := map[ebpf.MapType]string{ebpf.Hash: "hash maps", ebpf.PerCPUArray: "per-CPU array maps", ebpf.RingBuf: "ring buffer maps",
		ebpf.LRUHash: "LRU hash maps"}
	for name, m := range spec.Maps {
		old := m.Type == ebpf.Array || m.Type == ebpf.ProgramArray // .rodata is an array; the others are of Linux 4.2
		if !old && !slices.Contains(listed, maps[m.Type]) {
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
	for _, f := range Features() {
		var major, minor uint32
		if _, err := fmt.Sscanf(f.Since, "%d.%d", &major, &minor); err != nil {
			t.Fatalf("%s: since %q: %v", f.Name, f.Since, err)
		}
		since := major<<16 | minor<<8
		if code >= since && (!f.OK || f.Fix != "") {
			t.Errorf("%s: %v, %q, but it is in Linux since %s", f.Name, f.Err, f.Fix, f.Since)
		}
		if !f.OK && !errors.Is(f.Err, ErrNotSupported) {
			t.Errorf("%s: %v, want an error that says that the kernel lacks it", f.Name, f.Err)
		}
	}
}

// Kernels that are too old are booted by make test-kernels.
func TestLoadSaysWhatTheKernelLacks(t *testing.T) {
	needs.BPF(t)
	p, err := Load(Options{})
	if err == nil {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	lacks := false
	for _, f := range Features() {
		if !f.Required || f.OK {
			continue
		}
		lacks = true
		if err == nil || !strings.Contains(err.Error(), f.Name+" (Linux "+f.Since+")") {
			t.Errorf("error %v, want it to name %s and Linux %s", err, f.Name, f.Since)
		}
	}
	t.Logf("load: %v", err)
	if lacks != (err != nil) || lacks && (!errors.Is(err, ErrNotSupported) || errors.Is(err, os.ErrPermission)) {
		t.Errorf("error %v; lacks required features: %t", err, lacks)
	}
}

func TestLacking(t *testing.T) {
	const task, loop = "bpf_get_current_task_btf", "bpf_loop"
	no := fmt.Errorf("helper: %w", ebpf.ErrNotSupported)
	for name, tt := range map[string]struct {
		all  []Feature
		want string // "" is no error
	}{
		"all is there":             {[]Feature{{Name: task, Required: true, OK: true}}, ""},
		"an optional one is not":   {[]Feature{{Name: loop, Err: no}}, ""},
		"we may not ask":           {[]Feature{{Name: task, Required: true, Err: os.ErrPermission}}, ""},
		"a required one is not":    {[]Feature{{Name: task, Since: "5.11", Required: true, Err: no}, {Name: loop, Err: no}}, "lacks bpf_get_current_task_btf (Linux 5.11)"},
		"two required ones aren't": {[]Feature{{Name: "a", Since: "1", Required: true, Err: no}, {Name: "b", Since: "2", Required: true, Err: no}}, "lacks a (Linux 1), b (Linux 2)"},
	} {
		t.Run(name, func(t *testing.T) {
			err := lacking(tt.all)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.want) || !errors.Is(err, ErrNotSupported)) {
				t.Errorf("lacking = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRingGrowsWithCPUs(t *testing.T) {
	for cpus, want := range map[int]int{1: 1 << 20, 16: 1 << 20, 17: 2 << 20, 256: 16 << 20, 8192: 64 << 20} {
		if got := ringBytes(cpus); got != want {
			t.Errorf("%d CPUs: %d, want %d", cpus, got, want)
		}
	}
}

func TestWakeupBytes(t *testing.T) {
	for _, c := range []struct{ ring, cpus, hz, want int }{
		{1 << 20, 2, 99, 1 << 19},
		{1 << 20, 2, 1, 1 << 19},
		{1 << 20, 3, 99, 1<<20 - 2*3*99<<10}, // two seconds of all CPUs are left
		{1 << 20, 2, 999, 1 << 18},
		{16 << 20, 256, 99, 4 << 20},
		{1 << 20, 2, 0, 1 << 18}, // nobody knows how much comes
	} {
		if got := wakeupBytes(c.ring, c.cpus, c.hz); got != c.want {
			t.Errorf("%d bytes, %d CPUs at %d Hz: %d, want %d", c.ring, c.cpus, c.hz, got, c.want)
		}
	}
}
