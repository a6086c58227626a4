// Package goruntime knows the state of the Go runtime from outside: field offsets by Go version.
//
// Find makes a Layout in these steps:
//
//  1. The Go version selects a row of the generated table (offsets_table.go).
//  2. The code of a few assembly functions (systemstack, nanotime1, ...) is decoded: it gives the TLS slot of g,
//     fields that move in patch releases, and a cross-check of the row (machine.go, x86.go, a64.go).
//  3. Where the version has no row, or row and code disagree, DWARF answers where it is present (dwarf.go);
//     else what the code gave is used and the rest is Missing.
//  4. The pc tables give the stack-switch constants and the ranges of functions that unwinding must know.
//
// Layout.Verify then checks the result against the live process.
package goruntime

// Offsets are byte offsets of fields of runtime.g and runtime.m; sources: runtime/runtime2.go of each Go version.
// 0 means unknown: of the fields here only m.g0 is at 0, in all versions.
type Offsets struct {
	GM, GSchedSP, GSchedPC, GSchedBP, GSyscallSP, GSyscallPC, GGoid, GLabels uint32 // stack.lo is 0, stack.hi is 8 in all versions
	MG0, MProcid, MGsignal, MCurg                                            uint32
	MVDSOSP, MVDSOPC                                                         uint32 // they move in patch releases: decoded from code, never from the table

	GAtomicStatus uint32
}

// field names one member of Offsets.
type field struct {
	name string // as the runtime's source has it
	ptr  func(*Offsets) *uint32
}

// fields are all members of Offsets that can be unknown, in the order of Layout.Missing.
func fields() []field {
	return []field{
		{"g.m", func(o *Offsets) *uint32 { return &o.GM }},
		{"g.sched.sp", func(o *Offsets) *uint32 { return &o.GSchedSP }},
		{"g.sched.pc", func(o *Offsets) *uint32 { return &o.GSchedPC }},
		{"g.sched.bp", func(o *Offsets) *uint32 { return &o.GSchedBP }},
		{"g.syscallsp", func(o *Offsets) *uint32 { return &o.GSyscallSP }},
		{"g.syscallpc", func(o *Offsets) *uint32 { return &o.GSyscallPC }},
		{"g.atomicstatus", func(o *Offsets) *uint32 { return &o.GAtomicStatus }},
		{"g.goid", func(o *Offsets) *uint32 { return &o.GGoid }},
		{"g.labels", func(o *Offsets) *uint32 { return &o.GLabels }},
		{"m.procid", func(o *Offsets) *uint32 { return &o.MProcid }},
		{"m.gsignal", func(o *Offsets) *uint32 { return &o.MGsignal }},
		{"m.curg", func(o *Offsets) *uint32 { return &o.MCurg }},
		{"m.vdsoSP", func(o *Offsets) *uint32 { return &o.MVDSOSP }},
		{"m.vdsoPC", func(o *Offsets) *uint32 { return &o.MVDSOPC }},
	}
}

// merge overwrites o's fields with those that from knows.
func (o *Offsets) merge(from Offsets) {
	for _, f := range fields() {
		if v := *f.ptr(&from); v != 0 {
			*f.ptr(o) = v
		}
	}
}

// conflicts names the fields that both know and on which they differ.
func (o Offsets) conflicts(other Offsets) []string {
	var names []string
	for _, f := range fields() {
		a, b := *f.ptr(&o), *f.ptr(&other)
		if a != 0 && b != 0 && a != b {
			names = append(names, f.name)
		}
	}
	return names
}

// missing names the fields that o does not know.
func (o Offsets) missing() []string {
	var names []string
	for _, f := range fields() {
		if *f.ptr(&o) == 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// LabelKind says how g.labels is laid out.
type LabelKind uint8

// Kinds of labels.
const (
	LabelsNone  LabelKind = iota // unknown
	LabelsMap                    // *map[string]string, Go <= 1.23
	LabelsSlice                  // *struct{list []struct{key, value string}}, Go >= 1.24
)

// Range is a function's link-time addresses [Entry, End).
type Range struct{ Entry, End uint64 }

// Deltas are distances from SP to the return address slot (amd64) or to the caller's SP (arm64)
// at the places where the unwinder crosses from one stack to another. 0: not linked in or not found;
// then the name stands in Layout.Missing (in systemstack of Go <= 1.20, 0 is the true value).
type Deltas struct {
	// SigtrampDelta holds at the return address of sigtramp's call of sigtrampgo:
	// SP + delta is the SP at sigtramp's entry, where the kernel's rt_sigframe begins.
	SigtrampDelta  int32
	SigtrampReturn uint64 // that return address, link-time
	// CgocallbackDelta holds at the return address of cgocallback's call of cgocallbackg,
	// which runs on the stack of m.curg; the slot there holds the pc that curg had.
	CgocallbackDelta  int32
	CgocallbackReturn uint64 // that return address, link-time
	// RacecallReturn is the return address of racecall's call of the race detector (runtime/race_amd64.s), link-time; 0:
	// there is none, or not for amd64.
	RacecallReturn uint64
	// CgocallDelta holds at the return address of cgocall's call of asmcgocall.
	CgocallDelta int32
	// AsmcgocallDelta and SystemstackDelta hold where gosave_systemstack_switch stores the
	// goroutine's SP in g.sched.sp: sched.sp + delta is the slot of the return address into the caller.
	AsmcgocallDelta, SystemstackDelta int32
	// SystemstackSwitchDelta holds at SystemstackSwitchPC, which g.sched.pc pretends.
	SystemstackSwitchDelta int32
	SystemstackSwitchPC    uint64 // link-time
}

// Globals are link-time addresses of variables of the runtime; 0: not found.
type Globals struct {
	AllGPtr, AllGLen uint64 // runtime.allgptr (**g), runtime.allglen (uintptr)
	M0               uint64 // runtime.m0, the m of the main thread
}

// Layout is all that the sampler must know about one Go program.
type Layout struct {
	Offsets
	Labels LabelKind
	// TLS is the offset of g from the thread pointer (amd64 FS base; arm64 TPIDR_EL0).
	// HasTLS is false where g lives in a register alone (arm64 without cgo: R28),
	// and where TLSSlot is set until ResolveTLS has read it.
	TLS    int64
	HasTLS bool
	// TLSSlot is the link-time address of the GOT entry that holds TLS in shared objects; 0: none.
	TLSSlot uint64
	// Source says where Offsets came from: "DWARF", "table go1.26", "code".
	Source string
	// Unproven is set where the row of another Go version was borrowed: goroutine ids and labels
	// must not be used unless Verify has succeeded.
	Unproven bool
	// Missing names what is not known ("g.labels", "TLS", "SigtrampDelta"), for the user.
	Missing []string

	Deltas
	Funcs   map[string]Range // by name as in stackFuncs; absent where not linked in
	Globals Globals
}

// TableSource is the prefix of Source for offsets from the generated table.
const TableSource = "table go1."

const sourceDWARF = "DWARF"
