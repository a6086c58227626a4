package agents

import (
	"strings"
	"testing"
	"time"
)

// TestPeer: the command has what was asked for in its places.
func TestPeer(t *testing.T) {
	o := Sampling{PIDs: []int{7, 8}, Hz: 99, D: 1500 * time.Millisecond}
	cmd := Peer("profiler -p {pid} -all {pids} -F {hz} -t {seconds}").Command(t.Context(), nil, o)
	if got, want := cmd.Args[len(cmd.Args)-1], "profiler -p 7 -all 7,8 -F 99 -t 1.5"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSeveralProcesses: bpftrace is told of several processes by a map, of one by its number.
func TestSeveralProcesses(t *testing.T) {
	one, several := Sampling{PID: 7, Hz: 99}, Sampling{PIDs: []int{7, 8}, Hz: 99}
	if got := one.bpftrace(); !strings.Contains(got, "/pid==7/") || strings.Contains(got, "wanted") {
		t.Error(got)
	}
	if got := several.bpftrace(); !strings.Contains(got, "@wanted[7] = 1; @wanted[8] = 1; }") || !strings.Contains(got, "/@wanted[pid]/") {
		t.Error(got)
	}
}

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
