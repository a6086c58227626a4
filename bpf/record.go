package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
)

// ErrFlushed is returned by Read once the ring buffer is empty after Flush.
var ErrFlushed = ringbuf.ErrFlushed

// ErrMalformed is wrapped by errors of Decode.
var ErrMalformed = errors.New("malformed record")

// Type tells the records apart.
type Type uint8

// Record types.
const (
	TypeSample = Type(cpuRecordTypeRECORD_SAMPLE)
	TypeExec   = Type(cpuRecordTypeRECORD_EXEC)
	TypeExit   = Type(cpuRecordTypeRECORD_EXIT)
)

// Kind is the profile kind of a sample.
type Kind uint8

// KindCPU is the kind of a sample whose weight is CPU time, KindAlloc of one whose weight is bytes that were allocated.
const (
	KindCPU   = Kind(cpuSampleKindKIND_CPU)
	KindAlloc = Kind(cpuSampleKindKIND_ALLOC)
)

// Flags of a sample.
type Flags uint16

// Flag bits.
const (
	FlagDepth      = Flags(cpuSampleFlagSAMPLE_DEPTH)     // cut at 1,024 frames (255 without bpf_loop)
	FlagLabels     = Flags(cpuSampleFlagSAMPLE_LABELS)    // labels were cut
	FlagKernel     = Flags(cpuSampleFlagSAMPLE_KERNEL)    // hit in kernel mode
	FlagNoG        = Flags(cpuSampleFlagSAMPLE_NO_G)      // the goroutine could not be read
	FlagOnG0       = Flags(cpuSampleFlagSAMPLE_ON_G0)     // a system stack was in use
	FlagLabelError = Flags(cpuSampleFlagSAMPLE_LABEL_ERR) // labels could not be read
)

// SegmentKind says where a piece of stack was entered.
type SegmentKind uint8

// Segment kinds, see struct segment_header of sample.h.
const (
	SegmentStart  = SegmentKind(cpuSegmentKindSEGMENT_START)
	SegmentSched  = SegmentKind(cpuSegmentKindSEGMENT_SCHED)
	SegmentResume = SegmentKind(cpuSegmentKindSEGMENT_RESUME)
	SegmentSignal = SegmentKind(cpuSegmentKindSEGMENT_SIGNAL)
)

// End says why the frame pointer chain of a segment ended.
type End uint8

// Stack says on which stack the SP of a segment lies.
type Stack uint8

// Ends and stacks, see enum segment_end and enum stack_id of sample.h.
const (
	EndZero   = End(cpuSegmentEndEND_ZERO)
	EndBounds = End(cpuSegmentEndEND_BOUNDS)
	EndFault  = End(cpuSegmentEndEND_FAULT)
	EndDepth  = End(cpuSegmentEndEND_DEPTH)
	EndSwitch = End(cpuSegmentEndEND_SWITCH)

	StackUnknown = Stack(cpuStackIdSTACK_UNKNOWN)
	StackGo      = Stack(cpuStackIdSTACK_CURG)
	StackG0      = Stack(cpuStackIdSTACK_G0)
	StackSignal  = Stack(cpuStackIdSTACK_SIGNAL)
)

// Segment is a piece of user stack.
type Segment struct {
	Kind           SegmentKind
	PC, SP, FP, LR uint64
	Window         []uint64 // memory from SP
	Frames         []uint64 // return addresses of the frame pointer chain from FP
	Scanned        bool     // FP was found by scanning
	End            End
	Stack          Stack
}

// Sample is one event in one thread. Its slices are its Record's own, until that is read or decoded into again.
type Sample struct {
	Kind      Kind
	Flags     Flags
	TID, CPU  uint32
	Time      uint64 // CLOCK_MONOTONIC, ns
	Goid      uint64
	Value     int64    // weight, in the kind's unit: ns for CPU, bytes for Alloc
	Size      int64    // Alloc: bytes of one object
	Kernel    []uint64 // leaf first
	Segments  []Segment
	NumLabels int
	Labels    []byte // as LabelIter reads them; equal bytes mean equal labels
}

// Record is a Sample, or an event in the life of a process, in order with the samples.
type Record struct {
	Type      Type
	PID       uint32
	StartTime uint64 // of the process, clock ticks since boot: (PID, StartTime) names a process, PID alone does not
	Sample    Sample
	More      bool // another one was there already: the next Read will not wait

	words []uint64
}

