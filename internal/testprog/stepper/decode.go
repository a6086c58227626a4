//go:build linux && (amd64 || arm64)

package stepper

// Regs are the registers that a walk of the stack begins with.
type Regs struct {
	PC, SP, FP uint64
	LR         uint64 // arm64: the link register
	G          uint64 // arm64: R28, where Go code has its g
	TLS        uint64 // amd64: the FS base, below which the thread has its g
}

// instruction is what the shadow stack needs to know of one.
type instruction struct {
	call bool
	size int
	skip uint64 // arm64: where a sequence that begins here and cannot be stepped through has ended; 0: it can
}

// decoder remembers instructions by address: the program's text does not change.
type decoder struct {
	p    *process
	seen map[uint64]instruction
}

func newDecoder(p *process) *decoder { return &decoder{p, map[uint64]instruction{}} }

func (d *decoder) at(pc uint64) instruction {
	in, ok := d.seen[pc]
	if !ok {
		in = d.decode(pc)
		d.seen[pc] = in
	}
	return in
}
