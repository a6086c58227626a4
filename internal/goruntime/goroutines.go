package goruntime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pprofd/pprofd/gopclntab"
	"github.com/pprofd/pprofd/objfile"
)

// ErrNoGoroutines is wrapped by errors that say why a program's goroutines cannot be read.
var ErrNoGoroutines = errors.New("its goroutines cannot be read")

// Memory is a process's memory by run-time address, of one that runs or of one whose memory was kept.
type Memory interface {
	io.ReaderAt
	ReadPieces([]objfile.Piece) error
}

// Goroutines says where a program keeps its goroutines.
type Goroutines struct {
	Layout
	GoroutineOffsets
	Version string
	reasons uint64          // link-time address of runtime.waitReasonStrings; 0: not found
	named   map[byte]string // those that were read: a copy made before the first Read is of another process
	text    [2]uint64
	// counted says that GTrackingSeq counts system calls, too (runtime/proc.go: reentersyscall has called casgstatus up to Go 1.25).
	counted bool
}

// FindGoroutines finds the goroutines of f, whose build information says version. Errors wrap ErrNoGoroutines.
func FindGoroutines(f *objfile.File, version string) (*Goroutines, error) {
	l, err := Find(f, version)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoGoroutines, err)
	}
	rel := parseVersion(version)
	g := &Goroutines{Layout: l, Version: version, counted: rel.minor > 0 && rel.minor <= 25}
	if g.GoroutineOffsets, err = goroutineOffsets(f, rel, &l); err != nil {
		return nil, fmt.Errorf("%w: Go version %q: %w", ErrNoGoroutines, version, err)
	}
	if lacks := g.lacks(); lacks != "" {
		return nil, fmt.Errorf("%w: Go version %q: %s", ErrNoGoroutines, version, lacks)
	}
	mod, err := f.GoModule()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoGoroutines, err)
	}
	g.text = [2]uint64{mod.Text, mod.EText}
	t, err := f.Pclntab()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoGoroutines, err)
	}
	g.reasons = waitReasons(f, t)
	return g, nil
}

// lacks says what is not known that reading goroutines cannot do without.
func (g *Goroutines) lacks() string {
	o := &g.Offsets
	switch {
	case g.Globals.AllGLen == 0 || g.Globals.AllGPtr == 0:
		return "runtime.allgs was not found"
	case o.GSchedSP == 0 || o.GSchedPC == 0 || o.GSchedBP < 16 || o.GSyscallSP == 0 || o.GSyscallPC == 0 || o.GAtomicStatus == 0 || o.GGoid == 0:
		return "where a goroutine keeps its state is unknown"
	case g.size() > maxG:
		return "its goroutines are larger than any that is known"
	}
	return ""
}

// UseDWARF is Layout's. What a file's DWARF says may be anything: errors wrap ErrNoGoroutines where goroutines cannot be read by it, and g is
// of no more use then.
func (g *Goroutines) UseDWARF(f *objfile.File) error {
	if err := g.Layout.UseDWARF(f); err != nil {
		return err
	}
	if lacks := g.lacks(); lacks != "" {
		return fmt.Errorf("%w: by its DWARF, %s", ErrNoGoroutines, lacks)
	}
	return nil
}

// waitReasons finds runtime.waitReasonStrings.
func waitReasons(f *objfile.File, t *gopclntab.Table) uint64 {
	const user = "runtime.waitReason.String"
	p := &program{file: f, table: t, mach: f.Machine(), funcs: t.Lookup(user)}
	return p.variable("runtime.waitReasonStrings", user, 0)
}

// State is what a goroutine does.
type State uint8

// States, by the runtime's numbers (runtime/runtime2.go).
const (
	Runnable  State = gRunnable
	Running   State = gRunning
	Syscall   State = gSyscall
	Waiting   State = gWaiting
	Preempted State = 9  // stopped for the garbage collector
	Leaked    State = 10 // waits for what nobody can do any more, as a garbage collection found out (Go 1.26 and newer)
)

