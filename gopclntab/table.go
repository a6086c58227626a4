package gopclntab

import (
	"errors"
	"io"
)

// Image says where the tables of one Go module lie. All addresses are link-time virtual addresses.
type Image struct {
	PCHeader uint64 // the pclntab header (runtime.pcHeader)
	Text     uint64 // moduledata.text
	EText    uint64 // moduledata.etext
	GoFunc   uint64 // moduledata.gofunc (Go 1.18+); 0: inline trees cannot be read
}

// Table answers questions about the program counters of one Go module.
// It is not safe for concurrent use: it owns a small page cache.
type Table struct{}

// Open checks the header at im.PCHeader and returns the table. r is addressed by link-time
// virtual address: ReadAt(p, addr) reads the image's memory at addr. Nothing beyond the header is read.
func Open(r io.ReaderAt, im Image) (*Table, error) { return nil, errors.New("gopclntab: not built") }

// Find returns the function that covers pc.
func (t *Table) Find(pc uint64) (Func, bool) { return Func{}, false }

// Lookup finds functions by their full names ("runtime.systemstack"); the result has their entries.
func (t *Table) Lookup(names ...string) map[string]Func { return nil }

// Func is one function of a Table: a small value, cheap to copy.
type Func struct {
	t          *Table
	Entry, End uint64 // link-time addresses [Entry, End)
}

// Flag bits of runtime._func.flag (internal/abi/symtab.go).
const (
	FlagTopFrame = 1 << iota
	FlagSPWrite
	FlagAsm
)

// Name is the name as runtime.FuncForPC(pc).Name() prints it ("main.f[...]").
func (f Func) Name() string { return "" }

// Flags are the FlagXxx bits.
func (f Func) Flags() uint8 { return 0 }

// SPDelta returns the distance from SP to the return address slot at pc (amd64),
// or to the caller's SP (arm64), before the instruction at pc executes.
func (f Func) SPDelta(pc uint64) (int32, bool) { return 0, false }

// Frame is one source-level frame.
type Frame struct {
	Func, File      string
	Line, StartLine int  // StartLine is 0 before Go 1.20
	Inlined         bool // into the next frame of the slice
	Wrapper         bool // a compiler-generated wrapper, which runtime/pprof elides
}

// AppendFrames appends the frames at pc, innermost first: more than one where calls were inlined.
// pc is used as is: pass the address of the call, not the return address.
func (f Func) AppendFrames(dst []Frame, pc uint64) []Frame { return dst }
