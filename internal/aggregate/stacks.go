package aggregate

import (
	"unsafe"

	"github.com/pprofd/pprofd/objfile"
)

// stackSet numbers distinct stacks from 0. Processes of one program share stacks, and so their memory.
type stackSet struct {
	hash   hasher
	index  index
	list   arena[stackEntry]
	frames arena[uint32] // numbers of addrs, stack after stack
	addrs  addrSet
}

// stackEntry is one distinct stack.
type stackEntry struct {
	hash  stackHash
	first uint32 // in frames
	n     uint32
}

func newStackSet(h hasher) stackSet {
	return stackSet{hash: h, index: newIndex(), addrs: newAddrSet(h)}
}

// find returns the number of a known stack of n addresses.
func (s *stackSet) find(h stackHash, n int) (number uint32, ok bool) {
	for slot := s.index.slot(h.slot); s.index.slots[slot] != 0; slot = s.index.next(slot) {
		i, ok := s.index.at(slot, h.slot)
		if !ok {
			continue
		}
		if e := s.list.at(i - 1); e.hash == h && int(e.n) == n {
			return uint32(i - 1), true
		}
	}
	return 0, false
}

// insert adds a stack that is not known.
func (s *stackSet) insert(h stackHash, stack []objfile.Addr) uint32 {
	first := uint32(s.frames.n)
	if s.addrs.list.n >= manyEntries {
		s.addrs.fetch(stack)
	}
	for _, a := range stack {
		s.frames.push(s.addrs.intern(a))
	}
	s.list.push(stackEntry{hash: h, first: first, n: uint32(len(stack))})
	s.index.add(h.slot, s.list.n, func(i int) uint64 { return s.list.at(i).hash.slot })
	return uint32(s.list.n - 1)
}

// numbers are those of a stack's addresses in addrs.
func (s *stackSet) numbers(dst []uint32, n uint32) []uint32 {
	e := s.list.at(int(n))
	for i := range int(e.n) {
		dst = append(dst, *s.frames.at(int(e.first) + i))
	}
	return dst
}

func (s *stackSet) addr(number uint32) objfile.Addr { return *s.addrs.list.at(int(number)) }

func (s *stackSet) bytes() int {
	return s.list.bytes() + s.frames.bytes() + s.addrs.list.bytes() + 4*(len(s.index.slots)+len(s.addrs.index.slots))
}

// growth is the most by which a new stack of n addresses lets bytes grow.
func (s *stackSet) growth(n int) int {
	const entrySize, addrSize = int(unsafe.Sizeof(stackEntry{})), int(unsafe.Sizeof(objfile.Addr{}))
	return s.list.growth(1)*entrySize + s.frames.growth(n)*4 + s.addrs.list.growth(n)*addrSize +
		4*(s.index.growth(s.list.n+1)+s.addrs.index.growth(s.addrs.list.n+n))
}
