package goruntime

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/pprofd/pprofd/objfile"
)

// Verdict is what the visitor of a goroutine makes of it.
type Verdict uint8

// Verdicts.
const (
	Taken    Verdict = iota
	More             // its stack goes on behind what was read of it
	Doubtful         // its stack makes no sense, or not for sure: it is to be read again
)

// ReadGoroutines say what to read, and who takes it.
type ReadGoroutines struct {
	Labels bool
	// Want says, before a goroutine's stack is read, whether it is asked for; nil: all are. It may still do something else when
	// Visit sees it.
	Want func(*Goroutine) bool
	// Visit takes one. It is called again for the same goroutine after More and Doubtful, unless that was the last try.
	Visit func(*Goroutine) (Verdict, error)
	// Buffers are used in place of new ones; nil: there are none to be used.
	Buffers *GoroutineBuffers
}

// GoroutineBuffers is memory that one reading after the other can use: 3.6 MB for 1,000 goroutines, 10 MB at most. The zero value has none.
type GoroutineBuffers struct {
	listed []byte // part of runtime.allgs
	addrs  []uint64
	images []byte // of addrs, each of size bytes
	pieces []objfile.Piece
	runs   []byte
	items  []item
	again  []item
	buf    []byte
}

// Bytes is how much it is.
func (b *GoroutineBuffers) Bytes() int {
	const piece, one = 40, 104 // bytes of an objfile.Piece and an item
	return cap(b.listed) + 8*cap(b.addrs) + cap(b.images) + cap(b.runs) + cap(b.buf) + piece*cap(b.pieces) + one*(cap(b.items)+cap(b.again))
}

// Bounds on what one batch of goroutines takes.
const (
	batchGs      = 1 << 11 // goroutines that are looked at together: 1 MiB
	windowGs     = 320     // whose stacks are read with one system call, and their g before and after it
	firstWindow  = 1 << 10 // bytes of a stack that are read at first; each time that it was too little, windowGrowth times as much
	windowGrowth = 8
	maxWindow    = 1 << 20
	maxLarge     = 8 << 30 // of all windows that are larger than the first: beyond, stacks that need them are cut
	maxWindows   = 4 << 20 // of all stacks in one system call
	maxTries     = 12
	runGap       = 1 << 10 // what lies between two gs that are read in one piece
	maxRun       = 64 << 10
	maxAllGs     = 1 << 28
)

// GoroutineCounts say how a reading went.
type GoroutineCounts struct {
	All          int // gs of the process, dead ones as well
	Inconsistent int // goroutines that changed whenever they were read
	Again        int // readings that were repeated
}

// reading is one Read.
type reading struct {
	*Goroutines
	ReadGoroutines
	mem    Memory
	bias   uint64
	counts GoroutineCounts
	large  uint64 // bytes of windows that are larger than the first

	*GoroutineBuffers
	labels labelReader
	g      Goroutine
}

// item is a goroutine whose stack is to be read.
type item struct {
	addr, sp, end uint64
	tick          uint64 // where its thread's m says how many system calls there were; 0: that does not matter
	window        int
	tries         int
	note          uint64
	last          bool
	piece         int // of its g before its stack
	labels        []Label
	changed       bool // when its labels had been read
}

// Read visits each goroutine of a process; mem is its memory, bias its run-time minus link-time addresses. The process goes on
// meanwhile: a goroutine is what it was at one moment, and another one what it was at another.
//
// Each stack is read between two looks at its g, with one system call. If the two differ it has run meanwhile, and is read again.
// That takes memory for some thousand goroutines, however many there are. Errors wrap ErrNoGoroutines, or are those of mem, of
// Visit and of ctx.
func (g *Goroutines) Read(ctx context.Context, mem Memory, bias uint64, o ReadGoroutines) (GoroutineCounts, error) {
	r := &reading{Goroutines: g, ReadGoroutines: o, mem: mem, bias: bias, GoroutineBuffers: o.Buffers}
	if r.GoroutineBuffers == nil {
		r.GoroutineBuffers = &GoroutineBuffers{}
	}
	r.labels.kind = g.Labels
	n, err := r.count()
	if err != nil {
		return r.counts, err
	}
	for from := uint64(0); from < n; from += batchGs {
		if err := ctx.Err(); err != nil {
			return r.counts, err
		}
		if err := r.batch(from, min(n-from, batchGs)); err != nil {
			return r.counts, err
		}
	}
	return r.counts, nil
}

