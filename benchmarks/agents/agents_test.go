package agents

import (
	"strings"
	"testing"
)

// TestBpftraceSamples: counts stand behind stacks, which may themselves hold brackets and colons.
func TestBpftraceSamples(t *testing.T) {
	const output = `Attaching 2 probes...

@[
	4ab88b main.burn[go.shape.int]+11 (/tmp/a: b/deep)
, ]: 12
@[
	4ab89b main.burn+27 (/tmp/deep)
, 
	ffffffff81000e06 asm_sysvec_apic_timer_interrupt+22
]: 30
`
	if n, err := bpftraceSamples([]byte(output)); n != 42 || err != nil {
		t.Errorf("%d, %v; want 42", n, err)
	}
	if _, err := bpftraceSamples([]byte("ERROR: no such probe")); err == nil || !strings.Contains(err.Error(), "no such probe") {
		t.Errorf("error %v does not say what bpftrace says", err)
	}
}
