package export

import "hash/maphash"

// stringTable numbers the distinct strings of a profile in the order in which they come; the first is "". A map of strings would take
// three times as long: it is asked first whether it has a string, and then to take it, and finds its place twice.
type stringTable struct {
	list  []string
	slots []uint32 // numbers, counted from 1, with hash bits above; at most half are taken
	seed  maphash.Seed

	last   string // what same was asked for
	lastIs int64
}

const minStrings = 1 << 10

func (t *stringTable) begin() {
	if t.slots == nil {
		t.slots, t.seed = make([]uint32, 2*minStrings), maphash.MakeSeed()
	}
	t.last, t.lastIs = "", t.number("")
}

// end lets the strings go.
func (t *stringTable) end() {
	if len(t.list) > maxStrings {
		*t = stringTable{}
		return
	}
	clear(t.list)
	clear(t.slots)
	t.list, t.last = t.list[:0], ""
}

func (t *stringTable) number(s string) int64 {
	h := uint32(maphash.String(t.seed, s))
	mask := uint32(len(t.slots) - 1)
	slot := h & mask
	for ; t.slots[slot] != 0; slot = (slot + 1) & mask {
		if v := t.slots[slot]; (v^h)&^mask == 0 && t.list[v&mask-1] == s {
			return int64(v&mask - 1)
		}
	}
	t.list = append(t.list, s)
	t.slots[slot] = h&^mask | uint32(len(t.list))
	if 2*len(t.list) >= len(t.slots) {
		t.grow()
	}
	return int64(len(t.list) - 1)
}

// same is number, for strings that come several times in a row.
func (t *stringTable) same(s string) int64 {
	if s != t.last {
		t.last, t.lastIs = s, t.number(s)
	}
	return t.lastIs
}

func (t *stringTable) grow() {
	t.slots = make([]uint32, 2*len(t.slots))
	mask := uint32(len(t.slots) - 1)
	for i, s := range t.list {
		h := uint32(maphash.String(t.seed, s))
		slot := h & mask
		for t.slots[slot] != 0 {
			slot = (slot + 1) & mask
		}
		t.slots[slot] = h&^mask | uint32(i+1)
	}
}