// Count is how many goroutines the process has, dead ones as well, whose g is kept.
func (g *Goroutines) Count(mem Memory, bias uint64) (int, error) {
	r := &reading{Goroutines: g, mem: mem, bias: bias}
	_, err := r.count()
	return r.counts.All, err
}

func (r *reading) count() (uint64, error) {
	var b [8]byte
	if err := readFull(r.mem, r.Globals.AllGLen+r.bias, b[:]); err != nil {
		return 0, fmt.Errorf("read how many goroutines there are: %w", err)
	}
	n := binary.LittleEndian.Uint64(b[:])
	if n > maxAllGs {
		return 0, fmt.Errorf("%w: runtime.allgs has %d goroutines", ErrNoGoroutines, n)
	}
	r.counts.All = int(n)
	return n, nil
}

// batch visits n goroutines.
func (r *reading) batch(from, n uint64) error {
	if err := r.list(from, n); err != nil {
		return err
	}
	if err := r.readImages(); err != nil {
		return err
	}
	r.items = r.items[:0]
	size := r.size()
	for i, addr := range r.addrs {
		image := r.images[i*size : (i+1)*size]
		if !live(r.status(image)) {
			continue
		}
		r.g = Goroutine{Addr: addr}
		r.decode(&r.g, image)
		if r.Want != nil {
			r.g.Reason = r.reasonOf(image)
			if !r.Want(&r.g) {
				continue
			}
		}
		it := item{addr: addr, window: firstWindow}
		r.plan(&it, image)
		r.items = append(r.items, it)
	}
	return r.drain()
}

// list reads the addresses of n gs. The array moves as it grows; what is there stays where it was in the new one.
func (r *reading) list(from, n uint64) error {
	r.listed = slices.Grow(r.listed[:0], int(8*n))[:8*n]
	b := r.listed
	var head, after [8]byte
	for range maxTries {
		if err := readFull(r.mem, r.Globals.AllGPtr+r.bias, head[:]); err != nil {
			return fmt.Errorf("read where goroutines are: %w", err)
		}
		errArray := readFull(r.mem, binary.LittleEndian.Uint64(head[:])+8*from, b)
		if err := readFull(r.mem, r.Globals.AllGPtr+r.bias, after[:]); err != nil {
			return fmt.Errorf("read where goroutines are: %w", err)
		}
		if head != after {
			continue
		}
		if errArray != nil {
			return fmt.Errorf("%w: runtime.allgs: %w", ErrNoGoroutines, errArray)
		}
		r.addrs = r.addrs[:0]
		for i := range n {
			if addr := binary.LittleEndian.Uint64(b[8*i:]); addr != 0 && addr%8 == 0 && addr < 1<<56 {
				r.addrs = append(r.addrs, addr)
			}
		}
		slices.Sort(r.addrs)
		r.addrs = slices.Compact(r.addrs)
		return nil
	}
	return fmt.Errorf("%w: runtime.allgs moves all the time", ErrNoGoroutines)
}

