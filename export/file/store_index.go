package file

import "slices"

// entry is one file of a Store, in 24 bytes: there may be a million.
type entry struct {
	when    uint64 // milliseconds after 1970 (43 bits), twin (8), kind (12): in the order of age
	process uint64 // PID (22 bits), start in clock ticks (42)
	service uint32
	blocks  uint32
}

func newEntry(p place, f stored, service, kind, blocks uint32) entry {
	return entry{
		when:    uint64(f.milli)<<20 | uint64(f.twin)<<12 | uint64(kind),
		process: uint64(p.pid)<<42 | p.start,
		service: service,
		blocks:  blocks,
	}
}

func (e entry) milli() int64 { return int64(e.when >> 20) }
func (e entry) twin() int    { return int(e.when >> 12 & 0xff) }
func (e entry) kind() uint32 { return uint32(e.when & 0xfff) }
func (e entry) pid() int     { return int(e.process >> 42) }
func (e entry) start() uint64 {
	return e.process & maxStart
}

// queue is a heap of entries, the oldest first. It grows in pieces: to double a slice of a million would take their
// memory once more, in the very moment when there is least.
type queue struct {
	pieces []*[pieceLen]entry
	n      int
}

const pieceLen = 4096

func (q *queue) at(i int) *entry { return &q.pieces[i/pieceLen][i%pieceLen] }

func (q *queue) push(e entry) {
	if q.n == len(q.pieces)*pieceLen {
		q.pieces = append(q.pieces, new([pieceLen]entry))
	}
	*q.at(q.n) = e
	q.n++
	for i := q.n - 1; i > 0 && q.less(i, (i-1)/2); i = (i - 1) / 2 {
		q.swap(i, (i-1)/2)
	}
}

func (q *queue) pop() entry {
	e := *q.at(0)
	q.n--
	q.swap(0, q.n)
	q.down(0)
	q.trim()
	return e
}

func (q *queue) down(i int) {
	for {
		c := 2*i + 1
		if c >= q.n {
			return
		}
		if c+1 < q.n && q.less(c+1, c) {
			c++
		}
		if !q.less(c, i) {
			return
		}
		q.swap(i, c)
		i = c
	}
}

func (q *queue) less(i, j int) bool { return q.at(i).when < q.at(j).when }

func (q *queue) swap(i, j int) {
	a, b := q.at(i), q.at(j)
	*a, *b = *b, *a
}

// trim gives memory back, but for one spare piece.
func (q *queue) trim() {
	if keep := (q.n+pieceLen-1)/pieceLen + 1; keep < len(q.pieces) {
		clear(q.pieces[keep:])
		q.pieces = q.pieces[:keep]
	}
}

// take removes all entries that are later than milli and gives them to f.
func (q *queue) take(milli int64, f func(entry)) {
	kept := 0
	for i := range q.n {
		if e := *q.at(i); e.milli() > milli {
			f(e)
		} else {
			*q.at(kept) = e
			kept++
		}
	}
	if kept == q.n {
		return // a heap as before
	}
	q.n = kept
	for i := q.n/2 - 1; i >= 0; i-- {
		q.down(i)
	}
	q.trim()
}

// names numbers strings as long as they are used.
type names struct {
	ids  map[string]uint32
	list []used
	free []uint32
}

type used struct {
	name  string
	files int
}

// use counts one more file of name.
func (n *names) use(name string) uint32 {
	id, ok := n.ids[name]
	if !ok {
		id = n.number()
		n.list[id].name = name
		if n.ids == nil {
			n.ids = make(map[string]uint32)
		}
		n.ids[name] = id
	}
	n.list[id].files++
	return id
}

func (n *names) number() uint32 {
	if last := len(n.free) - 1; last >= 0 {
		id := n.free[last]
		n.free = slices.Delete(n.free, last, last+1)
		return id
	}
	n.list = append(n.list, used{})
	return uint32(len(n.list) - 1)
}

// drop counts one file less.
func (n *names) drop(id uint32) {
	u := &n.list[id]
	if u.files--; u.files > 0 {
		return
	}
	delete(n.ids, u.name)
	*u = used{}
	n.free = append(n.free, id)
}

// index knows all files of a Store, and which is the oldest.
type index struct {
	past, ahead     queue // ahead: named after a time that has not come; the clock was wrong then, or is now
	services, kinds names
	blocks          int64
}

func (x *index) files() int { return x.past.n + x.ahead.n }

// add takes a file up. false: there are too many kinds.
func (x *index) add(p place, f stored, blocks uint32, now int64) bool {
	kind := x.kinds.use(f.kind)
	if kind > 0xfff {
		x.kinds.drop(kind)
		return false
	}
	e := newEntry(p, f, x.services.use(p.service), kind, blocks)
	x.blocks += int64(blocks)
	if e.milli() > now {
		x.ahead.push(e)
	} else {
		x.past.push(e)
	}
	return true
}

// oldest is the queue whose first file has to go first: of those that claim to come from the future, if there are any, for
// they would else outlive all others.
func (x *index) oldest() *queue {
	if x.ahead.n > 0 {
		return &x.ahead
	}
	return &x.past
}

// oldestOf is the first file of q.
func (x *index) oldestOf(q *queue) (place, stored) {
	e := q.at(0)
	return place{x.services.list[e.service].name, e.pid(), e.start()},
		stored{x.kinds.list[e.kind()].name, e.milli(), e.twin()}
}

// pop forgets the first file of q.
func (x *index) pop(q *queue) {
	e := q.pop()
	x.blocks -= int64(e.blocks)
	x.services.drop(e.service)
	x.kinds.drop(e.kind())
}

// advance: it is now.
func (x *index) advance(now int64) {
	for x.ahead.n > 0 && x.ahead.at(0).milli() <= now {
		x.past.push(x.ahead.pop())
	}
}

// setBack: the clock was set back to now.
func (x *index) setBack(now int64) { x.past.take(now, x.ahead.push) }
