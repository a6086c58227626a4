package goruntime

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pprofd/pprofd/objfile"
)

// hostile is memory that repeats data without end, except where the program keeps its goroutines.
type hostile struct {
	repeated
	n, array uint64
	pieces   int
	bytes    int
}

func (h *hostile) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case off == lenAt && len(p) == 8:
		binary.LittleEndian.PutUint64(p, h.n)
		return 8, nil
	case off == arrayAt && len(p) == 8:
		binary.LittleEndian.PutUint64(p, h.array)
		return 8, nil
	}
	return h.repeated.ReadAt(p, off)
}

func (h *hostile) ReadPieces(pieces []objfile.Piece) error {
	for i := range pieces {
		h.pieces++
		h.bytes += len(pieces[i].Data)
		n, err := h.ReadAt(pieces[i].Data, int64(pieces[i].Addr))
		pieces[i].OK = err == nil && n == len(pieces[i].Data)
	}
	return nil
}

const (
	lenAt   = 24
	arrayAt = 16
)

// TestGoroutinesOfAnyLayout: offsets are what a program's DWARF says, which may have been crafted. Those are refused that lie outside what is read
// of a goroutine, or everything is read that is needed.
func TestGoroutinesOfAnyLayout(t *testing.T) {
	off, ok := rowFor(26)
	if !ok {
		t.Fatal("there is no row for Go 1.26")
	}
	for _, field := range fields() {
		for _, at := range []uint32{1, 7, 8, maxG - 11, maxG - 9, maxG - 8, maxG, 2*maxOffset - 1} {
			l := Layout{Offsets: off, Globals: Globals{AllGPtr: arrayAt, AllGLen: lenAt}}
			*field.ptr(&l.Offsets) = at
			g := &Goroutines{Layout: l}
			if g.lacks() != "" {
				continue
			}
			image := make([]byte, g.size())
			g.decode(new(Goroutine), image)
			g.PanicSignal(&hostile{repeated: repeated{data: []byte{8, 0, 0, 0, 0, 0, 0, 0}}}, 8)
			if _, err := g.Thread(&hostile{repeated: repeated{data: []byte{8, 0, 0, 0, 0, 0, 0, 0}}}, 8); err != nil && !errors.Is(err, ErrNoGoroutines) {
				t.Errorf("%s at %d: %v", field.name, at, err)
			}
		}
	}
}

// TestGoroutinesOfAnyFields: the same of what only goroutines that are shown need.
func TestGoroutinesOfAnyFields(t *testing.T) {
	off, ok := rowFor(26)
	if !ok {
		t.Fatal("there is no row for Go 1.26")
	}
	rows := goroutineTable()
	for _, field := range []func(*GoroutineOffsets) *uint32{
		func(o *GoroutineOffsets) *uint32 { return &o.GStackTop }, func(o *GoroutineOffsets) *uint32 { return &o.GWaitSince },
		func(o *GoroutineOffsets) *uint32 { return &o.GWaitReason }, func(o *GoroutineOffsets) *uint32 { return &o.GLockedM },
		func(o *GoroutineOffsets) *uint32 { return &o.GTrackingSeq }, func(o *GoroutineOffsets) *uint32 { return &o.GSig },
		func(o *GoroutineOffsets) *uint32 { return &o.GSigCode }, func(o *GoroutineOffsets) *uint32 { return &o.GSigAddr },
	} {
		for at := uint32(maxG - 32); at < maxG+8; at++ {
			g := &Goroutines{Layout: Layout{Offsets: off, Globals: Globals{AllGPtr: arrayAt, AllGLen: lenAt}}, GoroutineOffsets: rows[len(rows)-1].off}
			*field(&g.GoroutineOffsets) = at
			g.GEnd = g.end(off.GLabels)
			if g.lacks() == "" {
				g.decode(new(Goroutine), make([]byte, g.size()))
				g.PanicSignal(&hostile{repeated: repeated{data: []byte{8, 0, 0, 0, 0, 0, 0, 0}}}, 8)
			}
		}
	}
}

// TestGoroutinesOfCraftedDWARF: so it is where DWARF is asked later, since the process is not as the table has it.
func TestGoroutinesOfCraftedDWARF(t *testing.T) {
	path := buildTruth(t, newest, mode{args: []string{"-ldflags", "-compressdwarf=false"}})
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const inG, inGobuf = "sched\x008", "bp\x00\x28" // behind a field's name is where it lies
	if bytes.Count(data, []byte(inG)) == 0 || bytes.Count(data, []byte(inGobuf)) != 1 {
		t.Fatalf("%d and %d fields of such a name at such a place", bytes.Count(data, []byte(inG)), bytes.Count(data, []byte(inGobuf)))
	}
	data = bytes.ReplaceAll(data, []byte(inG), []byte("sched\x00\x04"))
	data = bytes.Replace(data, []byte(inGobuf), []byte("bp\x00\x00"), 1)
	crafted := filepath.Join(t.TempDir(), "crafted")
	if err := os.WriteFile(crafted, data, 0o755); err != nil {
		t.Fatal(err)
	}
	f, version := openFile(t, crafted)
	g, err := FindGoroutines(f, version)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.UseDWARF(f); !errors.Is(err, ErrNoGoroutines) {
		t.Errorf("%v; g.sched.bp lies at %d", err, g.GSchedBP)
		g.decode(new(Goroutine), make([]byte, g.size()))
	}
}