// readImages reads the gs at addrs. Those that lie beside each other, as the runtime allocates them, are one piece. What cannot be read
// is left out.
func (r *reading) readImages() error {
	size := uint64(r.size())
	r.pieces, r.runs = r.pieces[:0], slices.Grow(r.runs[:0], int(uint64(len(r.addrs))*(size+runGap)))
	for i := 0; i < len(r.addrs); {
		first, end := r.addrs[i], r.addrs[i]+size
		for i++; i < len(r.addrs) && r.addrs[i] <= end+runGap && r.addrs[i]+size-first <= maxRun; i++ {
			end = r.addrs[i] + size
		}
		at := len(r.runs)
		r.runs = r.runs[:at+int(end-first)]
		r.pieces = append(r.pieces, objfile.Piece{Addr: first, Data: r.runs[at:]})
	}
	if err := r.mem.ReadPieces(r.pieces); err != nil {
		return err
	}
	kept, k := r.addrs[:0], 0
	r.images = r.images[:0]
	for _, addr := range r.addrs {
		for addr-r.pieces[k].Addr >= uint64(len(r.pieces[k].Data)) {
			k++
		}
		if p := &r.pieces[k]; p.OK {
			kept = append(kept, addr)
			r.images = append(r.images, p.Data[addr-p.Addr:][:size]...)
		}
	}
	r.addrs = kept
	return nil
}

// plan says what part of a stack it is to read.
func (r *reading) plan(it *item, image []byte) {
	var g Goroutine
	r.decode(&g, image)
	it.sp, it.end, it.tick = 0, 0, 0
	lo := binary.LittleEndian.Uint64(image)
	if !stopped(uint32(g.State)) || g.SP%8 != 0 || g.SP < lo || g.SP >= g.StackEnd {
		return
	}
	it.sp, it.end = g.SP, min(g.StackEnd, g.SP+uint64(it.window))
	it.tick = r.tick(image)
}

// tick is where the thread of a goroutine in a system call notes that it makes one, which says whether it has made another; 0: the
// goroutine's own count says so, or nothing does.
func (r *reading) tick(image []byte) uint64 {
	m := word(image, r.GM)
	if State(r.status(image)) != Syscall || r.counted || r.MSyscallTick == 0 || m == 0 || m%8 != 0 {
		return 0
	}
	return m + uint64(r.MSyscallTick)
}

