package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
)

// stacksOf are the samples of a profile as "count frame < frame", without the frames of the mapping [vdso].
func stacksOf(p *profile.Profile) (list []string) {
	for _, s := range p.Sample {
		var names []string
		for _, l := range s.Location {
			if l.Mapping.File != "[vdso]" {
				names = append(names, l.Line[0].Function.Name)
			}
		}
		list = append(list, strings.Repeat("*", int(s.Value[0]))+" "+strings.Join(names, " < "))
	}
	return list
}

var testVDSO = profile.Mapping{Start: 0x7f6655211000, Limit: 0x7f6655213000, File: "[vdso]"}

// TestPerf: what perf script prints: type arguments with blanks, kernel frames, blanks in file names, inlined frames.
func TestPerf(t *testing.T) {
	const out = `
	          10a44e main.frameless (/tmp/a dir/mixed)
	           867c0 main.(*worker).x-fm (/tmp/a dir/mixed)
	           867b0 main.(*worker).y (/tmp/a dir/mixed)
	           867b1 main.(*worker).y-fm (/tmp/a dir/mixed)
	           867c0 main.main.func1 (/tmp/a dir/mixed)
	           867c1 runtime.goexit.abi0 (/tmp/a dir/mixed)


	ffffffff821f5127 exc_page_fault ([kernel.kallsyms])
	          10b967 main.quick[go.shape.struct { Name string "json:\"name\"" }] (/tmp/mixed)
	          10b968 main.work (inlined)

	    7f6655211b46 [unknown] ([vdso])
	          10b969 time.now (/tmp/mixed)
`
	var b builder
	if err := b.perf(out); err != nil {
		t.Fatal(err)
	}
	vdso := testVDSO
	p, err := b.profile(&vdso)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"* main.frameless < main.(*worker).x < main.(*worker).y < main.(*worker).y-fm < runtime.goexit.abi0",
		`* exc_page_fault < main.quick[go.shape.struct { Name string "json:\"name\"" }] < main.work`,
		"* time.now",
	}
	if diff := cmp.Diff(want, stacksOf(p)); diff != "" {
		t.Error(diff)
	}
	nameAs(&profile.Profile{Function: []*profile.Function{{Name: "main.quick[...]"}}}, p)
	if got := stacksOf(p)[1]; got != "* exc_page_fault < main.quick[...] < main.work" {
		t.Errorf("beside short names: %s", got)
	}
	if err := b.perf("what is this"); err == nil {
		t.Error("no error for a line that is no frame")
	}
}

// TestBpftrace: the stacks of a map, with counts, offsets, frames without a name, and kernel stacks behind those of the user.
func TestBpftrace(t *testing.T) {
	const out = `Attaching 2 probes...


@[
	50b8b9 main.quick[go.shape.struct { Name string "json:\"a+b\""; }]+313 (/tmp/mixed)
	4867c1 runtime.goexit.abi0+1 (/tmp/mixed)
, ]: 2
@[
	7f6655211b46 0x7f6655211b46 ([unknown])
	4885a0 time.now+128 (/tmp/mixed)
, 
	ffffffff81000e06 asm_sysvec_apic_timer_interrupt+22
]: 1
`
	var b builder
	if err := b.bpftrace(out); err != nil {
		t.Fatal(err)
	}
	vdso := testVDSO
	p, err := b.profile(&vdso)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`** main.quick[go.shape.struct { Name string "json:\"a+b\""; }] < runtime.goexit.abi0`,
		"* time.now < asm_sysvec_apic_timer_interrupt",
	}
	if diff := cmp.Diff(want, stacksOf(p)); diff != "" {
		t.Error(diff)
	}
	if err := (&builder{}).bpftrace("ERROR: no such probe"); err == nil || !strings.Contains(err.Error(), "no such probe") {
		t.Errorf("error %v does not say what bpftrace says", err)
	}
}
