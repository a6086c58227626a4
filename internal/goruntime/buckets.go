package goruntime

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pprofd/pprofd/objfile"
)

// ErrTorn is wrapped where what lies in the process's memory is no profile of the runtime's, or none that could be read to its end.
var ErrTorn = errors.New("the profile in the process's memory is damaged")

// Bounds on what a process may make us read, and keep of it: the lists are its own, and may be anything.
const (
	maxBuckets     = 1 << 19
	maxBucketStack = 1 << 10 // runtime/extern.go: debug.profstackdepth is at most 1024
	maxStackWords  = 1 << 23 // of all stacks: 64 MiB
	bucketHeader   = 0x30    // next, allnext, typ, hash, size, nstk
)

// Types of buckets: bucketType of runtime/mprof.go.
const (
	memBucket   = 1
	blockBucket = 2
	mutexBucket = 3
)

// bucketWalk goes along a list of buckets of runtime/mprof.go: a header, a stack, and a record, which is the caller's to read.
type bucketWalk struct {
	mem    *blocks
	typ    uint64 // of all its buckets
	record int    // bytes behind the stack

	addr, size uint64   // of the bucket that was read last
	stack      []uint64 // its return addresses, leaf first
	buf        []byte   // of maxBucketBytes
}

const maxBucketBytes = bucketHeader + maxBucketStack*8 + (1+futureCycles)*recordSize

// newBucketWalk reads into what mem has for that: one walk at a time.
func newBucketWalk(mem *blocks, typ uint64, record int) bucketWalk {
	if mem.bucket == nil {
		mem.bucket, mem.stack = make([]byte, maxBucketBytes), make([]uint64, 0, usualStack)
	}
	return bucketWalk{mem: mem, typ: typ, record: record, stack: mem.stack, buf: mem.bucket}
}

const usualStack = 64 // frames

// walk calls visit with the record of each bucket of the list whose head is at address head.
func (w *bucketWalk) walk(head uint64, visit func(record []byte) error) error {
	first, err := w.head(head)
	if err != nil {
		return err
	}
	circle := circleFinder{limit: 1}
	n, words := 0, 0
	for addr := first; addr != 0; n++ {
		next, record, err := w.read(addr)
		words += len(w.stack)
		switch {
		case err != nil:
			return err
		case n >= maxBuckets:
			return fmt.Errorf("%w: more than %d sites", ErrTorn, maxBuckets)
		case words > maxStackWords:
			return fmt.Errorf("%w: more than %d frames, in %d sites", ErrTorn, maxStackWords, n)
		case circle.closes(next):
			return fmt.Errorf("%w: the list of its sites leads back to %#x", ErrTorn, next)
		}
		addr = next
		if err := visit(record); err != nil {
			return err
		}
	}
	return nil
}

// head reads the head of a list at an address: where the first bucket is.
func (w *bucketWalk) head(addr uint64) (first uint64, err error) {
	if err := readFull(w.mem.mem, addr, w.buf[:8]); err != nil {
		return 0, fmt.Errorf("read the head of the profile: %w", err)
	}
	return binary.LittleEndian.Uint64(w.buf), nil
}

// read reads the bucket at addr and returns where the next one is, and its record, which is valid until the next read.
func (w *bucketWalk) read(addr uint64) (next uint64, record []byte, err error) {
	h := w.buf[:bucketHeader]
	if err := w.mem.read(addr, h); err != nil {
		return 0, nil, unreadable(addr, err)
	}
	word := binary.LittleEndian.Uint64
	nstk := word(h[0x28:])
	if addr%8 != 0 || word(h[0x10:]) != w.typ || nstk > maxBucketStack {
		return 0, nil, fmt.Errorf("%w: at %#x there is no bucket", ErrTorn, addr)
	}
	next, w.addr, w.size = word(h[8:]), addr, word(h[0x20:])
	rest := w.buf[bucketHeader : bucketHeader+nstk*8+uint64(w.record)]
	if err := w.mem.read(addr+bucketHeader, rest); err != nil {
		return 0, nil, unreadable(addr, err)
	}
	w.stack = w.stack[:0]
	for i := range nstk {
		w.stack = append(w.stack, word(rest[i*8:]))
	}
	return next, rest[nstk*8:], nil
}

// unreadable: that a list leads nowhere is its fault, that the process has exited is not.
func unreadable(addr uint64, err error) error {
	if errors.Is(err, objfile.ErrProcessGone) {
		return fmt.Errorf("read the profile: %w", err)
	}
	return fmt.Errorf("%w: bucket at %#x: %w", ErrTorn, addr, err)
}

// circleFinder finds out whether a list leads back to an earlier element, in a constant amount of memory and after a few
// times its length: it waits for one element to come again, a later one each time that it has waited twice as long (Brent's
// algorithm).
type circleFinder struct {
	mark         uint64
	steps, limit int
}

func (c *circleFinder) closes(addr uint64) bool {
	if addr == c.mark && addr != 0 {
		return true
	}
	if c.steps++; c.steps == c.limit {
		c.mark, c.steps, c.limit = addr, 0, 2*c.limit
	}
	return false
}