// drain visits all items, those that must be read again last.
func (r *reading) drain() error {
	for len(r.items) > 0 {
		r.again = r.again[:0]
		for rest := r.items; len(rest) > 0; {
			n, err := r.window(rest)
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
		r.items, r.again = r.again, r.items
	}
	return nil
}

// window reads the first of items, and visits them.
func (r *reading) window(items []item) (n int, err error) {
	size := r.size()
	total := 0
	for n < len(items) && n < windowGs && (n == 0 || total < maxWindows) {
		total += 2*size + 2*tickBytes + int(items[n].end-items[n].sp)
		n++
	}
	items = items[:n]
	r.buf = slices.Grow(r.buf[:0], total)[:total]
	buf := r.buf
	take := func(addr uint64, n int) {
		r.pieces = append(r.pieces, objfile.Piece{Addr: addr, Data: buf[:n:n]})
		buf = buf[n:]
	}
	r.pieces = r.pieces[:0]
	for i := range items {
		it := &items[i]
		it.piece = len(r.pieces)
		take(it.addr, size)
		if it.end == it.sp {
			continue
		}
		if it.tick != 0 {
			take(it.tick, tickBytes)
		}
		take(it.sp, int(it.end-it.sp))
		if it.tick != 0 {
			take(it.tick, tickBytes)
		}
		take(it.addr, size)
	}
	if err := r.mem.ReadPieces(r.pieces); err != nil {
		return n, err
	}
	if r.ReadGoroutines.Labels {
		if err := r.readLabels(items); err != nil {
			return n, err
		}
	}
	for i := range items {
		if err := r.visit(&items[i]); err != nil {
			return n, err
		}
	}
	return n, nil
}

const tickBytes = 4

// imagesOf it: before and after its stack, which is nil where there is none.
func (r *reading) imagesOf(it *item) (before, stack, after []byte, ok bool) {
	p := r.pieces[it.piece:]
	switch {
	case it.end == it.sp:
		return p[0].Data, nil, p[0].Data, p[0].OK
	case it.tick == 0:
		return p[0].Data, p[1].Data, p[2].Data, p[0].OK && p[1].OK && p[2].OK
	}
	ok = p[0].OK && p[1].OK && p[2].OK && p[3].OK && p[4].OK
	return p[0].Data, p[2].Data, p[4].Data, ok && bytes.Equal(p[1].Data, p[3].Data) && r.tick(p[0].Data) == it.tick
}

// visit hands one on, or notes that it must be read again.
func (r *reading) visit(it *item) error {
	before, stack, after, ok := r.imagesOf(it)
	it.last = it.last || it.tries+1 >= maxTries
	if ok && !live(r.status(after)) {
		return nil
	}
	r.g = Goroutine{Addr: it.addr, Tries: it.tries, Note: it.note, Last: it.last}
	r.decode(&r.g, after)
	status := r.status(after)
	if !stopped(status) {
		stack = nil // it runs by now
	}
	moved := stopped(status) && (stack == nil || r.g.SP != it.sp || it.tick != r.tick(after))
	if !ok || it.changed || moved || status == gCopystack || !r.same(before, after) {
		return r.retry(it, after)
	}
	if r.g.State == Waiting || r.g.State == Leaked {
		r.g.Reason = r.reasonOf(after)
	}
	r.g.Stack, r.g.Labels, r.g.Bubble = stack, it.labels, r.bubble(after)
	r.g.Sure = r.g.Sure || it.tick != 0
	verdict, err := r.Visit(&r.g)
	switch {
	case err != nil || verdict == Taken || it.last:
		return err
	case verdict == More:
		r.large += it.end - it.sp
		if it.window >= maxWindow || it.end >= r.g.StackEnd || r.large > maxLarge {
			it.last = true
		}
		it.window = min(it.window*windowGrowth, maxWindow)
	}
	it.note = r.g.Note
	return r.retry(it, after)
}

// retry notes that it is to be read again, or tells the visitor that this makes no sense any more.
func (r *reading) retry(it *item, image []byte) error {
	if it.tries+1 >= maxTries {
		r.counts.Inconsistent++
		r.g.Inconsistent, r.g.Last, r.g.Stack, r.g.Labels = true, true, nil, nil
		_, err := r.Visit(&r.g)
		return err
	}
	r.counts.Again++
	again := item{addr: it.addr, window: it.window, tries: it.tries + 1, note: it.note, last: it.last}
	r.plan(&again, image)
	r.again = append(r.again, again)
	return nil
}

// reasonOf an image, in the words of the process's own runtime.
func (r *reading) reasonOf(image []byte) string {
	n := image[r.GWaitReason]
	if s, ok := r.named[n]; ok {
		return s
	}
	if r.named == nil {
		r.named = make(map[byte]string)
	}
	r.named[n] = r.readReason(n)
	return r.named[n]
}

func (r *reading) readReason(n byte) string {
	if n == 0 { // waitReasonZero
		return ""
	}
	unknown := fmt.Sprintf("wait reason %d", n)
	var header [16]byte
	if r.reasons == 0 || readFull(r.mem, r.reasons+r.bias+16*uint64(n), header[:]) != nil {
		return unknown
	}
	const maxReason = 64
	text := make([]byte, min(binary.LittleEndian.Uint64(header[8:]), maxReason))
	if len(text) == 0 || readFull(r.mem, binary.LittleEndian.Uint64(header[:]), text) != nil || !printable(text) {
		return unknown
	}
	return string(text)
}

func printable(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c < ' ' || c > '~' })
}

// bubble of package testing/synctest.
func (r *reading) bubble(image []byte) uint64 {
	p := word(image, r.GBubble)
	if p == 0 {
		return 0
	}
	var b [8]byte
	at := p + uint64(r.BubbleID)
	if r.BubbleID == 0 {
		if readFull(r.mem, p+uint64(r.BubbleRoot), b[:]) != nil {
			return 0
		}
		at = binary.LittleEndian.Uint64(b[:]) + uint64(r.GGoid)
	}
	if readFull(r.mem, at, b[:]) != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}