const (
	recordWords  = 2
	sampleWords  = 8
	segmentWords = 5
)

// Decode reads one record from the bytes that the programs wrote.
func (r *Record) Decode(b []byte) error {
	if len(b) < recordWords*8 || len(b)%8 != 0 {
		return fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	w := r.copyWords(b)
	r.Type, r.PID, r.StartTime = Type(w[0]), uint32(w[0]>>32), w[1]
	if r.Type != TypeSample {
		return nil
	}
	return r.Sample.decode(w, b)
}

// copyWords takes b, whose words are in this machine's order, for which the programs were compiled. One word after the other
// would take ten times as long as copying the bytes.
func (r *Record) copyWords(b []byte) []uint64 {
	n := len(b) / 8
	r.words = slices.Grow(r.words[:0], n)[:n]
	copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(r.words))), 8*n), b)
	return r.words
}

func (s *Sample) decode(w []uint64, b []byte) error {
	if len(w) < sampleWords {
		return fmt.Errorf("%w: sample of %d words", ErrMalformed, len(w))
	}
	s.Kind, s.Flags = Kind(w[0]>>8), Flags(w[0]>>16)
	s.TID, s.CPU, s.Time, s.Goid, s.Value = uint32(w[2]), uint32(w[2]>>32), w[3], w[4], int64(w[5])
	kernel, segments := int(uint16(w[6])), int(uint16(w[6]>>16))
	s.NumLabels, s.Size = int(uint16(w[6]>>32)), int64(w[7])
	rest := w[sampleWords:]
	if kernel > len(rest) || segments > int(cpuMaxSegments) {
		return fmt.Errorf("%w: %d kernel frames, %d segments in %d words", ErrMalformed, kernel, segments, len(rest))
	}
	s.Kernel, rest = rest[:kernel], rest[kernel:]
	s.Segments = s.Segments[:0]
	for range segments {
		var seg Segment
		var ok bool
		if seg, rest, ok = decodeSegment(rest); !ok {
			return fmt.Errorf("%w: segment beyond the record's end", ErrMalformed)
		}
		s.Segments = append(s.Segments, seg)
	}
	s.Labels = append(s.Labels[:0], b[len(b)-8*len(rest):]...) // b is what the next record will be read into
	return nil
}

// cpuMaxSegments is MAX_SEGMENTS of sample.h, with room.
const cpuMaxSegments = 16

func decodeSegment(w []uint64) (seg Segment, rest []uint64, ok bool) {
	if len(w) < segmentWords {
		return seg, nil, false
	}
	frames, window := int(uint16(w[4])), int(uint16(w[4]>>16))/8
	seg = Segment{PC: w[0], SP: w[1], FP: w[2], LR: w[3],
		Kind: SegmentKind(w[4] >> 32), Scanned: w[4]>>40&0xff != 0, End: End(w[4] >> 48), Stack: Stack(w[4] >> 56)}
	w = w[segmentWords:]
	if frames+window > len(w) {
		return seg, nil, false
	}
	seg.Window, seg.Frames = w[:window:window], w[window:window+frames]
	return seg, w[window+frames:], true
}

// Label is one pprof label. KeyCut and ValueCut say that the key or value was longer than 256 bytes.
type Label struct {
	Key, Value       string
	KeyCut, ValueCut bool
}

// AppendLabels decodes the labels of a sample.
func (s *Sample) AppendLabels(dst []Label) ([]Label, error) {
	b := s.Labels
	for range s.NumLabels {
		if len(b) < 8 {
			return dst, fmt.Errorf("%w: label beyond the record's end", ErrMalformed)
		}
		k, v := int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
		l := Label{KeyCut: binary.LittleEndian.Uint16(b[4:]) != 0, ValueCut: binary.LittleEndian.Uint16(b[6:]) != 0}
		b = b[8:]
		kw, vw := (k+7)&^7, (v+7)&^7
		if kw+vw > len(b) {
			return dst, fmt.Errorf("%w: label of %d and %d bytes", ErrMalformed, k, v)
		}
		l.Key, l.Value = string(b[:k]), string(b[kw:kw+v])
		dst = append(dst, l)
		b = b[kw+vw:]
	}
	return dst, nil
}
