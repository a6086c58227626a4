//go:build linux && amd64

package stepper

import "golang.org/x/arch/x86/x86asm"

// instruction is what the shadow stack needs to know of one.
type instruction struct {
	call bool
	size int
}

// decoder remembers instructions by address: the program's text does not change.
type decoder struct {
	p    *process
	seen map[uint64]instruction
}

func newDecoder(p *process) *decoder { return &decoder{p, map[uint64]instruction{}} }

// at decodes the instruction at pc. One that x86asm does not know (VEX) is no call.
func (d *decoder) at(pc uint64) instruction {
	if in, ok := d.seen[pc]; ok {
		return in
	}
	var code [15]byte // the longest instruction
	n, _ := d.p.ReadAt(code[:], int64(pc))
	inst, err := x86asm.Decode(code[:n], 64)
	in := instruction{call: err == nil && inst.Op == x86asm.CALL, size: inst.Len}
	d.seen[pc] = in
	return in
}
