package goruntime

import (
	"fmt"
	"io"
	"time"
)

const (
	blockSize = 64 << 10
	maxBlocks = 64 // 4 MiB
	pageBytes = 4 << 10
	// maxFetches and maxReadTime bound one pass: what is spread over more than 2 GiB, or comes from a server of the process's
	// choice (userfaultfd), is not read to its end. 100,000 buckets are 700 fetches, and 30 ms.
	maxFetches  = 1 << 15
	maxReadTime = 30 * time.Second
)

// blocks reads a process's memory in large pieces and keeps the last ones: what the runtime allocates one after the other,
// such as buckets, costs few system calls. It is for one pass, for it does not see what changes meanwhile.
type blocks struct {
	mem     io.ReaderAt
	limit   time.Duration // of spent
	fetches int
	spent   time.Duration // in reads of mem
	slots   [maxBlocks]block
	free    [][]byte // of earlier passes
	// for who walks along buckets
	bucket []byte
	stack  []uint64
}

func newBlocks(mem io.ReaderAt, limit time.Duration) *blocks { return &blocks{mem: mem, limit: limit} }

// again begins a pass in the memory of the last one.
func (c *blocks) again(mem io.ReaderAt, limit time.Duration) {
	for i := range c.slots {
		if c.slots[i].data != nil {
			c.free = append(c.free, c.slots[i].data)
		}
	}
	*c = blocks{mem: mem, limit: limit, free: c.free, bucket: c.bucket, stack: c.stack}
}

// end lets go of the process's memory.
func (c *blocks) end() { c.again(nil, 0) }

// bytes is how much memory c holds on to, between two passes.
func (c *blocks) bytes() int { return len(c.free) * blockSize }

// buffer is a block's.
func (c *blocks) buffer() []byte {
	n := len(c.free)
	if n == 0 {
		return make([]byte, blockSize)
	}
	b := c.free[n-1]
	c.free = c.free[:n-1]
	return b
}

// block is a piece of memory; first is its address plus one, 0: none.
type block struct {
	first uint64
	data  []byte
}

// read reads all of b.
func (c *blocks) read(addr uint64, b []byte) error {
	if int64(addr) < 0 || addr+uint64(len(b)) < addr {
		return fmt.Errorf("address %#x is not in user space", addr)
	}
	for len(b) > 0 {
		data := c.at(addr)
		if data == nil {
			return c.fetch(addr, b)
		}
		n := copy(b, data)
		b, addr = b[n:], addr+uint64(n)
	}
	return nil
}

// at returns what is known from addr on; nil: its block cannot be read as a whole, nor the page.
func (c *blocks) at(addr uint64) []byte {
	for _, size := range []uint64{blockSize, pageBytes} {
		start := addr &^ (size - 1)
		s := &c.slots[addr/blockSize%maxBlocks]
		if s.first == start+1 && uint64(len(s.data)) >= size {
			return s.data[addr-start:]
		}
		if cap(s.data) < blockSize {
			s.data = c.buffer()
		}
		s.data = s.data[:size]
		if c.fetch(start, s.data) == nil {
			s.first = start + 1
			return s.data[addr-start:]
		}
		s.first = 0
	}
	return nil
}

// fetch reads all of b from the process.
func (c *blocks) fetch(addr uint64, b []byte) error {
	switch {
	case c.fetches >= maxFetches:
		return fmt.Errorf("it is spread over more than %d MiB of memory", maxFetches*blockSize>>20)
	case c.spent > c.limit:
		return fmt.Errorf("reading %d pieces of it took %v", c.fetches, c.spent.Round(time.Millisecond))
	}
	c.fetches++
	start := time.Now()
	err := readFull(c.mem, addr, b)
	c.spent += time.Since(start)
	return err
}
