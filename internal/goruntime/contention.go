package goruntime

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pprofd/pprofd/objfile"
)

// Contention says where a program keeps its profiles of blocking and of contended mutexes: link-time addresses of variables of
// the runtime. Source: runtime/mprof.go.
type Contention struct {
	// Wrappers says that stacks have functions that the compiler made, such as methods of embedded types: since Go 1.23 they are
	// walked by frame pointers, and runtime/pprof shows of them those into which nothing is inlined.
	Wrappers bool

	lists    [2]uint64 // bbuckets and xbuckets; which of them is which their buckets say
	rates    [2]uint64 // blockprofilerate, mutexprofilerate
	ticks    uint64    // ticks.val, the clock ticks in a second; 0: nothing in the program asks for it
	unscaled bool      // up to Go 1.19: of contended mutexes those that were sampled are counted

	patience time.Duration // for reading one; 0: maxReadTime
}

// ContentionKind is one of the two profiles.
type ContentionKind uint8

// Kinds of contention.
const (
	Block ContentionKind = iota // who waited, for channels, mutexes and the like
	Mutex                       // who held the mutexes that others waited for
)

// Contended is what the runtime has counted at one place.
type Contended struct {
	Addr  uint64   // of the bucket in the process: it stays where it is
	Stack []uint64 // return addresses, run-time, leaf first; since Go 1.23 without those of inlined calls. Valid until the next.
	Count int64    // how often somebody waited
	Ticks int64    // of the processor's clock (runtime.cputicks), for how long
}

// Positions of variables among the distinct pc-relative operands in writable segments of a function that uses them, the same in
// Go 1.18 to 1.27, with cgo, as PIE and on arm64.
const (
	listsInStkbucket      = 4 // xbuckets and bbuckets, in a program built without inlining the other way around
	rateInBlockevent      = 0 // also in SetBlockProfileRate
	ticksInTicksPerSecond = 0 // ticks.val
)

// ErrNoContention is wrapped where a program's profiles of blocking and mutexes cannot be found.
var ErrNoContention = errors.New("where the runtime keeps its profiles of blocking and mutexes is unknown (stripped, and its code is not as expected)")

// FindContention finds the profiles of f, by symbols where there are any, else in the code of functions that use them.
func FindContention(f *objfile.File, version string) (Contention, error) {
	t, err := f.Pclntab()
	if err != nil {
		return Contention{}, err
	}
	p := &program{file: f, table: t, mach: f.Machine()}
	p.funcs = t.Lookup("runtime.stkbucket", "runtime.blockevent", "runtime.SetBlockProfileRate", "runtime.semacquire1",
		"runtime.tickspersecond", "runtime.ticksPerSecond")
	rel := parseVersion(version)
	c := Contention{unscaled: rel.minor > 0 && rel.minor <= 19, Wrappers: rel.minor == 0 || rel.minor >= 23}
	c.lists[0] = p.variable("runtime.bbuckets", "runtime.stkbucket", listsInStkbucket+1)
	c.lists[1] = p.variable("runtime.xbuckets", "runtime.stkbucket", listsInStkbucket)
	for _, fn := range []string{"runtime.blockevent", "runtime.SetBlockProfileRate"} {
		if c.rates[Block] == 0 {
			c.rates[Block] = p.variable("runtime.blockprofilerate", fn, rateInBlockevent)
		}
	}
	c.rates[Mutex] = p.variableAfter("runtime.mutexprofilerate", "runtime.semacquire1", c.rates[Block])
	for _, fn := range []string{"runtime.ticksPerSecond", "runtime.tickspersecond"} { // since, before Go 1.21
		if c.ticks == 0 {
			c.ticks = p.variable("", fn, ticksInTicksPerSecond)
		}
	}
	if c.lists[0] == 0 || c.lists[1] == 0 || c.rates[Block] == 0 || c.rates[Mutex] == 0 {
		return Contention{}, fmt.Errorf("%s: %w", version, ErrNoContention)
	}
	return c, nil
}

// variableAfter is the link-time address of a variable: by symbol, else the operand of fn that follows another one; 0: unknown.
func (p *program) variableAfter(symbol, fn string, other uint64) uint64 {
	if a, ok := p.file.SymbolAddr(symbol); ok {
		return a
	}
	src, ok := p.source(fn)
	if !ok || other == 0 {
		return 0
	}
	refs := p.writable(decodeRefs(p.mach, src))
	if i := slices.Index(refs, other); i >= 0 && i+1 < len(refs) {
		return refs[i+1]
	}
	return 0
}

