package goruntime

import "io"

const (
	blockSize = 64 << 10
	maxBlocks = 64 // 4 MiB
	pageBytes = 4 << 10
)

// blocks reads a process's memory in large pieces and keeps the last ones: what the runtime allocates one after the other,
// such as buckets, costs few system calls. It is for one pass, for it does not see what changes meanwhile.
type blocks struct {
	mem   io.ReaderAt
	slots [maxBlocks]block
}

// block is a piece of memory; first is its address plus one, 0: none.
type block struct {
	first uint64
	data  []byte
}

// read reads all of b.
func (c *blocks) read(addr uint64, b []byte) error {
	if int64(addr) < 0 || addr+uint64(len(b)) < addr {
		return readFull(c.mem, addr, b)
	}
	for len(b) > 0 {
		data := c.at(addr)
		if data == nil {
			return readFull(c.mem, addr, b)
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
			s.data = make([]byte, blockSize)
		}
		s.data = s.data[:size]
		if readFull(c.mem, start, s.data) == nil {
			s.first = start + 1
			return s.data[addr-start:]
		}
		s.first = 0
	}
	return nil
}
