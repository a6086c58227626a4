package goruntime

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/pprofd/pprofd/objfile"
)

// Bounds on the labels of one goroutine, and on what is kept of those of all.
const (
	maxGLabels     = 64      // pairs
	maxGLabelSize  = 1 << 10 // bytes of a key or value; more is cut
	maxGBucketBits = 6       // of the map up to Go 1.23: 2^6 buckets of 8 pairs
	maxGOverflow   = 4       // buckets behind a bucket
	maxGStrings    = 1 << 16 // different keys and values that are remembered
	mapBucketBytes = 272     // runtime.bmap of map[string]string: 8 hashes, 8 keys, 8 values, the overflow bucket's address
	bucketPairs    = 8
	usedSlot       = 5 // smallest hash of a pair (runtime/map.go: minTopHash)
	evacuatedFirst = 2 // evacuatedX, evacuatedY, evacuatedEmpty
	evacuatedLast  = 4
)

// labelReader reads what g.labels point to, of all goroutines of one window together.
type labelReader struct {
	kind   LabelKind
	mem    Memory
	sets   []labelSet // of the window, by address
	pieces []objfile.Piece
	known  map[string]string
}

// labelSet is what some goroutines' labels point to. A set does not change once goroutines have it.
type labelSet struct {
	addr   uint64
	bad    bool
	pairs  [][4]uint64 // address and length of key and value
	labels []Label
	// of a map: the buckets that are to be read next
	buckets []mapBucket
}

type mapBucket struct {
	addr  uint64
	old   bool // one that the map has grown out of
	depth int  // in its chain of overflow buckets
}

// readLabels reads the labels of items, whose gs were read just now, and then looks whether they still have them: memory that
// a goroutine points to is not used for anything else.
func (r *reading) readLabels(items []item) error {
	l := &r.labels
	l.mem, l.sets = r.mem, l.sets[:0]
	for i := range items {
		items[i].labels, items[i].changed = nil, false
		if _, _, image, ok := r.imagesOf(&items[i]); ok && live(r.status(image)) {
			if p := word(image, r.GLabels); p != 0 && l.kind != LabelsNone {
				l.sets = append(l.sets, labelSet{addr: p})
			}
		}
	}
	if len(l.sets) == 0 {
		return nil
	}
	slices.SortFunc(l.sets, func(a, b labelSet) int { return cmp.Compare(a.addr, b.addr) })
	l.sets = slices.CompactFunc(l.sets, func(a, b labelSet) bool { return a.addr == b.addr })
	if err := l.read(); err != nil {
		return err
	}
	return r.attach(items)
}

// attach gives the items their labels, if they have not changed meanwhile.
func (r *reading) attach(items []item) error {
	l, size := &r.labels, r.size()
	var labelled []*item
	for i := range items {
		if _, _, image, ok := r.imagesOf(&items[i]); ok && live(r.status(image)) && word(image, r.GLabels) != 0 {
			labelled = append(labelled, &items[i])
		}
	}
	if err := l.fetch(len(labelled), func(i int) (uint64, uint64) { return labelled[i].addr, uint64(size) }); err != nil {
		return err
	}
	for i, it := range labelled {
		_, _, image, _ := r.imagesOf(it)
		p, now := word(image, r.GLabels), l.pieces[i].Data
		it.changed = !l.pieces[i].OK || word(now, r.GLabels) != p || word(now, r.GGoid) != word(image, r.GGoid) || !live(r.status(now))
		if n, found := slices.BinarySearchFunc(l.sets, p, func(s labelSet, p uint64) int { return cmp.Compare(s.addr, p) }); found {
			it.labels = l.sets[n].labels
		}
	}
	return nil
}

// read reads all sets.
func (l *labelReader) read() error {
	var err error
	if l.kind == LabelsSlice {
		err = l.readSlices()
	} else {
		err = l.readMaps()
	}
	if err != nil {
		return err
	}
	return l.readStrings()
}

// fetch reads size bytes at each address.
func (l *labelReader) fetch(n int, at func(i int) (addr, size uint64)) error {
	l.pieces = l.pieces[:0]
	total := uint64(0)
	for i := range n {
		_, size := at(i)
		total += size
	}
	buf := make([]byte, total)
	for i := range n {
		addr, size := at(i)
		l.pieces = append(l.pieces, objfile.Piece{Addr: addr, Data: buf[:size:size]})
		buf = buf[size:]
	}
	return l.mem.ReadPieces(l.pieces)
}

// readSlices: *struct{list []struct{key, value string}}.
func (l *labelReader) readSlices() error {
	if err := l.fetch(len(l.sets), func(i int) (uint64, uint64) { return l.sets[i].addr, 24 }); err != nil {
		return err
	}
	first, n := make([]uint64, len(l.sets)), make([]uint64, len(l.sets))
	for i := range l.sets {
		p := &l.pieces[i]
		first[i], n[i] = word64(p.Data), word64(p.Data[8:])
		if !p.OK || n[i] > maxLabels {
			l.sets[i].bad, n[i] = true, 0
		}
		n[i] = min(n[i], maxGLabels)
	}
	if err := l.fetch(len(l.sets), func(i int) (uint64, uint64) { return first[i], 32 * n[i] }); err != nil {
		return err
	}
	for i := range l.sets {
		s := &l.sets[i]
		p := &l.pieces[i]
		s.bad = s.bad || !p.OK
		for b := p.Data; len(b) > 0 && !s.bad; b = b[32:] {
			s.pairs = append(s.pairs, [4]uint64{word64(b), word64(b[8:]), word64(b[16:]), word64(b[24:])})
		}
	}
	return nil
}