// ContentionRates are what the process has set; 0: off.
type ContentionRates struct {
	Block int64 // one event in so many ticks of waiting is counted, and all that take longer (runtime.SetBlockProfileRate)
	Mutex int64 // one in so many (runtime.SetMutexProfileFraction)
}

// Of returns the rate of a kind.
func (r ContentionRates) Of(kind ContentionKind) int64 {
	if kind == Mutex {
		return r.Mutex
	}
	return r.Block
}

// ReadRates reads the rates that the process has set.
func (c *Contention) ReadRates(mem io.ReaderAt, bias uint64) (r ContentionRates, err error) {
	for i, to := range []*int64{Block: &r.Block, Mutex: &r.Mutex} {
		n, err := readInt(mem, c.rates[i]+bias)
		if err != nil {
			return r, fmt.Errorf("read the rates of the profiles of blocking and mutexes: %w", err)
		}
		*to = max(n, 0)
	}
	return r, nil
}

func readInt(mem io.ReaderAt, addr uint64) (int64, error) {
	var b [8]byte
	if err := readFull(mem, addr, b[:]); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(b[:])), nil
}

// ContentionScale says what the counts of a process mean.
type ContentionScale struct {
	PerSecond int64 // ticks
	Factor    int64 // by which count and ticks are to be multiplied
}

// ReadScale reads what the counts of a kind mean, whose rates are r. The process finds out how fast its clock is when it is first
// asked; before that it is asked of this machine, whose clocks go alike to a few millionths.
func (c *Contention) ReadScale(mem io.ReaderAt, bias uint64, kind ContentionKind, r ContentionRates) (s ContentionScale, err error) {
	s.Factor = 1
	if c.unscaled && kind == Mutex {
		s.Factor = r.Mutex
	}
	if c.ticks != 0 {
		if s.PerSecond, err = readInt(mem, c.ticks+bias); err != nil {
			return s, fmt.Errorf("read the speed of the process's clock: %w", err)
		}
	}
	if s.PerSecond <= 0 {
		s.PerSecond, err = ticksPerSecond()
	}
	return s, err
}

var ownTicks = regexp.MustCompile(`(?m)^cycles/second=(\d+)$`)

// ticksPerSecond is how fast runtime.cputicks goes on this machine: what this process's own profile says, once and for all.
var ticksPerSecond = sync.OnceValues(func() (int64, error) {
	var b bytes.Buffer
	if err := pprof.Lookup("block").WriteTo(&b, 1); err != nil {
		return 0, fmt.Errorf("find out the speed of the processor's clock: %w", err)
	}
	found := ownTicks.FindSubmatch(b.Bytes())
	if found == nil {
		return 0, fmt.Errorf("the speed of the processor's clock is not in this process's own profile of blocking: %.100q", b.Bytes())
	}
	return strconv.ParseInt(string(found[1]), 10, 64)
})

// Apply turns what was counted into numbers of events and nanoseconds, as runtime/pprof does (printCountCycleProfile of
// runtime/pprof/pprof.go; up to Go 1.19 scaleMutexProfile).
func (s ContentionScale) Apply(count, ticks int64) (events, nanoseconds int64) {
	nanos := float64(ticks) / (float64(s.PerSecond) / 1e9) * float64(s.Factor)
	return wide(float64(count), count, s.Factor), clamp(nanos)
}

// BlockRate is what the process has given to runtime.SetBlockProfileRate, in nanoseconds: that makes whole ticks of it, down.
func (s ContentionScale) BlockRate(ticks int64) int64 {
	ns := clamp(float64(ticks) * 1e9 / float64(s.PerSecond))
	if ns < math.MaxInt64 && clamp(float64(ns)*float64(s.PerSecond)/1e9) < ticks {
		ns++
	}
	return ns
}

// wide is n times factor, whose float64 is f.
func wide(f float64, n, factor int64) int64 {
	if f*float64(factor) >= math.MaxInt64 {
		return math.MaxInt64
	}
	return n * factor
}

// clamp makes an integer of f, 0 of what is negative or no number.
func clamp(f float64) int64 {
	switch {
	case !(f > 0):
		return 0
	case f >= math.MaxInt64:
		return math.MaxInt64
	}
	return int64(f)
}

