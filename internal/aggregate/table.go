// Package aggregate counts samples by stack and builds profiles from the counts.
package aggregate

import (
	"unsafe"

	"github.com/pprofd/pprofd/objfile"
)

// Status says what is wrong with a stack.
type Status uint8

// Status bits.
const (
	Truncated Status = 1 << iota // deeper than what is walked: ends in [truncated]
	Broken                       // the walk could not go on: ends in [broken]
)

// Key is what a sample is counted by, beside its stack.
type Key struct {
	Target uint32  // the caller's number of the process
	Labels LabelID // from Table.Labels
	Kind   uint8   // the caller's number of the kind of profile
	Status Status
	Size   uint16 // the caller's number of a size of objects; 0: none
}

// Stack is a stack of addresses, leaf first: kernel frames, then user frames.
type Stack []objfile.Addr

// Reasons of losses in this package.
const (
	LostStacks = "too many distinct stacks"
	LostMemory = "memory limit of the sample table"
)

// Limits bound a Table; zero means the default.
type Limits struct {
	Stacks int // distinct (Key, Stack); 1<<17, and 1<<9 for each target and 1<<12 for each CPU that is expected
	Bytes  int // of the whole table; 12 MB, and 32 KB for each target and 192 KB for each CPU that is expected
	Labels int // distinct label sets; 1<<14
}

const (
	defaultStacks = 1 << 17
	defaultBytes  = 12 << 20
	defaultLabels = 1 << 14
	targetStacks  = 1 << 9 // a minute of samples of a process that has a CPU for a tenth of the time
	targetBytes   = 32 << 10
	cpuStacks     = 1 << 12 // two thirds of its samples in a minute at 99 Hz
	cpuBytes      = 192 << 10
	maxBytes      = 1 << 30
	maxDepth      = 4096 // addresses of a stack; the rest is cut at the root and marked
	minIndex      = 1 << 10
)

// Table counts samples. It is not safe for concurrent use.
type Table struct {
	limits  Limits
	fixed   Limits // what New was asked for
	hash    hasher
	index   index
	entries arena[entry]
	stacks  stackSet
	labels  labelSet
	lost    map[lostKey]Value
	stats   Stats
	touched int64 // by fetch: of no meaning, but what is not used the compiler leaves out
}

// entry is one distinct (Key, Stack). A sample of one that is known touches nothing of the table but the entry and its slot in
// the index: with many targets all is cold, and each touch costs a miss of the CPU's caches.
type entry struct {
	value Value
	check uint64 // stackHash.check
	key   Key
	stack uint32 // in stacks
}

// Value is what a stack has collected.
type Value struct {
	Count int64
	Sum   int64 // of the samples' weights, in the kind's unit
}

type lostKey struct {
	target uint32
	kind   uint8
	reason string
}

// Stats count since New, except Stacks, Addrs and Bytes, which are of now.
type Stats struct {
	Samples, Lost, Truncated, Broken uint64 // Samples does not include Lost
	Stacks, Addrs, Bytes             int
}

// New returns an empty table.
func New(l Limits) *Table {
	if l.Labels <= 0 {
		l.Labels = defaultLabels
	}
	t := &Table{fixed: l, hash: newHasher()}
	t.Expect(0, 0)
	t.Reset()
	return t
}

// Expect says how many targets there are, and CPUs that are sampled: default limits grow with them.
func (t *Table) Expect(targets, cpus int) {
	t.limits = t.fixed
	if t.limits.Stacks <= 0 {
		t.limits.Stacks = defaultStacks + targets*targetStacks + cpus*cpuStacks
	}
	if t.limits.Bytes <= 0 {
		t.limits.Bytes = defaultBytes + targets*targetBytes + cpus*cpuBytes
	}
	t.limits.Bytes = min(t.limits.Bytes, maxBytes)
}

// Reset forgets all counts, stacks and labels, at the end of a window. LabelIDs become invalid. Stats go on.
func (t *Table) Reset() {
	t.index = newIndex()
	t.entries = arena[entry]{}
	t.stacks = newStackSet(t.hash)
	t.labels = newLabelSet(t.limits.Labels)
	t.lost = make(map[lostKey]Value)
}

// Sample is one of AddAll.
type Sample struct {
	Key    Key
	Stack  []objfile.Addr // is not kept
	Weight int64          // in the kind's unit

	hash  stackHash
	entry uint64 // hash of the entry
}

// Add counts one sample of the given weight. A stack that is known costs one hash and one look-up and
// no allocation. Beyond the limits the sample is counted as lost. stack is not kept.
func (t *Table) Add(key Key, stack []objfile.Addr, weight int64) {
	t.AddAll([]Sample{{Key: key, Stack: stack, Weight: weight}})
}