// FuzzGoroutines lets every word of the process be hostile: gs, labels, stacks, names of reasons. What is read stays within bounds,
// and so does what comes out.
func FuzzGoroutines(f *testing.F) {
	f.Add(bytes.Repeat([]byte{4, 0, 0, 0, 0, 0, 0, 0}, 64), uint64(100), uint8(26), uint8(0))
	f.Add(bytes.Repeat([]byte{0xff}, 24), uint64(1<<20), uint8(18), uint8(1))
	f.Add(binary.LittleEndian.AppendUint64(bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, 9), 1<<40), uint64(3), uint8(23), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, n uint64, minor, verdict uint8) {
		off, ok := rowFor(int(minor))
		if !ok || len(data) == 0 || len(data) > 1<<16 {
			return
		}
		g := &Goroutines{Layout: Layout{Offsets: off, Labels: release{minor: int(minor)}.labelKind(), Globals: Globals{AllGPtr: arrayAt, AllGLen: lenAt}}, reasons: 64}
		for _, r := range goroutineTable() {
			if r.minor == int(minor) {
				g.GoroutineOffsets = r.off
			}
		}
		mem := &hostile{repeated: repeated{data: data}, n: n % 5000, array: 1 << 20}
		visits := make(map[uint64]int)
		enough := errors.New("enough")
		counts, err := g.Read(context.Background(), mem, 0, ReadGoroutines{Labels: true, Visit: func(one *Goroutine) (Verdict, error) {
			visits[one.Addr]++
			checkRead(t, one)
			if mem.bytes > 256<<20 {
				return Taken, enough
			}
			return Verdict(verdict % 3), nil
		}})
		if err != nil && !errors.Is(err, enough) && !errors.Is(err, ErrNoGoroutines) {
			t.Errorf("%v", err)
		}
		for addr, n := range visits {
			if n > maxTries {
				t.Errorf("goroutine %#x was visited %d times", addr, n)
			}
		}
		if counts.Inconsistent > counts.All {
			t.Errorf("%+v", counts)
		}
	})
}

func checkRead(t *testing.T, g *Goroutine) {
	t.Helper()
	if len(g.Stack) > maxWindow || len(g.Labels) > maxGLabels || len(g.Reason) > 64 {
		t.Errorf("a stack of %d bytes, %d labels, reason %q", len(g.Stack), len(g.Labels), g.Reason)
	}
	if g.Stack != nil && (g.SP >= g.StackEnd || uint64(len(g.Stack)) > g.StackEnd-g.SP || !stopped(uint32(g.State))) {
		t.Errorf("%d bytes of a stack from %#x to %#x, state %v", len(g.Stack), g.SP, g.StackEnd, g.State)
	}
	for _, l := range g.Labels {
		if len(l.Key) > maxGLabelSize || len(l.Value) > maxGLabelSize {
			t.Errorf("label of %d and %d bytes", len(l.Key), len(l.Value))
		}
	}
}

// TestOldLabelMaps reads a map that has grown while it was filled: pairs lie in old and new buckets, and in overflow buckets.
func TestOldLabelMaps(t *testing.T) {
	const set, hmap, buckets, old, overflow, text = 0x1000, 0x1100, 0x2000, 0x3000, 0x4000, 0x5000
	mem := make([]byte, 0x6000)
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(mem[at:], v) }
	at := text
	str := func(header int, s string) {
		put(header, uint64(at))
		put(header+8, uint64(len(s)))
		at += copy(mem[at:], s)
	}
	pair := func(bucket, slot int, hash byte, key string) {
		mem[bucket+slot] = hash
		str(bucket+8+16*slot, key)
		str(bucket+8+16*bucketPairs+16*slot, "value of "+key)
	}
	put(set, hmap)
	put(hmap, 5)
	mem[hmap+9] = 1 // two buckets, one old
	put(hmap+16, buckets)
	put(hmap+24, old)
	pair(buckets, 0, 200, "a")
	pair(buckets+mapBucketBytes, 7, usedSlot, "b")
	pair(old, 3, 77, "c")
	mem[old] = 1 // emptyOne: its pairs were not moved yet
	put(buckets+mapBucketBytes-8, overflow)
	pair(overflow, 1, 99, "d")
	mem[buckets+5] = 2 // evacuated, as slots of new buckets never are: no pair
	l := labelReader{kind: LabelsMap, mem: pieceReader{bytes.NewReader(mem)}, sets: []labelSet{{addr: set}}}
	if err := l.read(); err != nil {
		t.Fatal(err)
	}
	want := []Label{{"a", "value of a"}, {"b", "value of b"}, {"c", "value of c"}, {"d", "value of d"}}
	got := l.sets[0].labels
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got[i], want[i])
		}
	}
	mem[old] = 3 // its pairs are in the new buckets
	l.sets = []labelSet{{addr: set}}
	if err := l.read(); err != nil || len(l.sets[0].labels) != 3 {
		t.Errorf("%v, %v; want three labels", l.sets[0].labels, err)
	}
}

// pieceReader reads pieces one by one.
type pieceReader struct{ *bytes.Reader }

func (r pieceReader) ReadPieces(pieces []objfile.Piece) error {
	for i := range pieces {
		n, _ := r.ReadAt(pieces[i].Data, int64(pieces[i].Addr))
		pieces[i].OK = n == len(pieces[i].Data)
	}
	return nil
}
