// Package unwind turns what the kernel side recorded of a user stack into the complete stack.
//
// A frame pointer walk loses the direct caller wherever the interrupted function has no frame of its own yet, no longer, or
// never: prologues, epilogues, leaf functions, assembly. Go's pc tables know, for every instruction, how far the return
// address is from SP. So each segment is walked twice at once: by SP delta, within the copied window of the stack, and
// along the recorded chain of frame records, which takes over as soon as both agree on whose frame the pointer points to.
// Stack switches of the runtime (systemstack, mcall, morestack, cgo, signals) separate the segments of a sample.
package unwind

import (
	"maps"

	"github.com/pprofd/pprofd/objfile"
)

// SegmentKind says where a piece of stack was entered.
type SegmentKind uint8

// Segment kinds.
const (
	SegmentStart  SegmentKind = 1 + iota // at the interrupted registers
	SegmentSched                         // at g.sched of the goroutine that switched to the system stack
	SegmentResume                        // below a callback from C, at the g.sched saved there
	SegmentSignal                        // at the registers that a signal handler interrupted
)

// End says why a segment's chain of frame records ended.
type End uint8

// Ends.
const (
	EndZero   End = 1 + iota // frame pointer 0
	EndBounds                // left the stack
	EndFault                 // unreadable memory
	EndDepth                 // too many frames
	EndSwitch                // goes on in the next segment
)

// Stack says on which stack a segment's SP lies.
type Stack uint8

// Stacks.
const (
	StackUnknown Stack = iota
	StackGo
	StackG0
	StackSignal
)

// Segment is a piece of user stack: registers, memory from SP on (arm64: from SP-16), and the return addresses of the
// frame records that start at FP.
type Segment struct {
	Kind           SegmentKind
	End            End
	Stack          Stack
	Scanned        bool // FP is not the register's value but was found on the stack
	PC, SP, FP, LR uint64
	Window         []uint64
	Frames         []uint64
}

// Input is the user part of a sample.
type Input struct {
	Segments  []Segment
	Truncated bool // the walk stopped at its limit of frames
}

// Status says how good a stack is.
type Status uint8

// Statuses.
const (
	Complete  Status = iota // down to the thread's or goroutine's first function
	Truncated               // deeper frames were cut at the limit
	Broken                  // frames are missing in the middle or at the end
)

const (
	maxSteps = 16      // SP delta steps in one segment
	maxSpans = 1 << 18 // of all images: 4 MiB, and what slices have to spare
)

// Unwinder completes stacks. It caches what it learns of program counters, and belongs to one goroutine.
type Unwinder struct {
	images map[objfile.ImageID]*image
	table  *objfile.Images
	spans  int // of all images
	recent recent
	last   [256]struct { // images that were asked for lately, by their last byte
		id    objfile.ImageID
		image *image
	}
	w       walk
	touched int // by Fetch: of no meaning, but what is not used the compiler leaves out
}

// New returns an Unwinder for addresses of images.
func New(images *objfile.Images) *Unwinder {
	return &Unwinder{table: images, images: map[objfile.ImageID]*image{}}
}

// Forget drops what it has learned of images that the table holds no more: after spaces were closed.
func (u *Unwinder) Forget() {
	maps.DeleteFunc(u.images, func(id objfile.ImageID, im *image) bool {
		gone := u.table.Get(id) == nil
		if gone {
			u.spans -= len(im.spans.list)
		}
		return gone
	})
	clear(u.last[:])
}

// Complete appends the stack to dst, leaf first: the leaf's own address, then the address of each call (return address
// minus one). It does not allocate once the program counters near the leaf are known and dst has room.
func (u *Unwinder) Complete(dst []objfile.Addr, space *objfile.Space, in *Input) ([]objfile.Addr, Status) {
	w := &u.w
	*w = walk{u: u, space: space, dst: dst}
	for i := range in.Segments {
		w.hasNext = i+1 < len(in.Segments)
		if w.segment(&in.Segments[i]); w.done {
			break
		}
	}
	status := w.status(in)
	dst, w.dst, w.space = w.dst, nil, nil
	return dst, status
}

// status judges how the walk ended.
func (w *walk) status(in *Input) Status {
	switch {
	case in.Truncated && !w.done:
		return Truncated
	case w.broken:
		return Broken
	case w.done || !w.lastGo:
		return Complete
	case len(in.Segments) > 0 && in.Segments[len(in.Segments)-1].End == EndZero:
		return Complete
	}
	return Broken
}