// AddAll adds samples, at less cost than one after the other where the table is larger than the CPU's caches. It changes list.
func (t *Table) AddAll(list []Sample) {
	for i := range list {
		s := &list[i]
		if len(s.Stack) > maxDepth {
			s.Stack = s.Stack[:maxDepth]
			s.Key.Status |= Truncated
		}
		s.hash = t.hash.stack(s.Stack)
		s.entry = t.hash.entry(s.Key, s.hash.check)
	}
	if len(list) > 1 && t.entries.n >= manyEntries {
		t.fetch(list)
	}
	for i := range list {
		t.add(&list[i])
	}
}

// fetch touches what add will need. The loops are short, so that the CPU fetches all lines of a loop at the same time.
func (t *Table) fetch(list []Sample) {
	var touched int64
	for i := range list {
		touched += int64(t.index.slots[t.index.slot(list[i].entry)])
	}
	stacks := &t.stacks
	for i := range list {
		if n := t.index.first(list[i].entry); n > 0 {
			e := t.entries.at(n - 1)
			touched += e.value.Count + int64(e.stack) // its first and its last bytes: it may lie in two lines
		} else {
			touched += int64(stacks.index.slots[stacks.index.slot(list[i].hash.slot)])
		}
	}
	for i := range list {
		if t.index.first(list[i].entry) > 0 {
			continue
		}
		if n := stacks.index.first(list[i].hash.slot); n > 0 {
			touched += int64(stacks.list.at(n - 1).n)
		}
	}
	t.touched = touched
}

// manyEntries are more than the CPU's caches hold.
const manyEntries = 1 << 13

func (t *Table) add(s *Sample) {
	e, reason := t.find(s)
	if e == nil {
		t.Lost(s.Key.Target, s.Key.Kind, reason, 1, s.Weight)
		return
	}
	e.value.Count++
	e.value.Sum += s.Weight
	t.stats.Samples++
	if s.Key.Status&Truncated != 0 {
		t.stats.Truncated++
	}
	if s.Key.Status&Broken != 0 {
		t.stats.Broken++
	}
}

// Lost counts samples that have no stack because of reason, a short constant phrase. They appear as
// [lost] in the profile of the target.
func (t *Table) Lost(target uint32, kind uint8, reason string, count, sum int64) {
	k := lostKey{target, kind, reason}
	v := t.lost[k]
	t.lost[k] = Value{v.Count + count, v.Sum + sum}
	t.stats.Lost += uint64(max(count, 0))
}

// Stats returns the counters.
func (t *Table) Stats() Stats {
	s := t.stats
	s.Stacks, s.Addrs, s.Bytes = t.entries.n, t.stacks.addrs.list.n, t.bytes()
	return s
}

func (t *Table) find(s *Sample) (e *entry, lost string) {
	if e := t.known(s); e != nil {
		return e, ""
	}
	n, known := t.stacks.find(s.hash, len(s.Stack))
	if t.entries.n >= t.limits.Stacks {
		return nil, LostStacks
	}
	growth := t.growth()
	if !known {
		growth += t.stacks.growth(len(s.Stack))
	}
	if growth > 0 && t.bytes()+growth > t.limits.Bytes {
		return nil, LostMemory
	}
	if !known {
		n = t.stacks.insert(s.hash, s.Stack)
	}
	return t.insert(s, n), ""
}

// known returns the entry of a key and a stack, or nil.
func (t *Table) known(s *Sample) *entry {
	for slot := t.index.slot(s.entry); t.index.slots[slot] != 0; slot = t.index.next(slot) {
		n, ok := t.index.at(slot, s.entry)
		if !ok {
			continue
		}
		if e := t.entries.at(n - 1); e.check == s.hash.check && e.key == s.Key {
			return e
		}
	}
	return nil
}

func (t *Table) insert(s *Sample, n uint32) *entry {
	e := t.entries.push(entry{key: s.Key, stack: n, check: s.hash.check})
	t.index.add(s.entry, t.entries.n, func(i int) uint64 {
		e := t.entries.at(i)
		return t.hash.entry(e.key, e.check)
	})
	return e
}

// bytes is what the table occupies.
func (t *Table) bytes() int {
	return t.entries.bytes() + t.stacks.bytes() + t.labels.bytes + 4*len(t.index.slots)
}

// growth is by how much a new entry lets bytes grow.
func (t *Table) growth() int {
	return t.entries.growth(1)*int(unsafe.Sizeof(entry{})) + 4*t.index.growth(t.entries.n+1)
}
