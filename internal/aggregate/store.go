package aggregate

import (
	"math/bits"
	"math/rand/v2"
	"unsafe"

	"github.com/pprofd/pprofd/objfile"
)

// arena is a list that grows by chunks: nothing is copied, nothing becomes garbage.
type arena[T any] struct {
	chunks [][]T
	n      int
}

const chunk = 1024

func (a *arena[T]) at(i int) *T { return &a.chunks[i/chunk][i%chunk] }

func (a *arena[T]) push(v T) *T {
	if a.n == len(a.chunks)*chunk {
		a.chunks = append(a.chunks, make([]T, chunk))
	}
	a.n++
	p := a.at(a.n - 1)
	*p = v
	return p
}

func (a *arena[T]) bytes() int {
	var v T
	return len(a.chunks) * chunk * int(unsafe.Sizeof(v))
}

// growth is how many elements room is made for when n are pushed.
func (a *arena[T]) growth(n int) int {
	need := a.n + n - len(a.chunks)*chunk
	if need <= 0 {
		return 0
	}
	return (need + chunk - 1) / chunk * chunk
}

// index is an open-addressed table of element numbers, counted from 1, at most half full. The bits of a slot that no number
// needs hold some of its hash: who looks for another need not look at the element.
type index struct {
	slots []uint32
}

func newIndex() index { return index{make([]uint32, minIndex)} }

func (x *index) slot(h uint64) int    { return int(h & uint64(len(x.slots)-1)) }
func (x *index) next(slot int) int    { return (slot + 1) & (len(x.slots) - 1) }
func (x *index) growth(total int) int { return x.size(total) - len(x.slots) }

func (x *index) size(total int) int {
	size := len(x.slots)
	for 2*total > size {
		size *= 2
	}
	return size
}

// at returns the number in a slot that is taken; ok is false where it is of another hash than h.
func (x *index) at(slot int, h uint64) (n int, ok bool) {
	v, mask := x.slots[slot], uint32(len(x.slots)-1)
	return int(v & mask), v&^mask == x.tag(h)
}

// first returns the first number that may be of h, or 0.
func (x *index) first(h uint64) int {
	for slot := x.slot(h); x.slots[slot] != 0; slot = x.next(slot) {
		if n, ok := x.at(slot, h); ok {
			return n
		}
	}
	return 0
}

func (x *index) tag(h uint64) uint32 { return uint32(h>>32) &^ uint32(len(x.slots)-1) }

// add enters element number n (the last one) with its hash; hash tells those of the earlier ones.
func (x *index) add(h uint64, n int, hash func(i int) uint64) {
	if size := x.size(n); size != len(x.slots) {
		x.slots = make([]uint32, size)
		for i := range n - 1 {
			x.put(hash(i), i+1)
		}
	}
	x.put(h, n)
}

func (x *index) put(h uint64, n int) {
	slot := x.slot(h)
	for x.slots[slot] != 0 {
		slot = x.next(slot)
	}
	x.slots[slot] = x.tag(h) | uint32(n)
}

// addrSet numbers distinct addresses from 0.
type addrSet struct {
	hash    hasher
	index   index
	list    arena[objfile.Addr]
	touched int // by fetch: of no meaning, but what is not used the compiler leaves out
}

func newAddrSet(h hasher) addrSet { return addrSet{hash: h, index: newIndex()} }

// fetch touches what intern will need of addresses, as Table.fetch does.
func (s *addrSet) fetch(list []objfile.Addr) {
	touched := 0
	for _, a := range list {
		touched += int(s.index.slots[s.index.slot(s.hash.one(a))])
	}
	for _, a := range list {
		if n := s.index.first(s.hash.one(a)); n > 0 {
			touched += int(s.list.at(n - 1).Off)
		}
	}
	s.touched = touched
}

func (s *addrSet) intern(a objfile.Addr) uint32 {
	h := s.hash.one(a)
	for slot := s.index.slot(h); s.index.slots[slot] != 0; slot = s.index.next(slot) {
		if n, ok := s.index.at(slot, h); ok && *s.list.at(n - 1) == a {
			return uint32(n - 1)
		}
	}
	s.list.push(a)
	s.index.add(h, s.list.n, func(i int) uint64 { return s.hash.one(*s.list.at(i)) })
	return uint32(s.list.n - 1)
}

// hasher is a multiply-and-fold hash keyed by random words: targets choose the addresses
// and must not be able to choose collisions.
type hasher struct {
	keys  [3]uint64
	check [3]uint64 // of a second hash of stacks, independent of the first
}

func newHasher() hasher {
	keys := func() [3]uint64 { return [3]uint64{rand.Uint64(), rand.Uint64(), rand.Uint64() | 1} }
	return hasher{keys(), keys()}
}

func mix(k *[3]uint64, a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^k[0], b^k[1])
	return hi ^ lo
}

// addr extends h by an address; last makes every bit of the result depend on every bit of it.
func addr(k *[3]uint64, h uint64, a objfile.Addr) uint64 { return mix(k, h^a.Off, uint64(a.Image)<<20) }

func last(k *[3]uint64, h uint64) uint64 {
	hi, lo := bits.Mul64(h^h>>32, k[2])
	return hi ^ lo
}

func (s *hasher) one(a objfile.Addr) uint64 { return last(&s.keys, addr(&s.keys, 0, a)) }

// stackHash are 128 bits: stacks that have the same are taken for equal, for comparing them would cost a miss of the CPU's
// caches an address. Among a million stacks two have the same by chance once in 10^26 tables. For the same reason entries of one
// key are taken for equal by check alone: among a million of them two have the same once in 10^7 tables.
type stackHash struct{ slot, check uint64 }

func (s *hasher) stack(stack []objfile.Addr) stackHash {
	h, c := mix(&s.keys, uint64(len(stack)), 0), mix(&s.check, uint64(len(stack)), 0)
	for _, a := range stack {
		h, c = addr(&s.keys, h, a), addr(&s.check, c, a)
	}
	return stackHash{last(&s.keys, h), last(&s.check, c)}
}

func (s *hasher) entry(k Key, check uint64) uint64 {
	h := mix(&s.keys, uint64(k.Target)<<32|uint64(k.Labels), check^(uint64(k.Kind)<<8|uint64(k.Status)|uint64(k.Size)<<48))
	return last(&s.keys, h)
}
