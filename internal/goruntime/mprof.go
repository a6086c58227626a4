package goruntime

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/pprofd/pprofd/objfile"
)

// MemProfile says where a program keeps its memory profile: link-time addresses of variables of the runtime.
// Source: runtime/mprof.go.
type MemProfile struct {
	Buckets uint64 // mbuckets, the head of all buckets
	Rate    uint64 // MemProfileRate
	Cycle   uint64 // mProfCycle, before Go 1.19 mProf.cycle; 0: unknown

	plainCycle bool          // Cycle is the number itself; since Go 1.19 its lowest bit says whether it has been flushed
	patience   time.Duration // for reading it; 0: maxReadTime
	record     int           // bytes of a memRecordCycle: counts of allocations and frees, up to Go 1.26 their bytes, too
}

// ErrNoMemProfile is wrapped where the linker found that nothing reads the profile and switched it off.
var ErrNoMemProfile = errors.New("memory profiling is linked out of the program: nothing in it reads runtime.MemProfile (net/http/pprof and runtime/pprof.WriteHeapProfile do)")

// memProfileReaders are the functions of which one must be linked in for the runtime to profile memory; up to Go 1.22 the
// former, then the latter (cmd/link/internal/ld/lib.go: disableMemoryProfiling).
func memProfileReaders() []string {
	return []string{"runtime.MemProfile", "runtime.memProfileInternal"}
}

// Positions of variables among the distinct pc-relative operands in writable segments of a function that uses them; the
// same in all versions, see FindMemProfile.
const (
	bucketsInStkbucket = 3 // after buckhash and locks
	rateInProfilealloc = 1
	cycleInFree        = 0 // before Go 1.19 after proflock
)

// FindMemProfile finds the memory profile of f, by symbols where there are any, else in the code of functions that use it.
// Errors wrap ErrNoMemProfile where the program has none.
func FindMemProfile(f *objfile.File, version string) (MemProfile, error) {
	t, err := f.Pclntab()
	if err != nil {
		return MemProfile{}, err
	}
	p := &program{file: f, table: t, mach: f.Machine()}
	p.funcs = t.Lookup(append(memProfileReaders(), "runtime.stkbucket", "runtime.profilealloc", "runtime.mProf_Free")...)
	if !p.linked(memProfileReaders()) {
		return MemProfile{}, ErrNoMemProfile
	}
	rel := parseVersion(version)
	m := MemProfile{plainCycle: rel.minor > 0 && rel.minor <= 18, record: recordSize}
	if rel.minor == 0 || rel.minor >= 27 {
		m.record = recordSizeCounts
	}
	m.Buckets = p.variable("runtime.mbuckets", "runtime.stkbucket", bucketsInStkbucket)
	m.Rate = p.variable("runtime.MemProfileRate", "runtime.profilealloc", rateInProfilealloc)
	if m.plainCycle {
		m.Cycle = p.variable("runtime.mProf", "runtime.mProf_Free", cycleInFree+1)
	} else {
		m.Cycle = p.variable("runtime.mProfCycle", "runtime.mProf_Free", cycleInFree)
	}
	if m.Buckets == 0 || m.Rate == 0 {
		return MemProfile{}, fmt.Errorf("%s: where the runtime keeps its memory profile is unknown (stripped, and its code is not as expected)", version)
	}
	return m, nil
}

func (p *program) linked(names []string) bool {
	for _, name := range names {
		if _, ok := p.funcs[name]; ok {
			return true
		}
	}
	return false
}

// variable is the link-time address of a variable: by symbol, else operand k of fn; 0: unknown.
func (p *program) variable(symbol, fn string, k int) uint64 {
	if a, ok := p.file.SymbolAddr(symbol); ok && symbol != "" {
		return a
	}
	src, ok := p.source(fn)
	if !ok {
		return 0
	}
	if r := p.writable(decodeRefs(p.mach, src)); k < len(r) {
		return r[k]
	}
	return 0
}

// Bucket is one allocation site: a stack and a size. Its numbers are of samples, see ReadRate.
type Bucket struct {
	Addr          uint64   // of the bucket in the process: it stays where it is
	Stack         []uint64 // return addresses, run-time, leaf first; valid until the next bucket
	Size          uint64   // bytes of one object
	Allocs, Frees uint64   // objects
}

const (
	// maxCycle is where the runtime's count of cycles wraps (runtime/mprof.go: mProfCycleWrap).
	maxCycle   = futureCycles * (2 << 24)
	recordSize = 4 * 8 // a memRecordCycle up to Go 1.26: allocs, frees, alloc_bytes, free_bytes
	// since Go 1.27 without the bytes, which are the bucket's size times the counts
	recordSizeCounts = 2 * 8
	futureCycles     = 3
)

