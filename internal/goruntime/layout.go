// Package goruntime knows the state of the Go runtime from outside: field offsets by Go version.
package goruntime

// Offsets are byte offsets of fields of runtime.g and runtime.m; sources: runtime/runtime2.go of each Go version.
type Offsets struct {
	GM, GSchedSP, GSchedPC, GSchedBP, GSyscallSP, GSyscallPC, GGoid, GLabels uint32 // stack.lo is 0, stack.hi is 8 in all versions
	MG0, MProcid, MGsignal, MCurg                                            uint32
	MVDSOSP, MVDSOPC                                                         uint32 // 0: unknown (they move in patch releases)
}

// LabelKind says how g.labels is laid out.
type LabelKind uint8

const (
	LabelsNone  LabelKind = iota // unknown
	LabelsMap                    // *map[string]string, Go <= 1.23
	LabelsSlice                  // *struct{list []struct{key, value string}}, Go >= 1.24
)

// Layout is all that the sampler must know about one Go program.
type Layout struct {
	Offsets
	Labels LabelKind
	// TLS is the offset of g from the thread pointer (amd64 FS base; arm64 TPIDR_EL0).
	// HasTLS is false where g lives in a register alone (arm64 without cgo: R28).
	TLS    int64
	HasTLS bool
	// Source says where Offsets came from: "DWARF", "table go1.26", "code".
	Source string
}