func word64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// readMaps: *map[string]string (runtime/map.go until Go 1.23).
func (l *labelReader) readMaps() error {
	if err := l.fetch(len(l.sets), func(i int) (uint64, uint64) { return l.sets[i].addr, 8 }); err != nil {
		return err
	}
	maps := make([]uint64, len(l.sets))
	for i := range l.sets {
		maps[i] = word64(l.pieces[i].Data)
		l.sets[i].bad = !l.pieces[i].OK
	}
	size := func(i int) uint64 {
		if maps[i] == 0 || l.sets[i].bad {
			return 0
		}
		return 32
	}
	if err := l.fetch(len(l.sets), func(i int) (uint64, uint64) { return maps[i], size(i) }); err != nil {
		return err
	}
	for i := range l.sets {
		if p := &l.pieces[i]; len(p.Data) > 0 {
			l.sets[i].header(p)
		}
	}
	for range 1 + maxGOverflow {
		if more, err := l.readBuckets(); !more || err != nil {
			return err
		}
	}
	return nil
}

// header reads a runtime.hmap: count at 0, B at 9, buckets at 16, oldbuckets at 24. A map that has grown while it was filled may still
// have pairs in the buckets it had before, half as many.
func (s *labelSet) header(p *objfile.Piece) {
	bits, buckets, old := p.Data[9], word64(p.Data[16:]), word64(p.Data[24:])
	if s.bad = !p.OK || bits > maxGBucketBits; s.bad || word64(p.Data) == 0 {
		return
	}
	add := func(at uint64, n int, isOld bool) {
		for i := range n {
			s.buckets = append(s.buckets, mapBucket{at + uint64(i)*mapBucketBytes, isOld, 0})
		}
	}
	add(buckets, 1<<bits, false)
	if old != 0 {
		n := 1 << bits
		if p.Data[8]&sameSizeGrow == 0 {
			n = max(n/2, 1)
		}
		add(old, n, true)
	}
}

const sameSizeGrow = 8 // hmap.flags: it has as many old buckets as new ones

// readBuckets reads one bucket of each chain, and notes those behind them.
func (l *labelReader) readBuckets() (more bool, err error) {
	type owner struct {
		set int
		mapBucket
	}
	var todo []owner
	for i := range l.sets {
		for _, b := range l.sets[i].buckets {
			todo = append(todo, owner{i, b})
		}
		l.sets[i].buckets = l.sets[i].buckets[:0]
	}
	if err := l.fetch(len(todo), func(i int) (uint64, uint64) { return todo[i].addr, mapBucketBytes }); err != nil {
		return false, err
	}
	for i, o := range todo {
		s, p := &l.sets[o.set], &l.pieces[i]
		if s.bad = s.bad || !p.OK; s.bad {
			continue
		}
		if h := p.Data[0]; o.old && h >= evacuatedFirst && h <= evacuatedLast {
			continue // its pairs are in the new ones
		}
		s.bucket(p.Data)
		if next := word64(p.Data[mapBucketBytes-8:]); next != 0 && o.depth < maxGOverflow {
			s.buckets = append(s.buckets, mapBucket{next, o.old, o.depth + 1})
			more = true
		}
	}
	return more, nil
}

// bucket notes the pairs of a bucket: 8 hashes, 8 keys, 8 values.
func (s *labelSet) bucket(b []byte) {
	for i := range bucketPairs {
		if b[i] < usedSlot || len(s.pairs) >= maxGLabels {
			continue
		}
		k, v := b[8+16*i:], b[8+16*bucketPairs+16*i:]
		s.pairs = append(s.pairs, [4]uint64{word64(k), word64(k[8:]), word64(v), word64(v[8:])})
	}
}

// readStrings reads keys and values of all sets.
func (l *labelReader) readStrings() error {
	var all []*[4]uint64
	for i := range l.sets {
		s := &l.sets[i]
		for j := range s.pairs {
			p := &s.pairs[j]
			s.bad = s.bad || p[1] > maxLabelSize || p[3] > maxLabelSize
		}
		if s.bad {
			s.pairs = nil
		}
		for j := range s.pairs {
			all = append(all, &s.pairs[j])
		}
	}
	err := l.fetch(2*len(all), func(i int) (uint64, uint64) {
		p := all[i/2]
		return p[i%2*2], min(p[i%2*2+1], maxGLabelSize)
	})
	if err != nil {
		return err
	}
	pieces := l.pieces
	for i := range l.sets {
		s := &l.sets[i]
		for range s.pairs {
			if pieces[0].OK && pieces[1].OK {
				s.labels = append(s.labels, Label{l.text(pieces[0].Data), l.text(pieces[1].Data)})
			}
			pieces = pieces[2:]
		}
		slices.SortFunc(s.labels, func(a, b Label) int { return strings.Compare(a.Key, b.Key) })
	}
	return nil
}

// text is the string of b, which goroutines share.
func (l *labelReader) text(b []byte) string {
	if s, ok := l.known[string(b)]; ok {
		return s
	}
	if l.known == nil || len(l.known) >= maxGStrings {
		l.known = make(map[string]string)
	}
	s := string(b)
	l.known[s] = s
	return s
}