// String is the runtime's word.
func (s State) String() string {
	switch s {
	case Runnable:
		return "runnable"
	case Running:
		return "running"
	case Syscall:
		return "syscall"
	case Waiting:
		return "waiting"
	case Preempted:
		return "preempted"
	case Leaked:
		return "leaked"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Goroutine is what a g said when it was read. It is valid until the next.
type Goroutine struct {
	Addr       uint64 // of the g
	ID, Parent uint64 // Parent is 0 before Go 1.21
	State      State
	Reason     string // why it waits, in the runtime's words; "" where it does not
	WaitSince  int64  // by the process's monotonic clock, ns: when a garbage collection first saw it wait; 0: none has
	GoPC       uint64 // behind the go statement that started it
	StartPC    uint64 // its function
	Locked     bool   // to a thread
	Bubble     uint64 // of testing/synctest; 0: none
	Labels     []Label
	// M is the thread's m that runs it, 0 where none does; LabelsAt is where Labels were read; Stops counts how often it has stopped
	// running, up to 255: it is of use where Sure is set.
	M, LabelsAt uint64
	Stops       uint8

	// PC and SP are where it goes on. Stack is its memory from SP on, or the beginning of it: it ends at StackEnd. Top is what SP
	// is before its first function is called, LR what the link register will be (arm64). There is none of a goroutine that runs.
	PC, SP, LR, StackEnd, Top uint64
	Stack                     []byte
	// Sure says that the runtime would have counted if it had run while its stack was read.
	Sure bool
	// Inconsistent says that it changed whenever it was read: only Addr, ID and what follows from its start are right.
	Inconsistent bool
	// Last says that no more of the stack can be had, and that there will not be another try.
	Last bool
	// Note is the visitor's: what it sets is there in the next try of the same goroutine. Tries counts them.
	Note  uint64
	Tries int
}

// Label is one of runtime/pprof.
type Label struct{ Key, Value string }

// maxG bounds what is read of a g: Go 1.27's has some 500 bytes.
const maxG = 2 << 10

// word of a g's image; 0 where there is no such field.
func word(image []byte, off uint32) uint64 {
	if off == 0 {
		return 0
	}
	return binary.LittleEndian.Uint64(image[off:])
}

// size is how much is read of a g.
func (g *Goroutines) size() int {
	o := &g.Offsets
	return int(max(g.GEnd, (max(o.GM, o.GSchedSP, o.GSchedPC, o.GSchedBP, o.GSyscallSP, o.GSyscallPC, o.GAtomicStatus, o.GGoid, o.GLabels)+8+7)&^7))
}

// same says whether the goroutine has not run between two images, as far as they can tell.
func (g *Goroutines) same(a, b []byte) bool {
	for _, off := range []uint32{g.GSchedSP, g.GSchedPC, g.GSyscallSP, g.GSyscallPC, g.GGoid, g.GLabels, g.GStackTop} {
		if word(a, off) != word(b, off) {
			return false
		}
	}
	lo, hi := binary.LittleEndian.Uint64(a), word(a, 8)
	return lo == binary.LittleEndian.Uint64(b) && hi == word(b, 8) && g.status(a) == g.status(b) &&
		a[g.GWaitReason] == b[g.GWaitReason] && (g.GTrackingSeq == 0 || a[g.GTrackingSeq] == b[g.GTrackingSeq])
}

// status of an image, without the garbage collector's mark.
func (g *Goroutines) status(image []byte) uint32 {
	return binary.LittleEndian.Uint32(image[g.GAtomicStatus:]) &^ gScan
}

// live says whether the status is that of a goroutine that exists.
func live(status uint32) bool { return status != 0 && status != gDead && status != gDeadExtra }

// stopped says whether a goroutine in this status has a stack that stays as it is.
func stopped(status uint32) bool {
	switch State(status) {
	case Runnable, Syscall, Waiting, Preempted, Leaked:
		return true
	}
	return false
}

// decode sets what an image says.
func (g *Goroutines) decode(to *Goroutine, image []byte) {
	to.State = State(g.status(image))
	to.ID, to.Parent = word(image, g.GGoid), word(image, g.GParentGoid)
	to.WaitSince = int64(word(image, g.GWaitSince))
	to.GoPC, to.StartPC = word(image, g.GGoPC), word(image, g.GStartPC)
	to.Locked = word(image, g.GLockedM) != 0
	to.M, to.LabelsAt = word(image, g.GM), word(image, g.GLabels)
	if g.GTrackingSeq != 0 {
		to.Stops = image[g.GTrackingSeq]
	}
	to.PC, to.SP = word(image, g.GSyscallPC), word(image, g.GSyscallSP)
	if to.SP == 0 {
		to.PC, to.SP = word(image, g.GSchedPC), word(image, g.GSchedSP)
		to.LR = word(image, g.GSchedBP-8) // gobuf.lr lies before gobuf.bp in all versions
	}
	to.StackEnd, to.Top = word(image, 8), word(image, g.GStackTop)
	to.Sure = g.GTrackingSeq != 0 && (g.counted || to.State != Syscall)
}

// Verify checks against the live process what was found in its file. Errors wrap ErrUnverified.
func (g *Goroutines) Verify(mem Memory, bias uint64) error {
	borrowed := g.Unproven
	if err := g.Layout.Verify(mem, bias); err != nil || !borrowed {
		return err
	}
	g.Unproven = true
	v := verifier{l: &g.Layout, mem: mem, bias: bias}
	gs, err := v.goroutines()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnverified, err)
	}
	for _, addr := range gs {
		if err := g.verifyG(mem, addr, bias); err != nil {
			return fmt.Errorf("%w: goroutine at %#x: %w", ErrUnverified, addr, err)
		}
	}
	g.Unproven = false
	return nil
}

// verifyG checks one goroutine's further fields. It may change meanwhile: they must be right once.
func (g *Goroutines) verifyG(mem Memory, addr, bias uint64) (err error) {
	image := make([]byte, g.size())
	for range verifyTries {
		if err = readFull(mem, addr, image); err != nil {
			return err
		}
		if !live(g.status(image)) {
			return nil
		}
		if err = g.checkImage(image, bias); err == nil {
			return nil
		}
	}
	return err
}

func (g *Goroutines) checkImage(image []byte, bias uint64) error {
	lo, hi, top := binary.LittleEndian.Uint64(image), word(image, 8), word(image, g.GStackTop)
	for name, pc := range map[string]uint64{"startpc": word(image, g.GStartPC), "gopc": word(image, g.GGoPC)} {
		if pc -= bias; pc < g.text[0] || pc >= g.text[1] {
			return fmt.Errorf("g.%s is %#x, where no function is", name, pc+bias)
		}
	}
	switch {
	case top <= lo || top > hi:
		return fmt.Errorf("g.stktopsp %#x is outside its stack %#x-%#x", top, lo, hi)
	case image[g.GWaitReason] > maxReasons:
		return fmt.Errorf("g.waitreason is %d", image[g.GWaitReason])
	case word(image, g.GLockedM)%8 != 0 || word(image, g.GBubble)%8 != 0 || int64(word(image, g.GWaitSince)) < 0:
		return errors.New("g.lockedm, g.waitsince or g.bubble cannot be what they are")
	}
	return nil
}

// maxReasons: Go 1.27 has some 50.
const maxReasons = 100
