//go:build linux && amd64

package goruntime

import (
	"slices"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// checkDeltas compares with the effect of the instructions on SP, from each function's entry on.
func checkDeltas(t *testing.T, l Layout, s symbols, cgo bool) {
	t.Helper()
	same := func(field string, got int32, fn, callee string) {
		if want := spEffect(t, s, fn, callee); got != want {
			t.Errorf("%s = %d, the instructions say %d", field, got, want)
		}
	}
	same("SigtrampDelta", l.SigtrampDelta, "runtime.sigtramp", "runtime.sigtrampgo")
	same("SystemstackDelta", l.SystemstackDelta, "runtime.systemstack", gosave)
	if l.SystemstackSwitchDelta != l.SystemstackDelta {
		t.Errorf("systemstack_switch has delta %d, systemstack %d", l.SystemstackSwitchDelta, l.SystemstackDelta)
	}
	for _, fn := range []string{"runtime.systemstack", "runtime.sigtramp", "runtime.gogo", "runtime.mcall", "runtime.nanotime1", "time.now"} {
		if src := s.source(t, fn); l.Funcs[fn].Entry != src.addr || l.Funcs[fn].End < src.addr+uint64(len(src.code)) {
			t.Errorf("%s is %#x, want %#x", fn, l.Funcs[fn], src.addr)
		}
	}
	if !cgo {
		return
	}
	same("AsmcgocallDelta", l.AsmcgocallDelta, "runtime.asmcgocall", gosave)
	same("CgocallDelta", l.CgocallDelta, "runtime.cgocall", "runtime.asmcgocall")
	same("CgocallbackDelta", l.CgocallbackDelta, "runtime.cgocallback", "runtime.cgocallbackg")
}

// spEffect adds up pushes, pops and immediate adjustments of SP from fn's entry to its call of callee.
func spEffect(t *testing.T, s symbols, fn, callee string) int32 {
	t.Helper()
	src := s.source(t, fn)
	targets := []uint64{s.syms[callee].Value, s.syms[callee+".abi0"].Value}
	var delta int64
	var lea uint64
	for pc := src.addr; pc < src.addr+uint64(len(src.code)); {
		in, err := x86asm.Decode(src.code[pc-src.addr:], 64)
		if err != nil {
			t.Fatal(err)
		}
		pc += uint64(in.Len)
		imm, _ := in.Args[1].(x86asm.Imm)
		mem, _ := in.Args[1].(x86asm.Mem)
		switch {
		case in.Op == x86asm.PUSH:
			delta += 8
		case in.Op == x86asm.POP:
			delta -= 8
		case in.Op == x86asm.SUB && in.Args[0] == x86asm.RSP:
			delta += int64(imm)
		case in.Op == x86asm.ADD && in.Args[0] == x86asm.RSP:
			delta -= int64(imm)
		case in.Op == x86asm.LEA && mem.Base == x86asm.RIP:
			lea = pc + uint64(int64(int32(mem.Disp))) // x86asm does not extend the sign
		case in.Op == x86asm.CALL:
			to := lea
			if rel, ok := in.Args[0].(x86asm.Rel); ok {
				to = pc + uint64(int64(rel))
			}
			if slices.Contains(targets, to) {
				return int32(delta)
			}
		}
	}
	t.Fatalf("%s does not call %s", fn, callee)
	return 0
}