// Read calls visit for each place of a kind. mem is the process's memory by run-time address. The process goes on meanwhile:
// what it counts at a place may be told with the count and not yet with the ticks.
//
// Errors wrap ErrTorn where the list is not one of buckets, has no end, or is larger or slower to read than any program's is;
// or are those of mem and of visit.
func (c *Contention) Read(mem io.ReaderAt, bias uint64, kind ContentionKind, visit func(*Contended) error) error {
	return c.read(newBlocks(mem, c.limit()), bias, kind, visit)
}

func (c *Contention) limit() time.Duration { return cmp.Or(c.patience, maxReadTime) }

// contentionRecord is the size of a blockRecord: count float64, cycles int64.
const contentionRecord = 16

// logicalStack stands before a stack that has the return addresses of inlined calls (runtime/tracestack.go: logicalStackSentinel,
// since Go 1.23). Where they are missing they are found by what calls them, so that it makes no difference.
const logicalStack = ^uint64(0)

func (c *Contention) read(mem *blocks, bias uint64, kind ContentionKind, visit func(*Contended) error) error {
	w := newBucketWalk(mem, blockBucket+uint64(kind), contentionRecord)
	head, ok, err := c.list(&w, bias)
	if err != nil || !ok {
		return err
	}
	var at Contended
	return w.walk(head, func(record []byte) error {
		stack := w.stack
		if len(stack) > 0 && stack[0] == logicalStack {
			stack = stack[1:]
		}
		count := clamp(math.Float64frombits(binary.LittleEndian.Uint64(record)))
		if kind == Block {
			count = max(count, 1) // as runtime.BlockProfile has it
		}
		at = Contended{w.addr, stack, count, max(int64(binary.LittleEndian.Uint64(record[8:])), 0)}
		return visit(&at)
	})
}

// list is the address of the head of the list of w's type; !ok: nothing was counted yet.
func (c *Contention) list(w *bucketWalk, bias uint64) (head uint64, ok bool, err error) {
	for _, list := range c.lists {
		first, err := w.head(list + bias)
		if err != nil {
			return 0, false, err
		}
		if first == 0 {
			continue
		}
		typ, err := w.typeAt(first)
		switch {
		case err != nil:
			return 0, false, err
		case typ == w.typ:
			return list + bias, true, nil
		case typ != blockBucket && typ != mutexBucket:
			return 0, false, fmt.Errorf("%w: at %#x there is no bucket", ErrTorn, first)
		}
	}
	return 0, false, nil
}

// typeAt reads the type of the bucket at addr.
func (w *bucketWalk) typeAt(addr uint64) (uint64, error) {
	h := w.buf[:bucketHeader]
	if err := w.mem.read(addr, h); err != nil {
		return 0, unreadable(addr, err)
	}
	return binary.LittleEndian.Uint64(h[0x10:]), nil
}

// ContentionRecords are the places of one reading, in little memory: 40 bytes each and 8 for each frame. They need the process no
// more.
type ContentionRecords struct{ r MemRecords }

// ReadAll is Read into r, in the place of what r held. After an error r holds what was read before.
func (c *Contention) ReadAll(mem io.ReaderAt, bias uint64, kind ContentionKind, r *ContentionRecords) error {
	return r.r.fill(mem, c.limit(), func(b *blocks) error {
		return c.read(b, bias, kind, func(at *Contended) error {
			r.r.add(memRecord{addr: at.Addr, allocs: uint64(at.Count), frees: uint64(at.Ticks)}, at.Stack)
			return nil
		})
	})
}

// Keep has r keep what reading takes, up to 4 MiB, for one reading after the other.
func (r *ContentionRecords) Keep() { r.r.Reuse = true }

// Len is how many places there are.
func (r *ContentionRecords) Len() int { return r.r.Len() }

// Bytes is how much memory r holds on to.
func (r *ContentionRecords) Bytes() int { return r.r.Bytes() }

// All yields the places in the order of reading. Each is valid until the next.
func (r *ContentionRecords) All(yield func(*Contended) bool) {
	var at Contended
	for b := range r.r.All {
		at = Contended{b.Addr, b.Stack, int64(b.Allocs), int64(b.Frees)}
		if !yield(&at) {
			return
		}
	}
}
