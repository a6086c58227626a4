package aggregate

// sampleSet finds samples of a profile that became equal: kernel addresses in one function, targets merged. It keeps its memory from
// one profile to the next.
type sampleSet struct {
	slots []uint32    // numbers of samples, counted from 1, by hash; at most half are taken
	keys  []sampleKey // of samples
}

type sampleKey struct {
	hash   uint64 // of the stack
	labels LabelID
	target uint32
	size   uint16
}

const minSlots = 64

// reset forgets all, and makes room for so many samples.
func (s *sampleSet) reset(samples int) {
	n := minSlots
	for n < 2*samples {
		n *= 2
	}
	if n <= cap(s.slots) {
		s.slots, s.keys = s.slots[:n], s.keys[:0]
		clear(s.slots)
		return
	}
	s.slots, s.keys = make([]uint32, n), make([]sampleKey, 0, n/2)
}

// find returns the number of the next sample with the key after that with the number last, or 0; 0 for last begins.
func (s *sampleSet) find(k sampleKey, last uint32) uint32 {
	begun := last == 0
	for slot := s.slot(k); s.slots[slot] != 0; slot = s.next(slot) {
		switch n := s.slots[slot]; {
		case n == last:
			begun = true
		case begun && s.keys[n-1] == k:
			return n
		}
	}
	return 0
}

// add gives the next number to a key. There are no more than reset made room for.
func (s *sampleSet) add(k sampleKey) {
	s.keys = append(s.keys, k)
	slot := s.slot(k)
	for s.slots[slot] != 0 {
		slot = s.next(slot)
	}
	s.slots[slot] = uint32(len(s.keys))
}

// slot: hash is keyed by random words already (hasher), but in a merged profile all targets may have the same stack.
func (s *sampleSet) slot(k sampleKey) int {
	const odd = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	h := (k.hash ^ uint64(k.target)<<32 ^ uint64(k.size)<<24 ^ uint64(k.labels)) * odd
	return int(h >> 32 & uint64(len(s.slots)-1))
}

func (s *sampleSet) next(slot int) int { return (slot + 1) & (len(s.slots) - 1) }
