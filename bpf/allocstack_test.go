package bpf

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestProbesHaveStacksOfTheirOwn: programs at uprobes may be preempted, and must not share a stack with others on their CPU.
// What a program with a private stack begins with is known for x86-64: it adds this CPU's part to R9 (emit_priv_frame_ptr in
// arch/x86/net/bpf_jit_comp.c).
func TestProbesHaveStacksOfTheirOwn(t *testing.T) {
	needs.BPF(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("machine code is known for amd64 only")
	}
	p, err := LoadAlloc(AllocOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for name, prog := range map[string]*ebpf.Program{
		"alloc_refill": p.objs.AllocRefill, "alloc_next_free": p.objs.AllocNextFree, "alloc_large": p.objs.AllocLarge,
		"alloc_release": p.objs.AllocRelease, "alloc_profile": p.objs.AllocProfile, "alloc_malloc_large": p.objs.AllocMallocLarge,
	} {
		info, err := prog.Info()
		if err != nil {
			t.Fatal(err)
		}
		code, ok := info.JitedInsns()
		if !ok || len(code) == 0 {
			t.Fatalf("%s: no machine code is to be had", name)
		}
		if bytes.Contains(code, []byte{0x65, 0x4c, 0x03, 0x0c, 0x25}) { // add %gs:disp32, %r9
			t.Errorf("%s has a stack that all its runs on a CPU share", name)
		}
	}
}
