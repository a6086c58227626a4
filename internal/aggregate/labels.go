package aggregate

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"unicode/utf8"
)

// Label is one pprof label.
type Label struct{ Key, Value string }

// Numbers are the numeric labels of a sample; 0 means none.
type Numbers struct {
	Goid uint64
	TID  uint32
}

// LabelID names a set of labels until the next Reset. 0 is the empty set.
type LabelID uint32

// Limits of one set.
const (
	maxLabels     = 64
	maxLabelBytes = 4096 // of a key or value
	maxSetBytes   = 2 << 20
)

// overflow stands for every set beyond the limits: the sample stays, its labels are visibly gone.
const overflow LabelID = 1

type labelSet struct {
	max     int
	seed    maphash.Seed
	byHash  map[uint64][]LabelID
	sets    []labels
	bytes   int
	scratch []Label
}

type labels struct {
	list []Label // sorted
	num  Numbers
}

func newLabelSet(limit int) labelSet {
	return labelSet{
		max: limit, seed: maphash.MakeSeed(), byHash: make(map[uint64][]LabelID),
		sets: []labels{{}, {list: []Label{{"pprofd", "too many distinct label sets"}}}},
	}
}

// Labels returns the number of a set of labels, in any order. A known set costs no allocation;
// the strings of a new one are copied.
func (t *Table) Labels(list []Label, num Numbers) LabelID {
	if len(list) == 0 && num == (Numbers{}) {
		return 0
	}
	return t.labels.intern(list, num)
}

func (s *labelSet) intern(list []Label, num Numbers) LabelID {
	s.scratch = append(s.scratch[:0], list[:min(len(list), maxLabels)]...)
	slices.SortFunc(s.scratch, compareLabels)
	h := s.hash(s.scratch, num)
	for _, id := range s.byHash[h] {
		if v := &s.sets[id]; v.num == num && slices.Equal(v.list, s.scratch) {
			return id
		}
	}
	return s.insert(h, num)
}

func (s *labelSet) insert(h uint64, num Numbers) LabelID {
	size := 128
	for _, l := range s.scratch {
		size += len(l.Key) + len(l.Value) + 32
	}
	if len(s.sets) >= s.max+2 || s.bytes+size > maxSetBytes {
		return overflow
	}
	s.bytes += size
	v := labels{list: make([]Label, len(s.scratch)), num: num}
	for i, l := range s.scratch {
		v.list[i] = Label{strings.Clone(l.Key), strings.Clone(l.Value)}
	}
	id := LabelID(len(s.sets))
	s.sets = append(s.sets, v)
	s.byHash[h] = append(s.byHash[h], id)
	return id
}

func (s *labelSet) hash(list []Label, num Numbers) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, l := range list {
		h.WriteString(l.Key)
		h.WriteByte(0)
		h.WriteString(l.Value)
		h.WriteByte(0)
	}
	return h.Sum64() ^ maphash.Comparable(s.seed, num)
}

func (s *labelSet) get(id LabelID) labels {
	if int(id) >= len(s.sets) {
		return labels{}
	}
	return s.sets[id]
}

func compareLabels(a, b Label) int {
	return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Value, b.Value))
}

// clean makes a target's string fit for protobuf: valid UTF-8, of bounded length, a cut visible.
func clean(s string) string {
	if len(s) > maxLabelBytes {
		s = s[:maxLabelBytes] + "..."
	}
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