// ReadRate is MemProfileRate: bytes of allocation for each sample on average; 0: off.
func (m *MemProfile) ReadRate(mem io.ReaderAt, bias uint64) (int64, error) {
	rate, err := readInt(mem, m.Rate+bias)
	if err != nil {
		return 0, fmt.Errorf("read MemProfileRate: %w", err)
	}
	return rate, nil
}

// RecordBytes is how many bytes of a bucket lie behind its stack.
func (m *MemProfile) RecordBytes() int { return (1 + futureCycles) * m.record }

// ReadMode says which events count.
type ReadMode uint8

// What runtime.MemProfile would return now: up to the end of the last garbage collection but one; or all that is known.
const (
	Published ReadMode = iota
	Unpublished
)

// Read calls visit for each allocation site. mem is the process's memory by run-time address. Sites without events are left
// out. The process goes on meanwhile: a garbage collection that ends during Read moves events from one cycle to the next,
// and is told by moved: read again.
//
// Errors wrap ErrTorn where the list is not one of buckets, has no end, or is larger or slower to read than any program's
// is; or are those of mem and of visit.
func (m *MemProfile) Read(mem io.ReaderAt, bias uint64, mode ReadMode, visit func(*Bucket) error) (moved bool, err error) {
	return m.read(newBlocks(mem, m.limit()), bias, mode, visit)
}

func (m *MemProfile) limit() time.Duration { return cmp.Or(m.patience, maxReadTime) }

func (m *MemProfile) read(c *blocks, bias uint64, mode ReadMode, visit func(*Bucket) error) (moved bool, err error) {
	mem := c.mem
	before, err := m.cycle(mem, bias)
	if err != nil {
		return false, err
	}
	w := memWalk{bucketWalk: newBucketWalk(c, memBucket, m.RecordBytes()), cycle: m.record, take: []int{int(before.number % futureCycles)}}
	if m.Cycle == 0 {
		w.take = nil
	}
	if mode == Unpublished {
		w.take = []int{0, 1, 2}
	}
	head := m.Buckets + bias
	if err := w.walk(head, visit); err != nil {
		return false, err
	}
	if w.empty && mode == Published {
		// No garbage collection yet: like the runtime, take what there is.
		w.take = []int{0, 1, 2}
		if err := w.walk(head, visit); err != nil {
			return false, err
		}
	}
	after, err := m.cycle(mem, bias)
	return after != before, err
}

// profCycle is the runtime's count of garbage collections, and whether that one's events have been published.
type profCycle struct {
	number  uint32
	flushed bool
}

func (m *MemProfile) cycle(mem io.ReaderAt, bias uint64) (profCycle, error) {
	if m.Cycle == 0 {
		return profCycle{}, nil
	}
	var b [8]byte
	if err := readFull(mem, m.Cycle+bias, b[:]); err != nil {
		return profCycle{}, fmt.Errorf("read the profile's cycle: %w", err)
	}
	v := binary.LittleEndian.Uint32(b[:])
	c := profCycle{v >> 1, v&1 != 0}
	if m.plainCycle {
		c = profCycle{v, b[4] != 0}
	}
	if c.number >= maxCycle {
		return profCycle{}, fmt.Errorf("%w: its cycle is %d, of at most %d", ErrTorn, c.number, maxCycle)
	}
	return c, nil
}

// memWalk goes along the list of the memory profile's buckets.
type memWalk struct {
	bucketWalk
	cycle  int   // bytes of a memRecordCycle
	take   []int // of the future cycles
	empty  bool  // no events so far
	bucket Bucket
}

func (w *memWalk) walk(head uint64, visit func(*Bucket) error) error {
	w.empty = true
	return w.bucketWalk.walk(head, func(records []byte) error {
		w.count(records)
		if w.bucket.Allocs == 0 && w.bucket.Frees == 0 {
			return nil
		}
		w.empty = false
		w.bucket.Addr, w.bucket.Size, w.bucket.Stack = w.addr, w.size, w.stack
		return visit(&w.bucket)
	})
}

// count adds up the cycles that are asked for.
func (w *memWalk) count(records []byte) {
	w.bucket.Allocs, w.bucket.Frees = 0, 0
	w.add(records)
	for _, n := range w.take {
		w.add(records[(1+n)*w.cycle:])
	}
}

func (w *memWalk) add(record []byte) {
	w.bucket.Allocs += binary.LittleEndian.Uint64(record)
	w.bucket.Frees += binary.LittleEndian.Uint64(record[8:])
}

// Unsample estimates from n sampled objects of a size how many there were, and their bytes, if one byte in rate was
// sampled on average (runtime/pprof/protomem.go: scaleHeapSample). A rate of 1 or less means that all were.
func Unsample(n, size uint64, rate int64) (objects, bytes int64) {
	total := n * size
	switch {
	case n == 0 || size == 0:
		return 0, 0
	case rate <= 1:
		return int64(n), int64(total)
	}
	scale := 1 / (1 - math.Exp(-float64(total)/float64(n)/float64(rate)))
	return int64(float64(n) * scale), int64(float64(total) * scale)
}
