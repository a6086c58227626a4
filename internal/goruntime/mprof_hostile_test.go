package goruntime

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/objfile"
)

// bucketBytes is a bucket of 1.26 and older as it stands in memory.
func bucketBytes(next, size, nstk uint64, cycles ...uint64) []byte {
	b := make([]byte, bucketHeader+nstk*8+4*recordSize)
	put := binary.LittleEndian.PutUint64
	put(b[8:], next)
	put(b[0x10:], memBucket)
	put(b[0x20:], size)
	put(b[0x28:], nstk)
	for i := range nstk {
		put(b[bucketHeader+i*8:], 0x401000+i)
	}
	for i, n := range cycles {
		put(b[bucketHeader+nstk*8+uint64(i)*recordSize:], n)
	}
	return b
}

// list is memory with a head at 0 and buckets behind each other, from 64 on.
func list(buckets ...[]byte) []byte {
	mem := binary.LittleEndian.AppendUint64(nil, 64)
	mem = append(mem, make([]byte, 56)...)
	for _, b := range buckets {
		mem = append(mem, b...)
	}
	return append(mem, make([]byte, blockSize)...) // so that blocks can be read as a whole
}

// TestMemRecords: what was read stays what it was, and another reading takes its place.
func TestMemRecords(t *testing.T) {
	second := uint64(64 + len(bucketBytes(0, 0, 3)))
	mem := list(bucketBytes(second, 48, 3, 7), bucketBytes(0, 16, 0, 1, 2, 3, 4))
	m := MemProfile{record: recordSize}
	var r MemRecords
	for range 2 {
		if moved, err := m.ReadAll(bytes.NewReader(mem), 0, Unpublished, &r); err != nil || moved {
			t.Fatal(moved, err)
		}
	}
	var got []string
	for b := range r.All {
		got = append(got, fmt.Sprintf("%x %d %d %d %x", b.Addr, b.Size, b.Allocs, b.Frees, b.Stack))
	}
	want := []string{"40 48 7 0 [401000 401001 401002]", fmt.Sprintf("%x 16 10 0 []", second)}
	if fmt.Sprint(got) != fmt.Sprint(want) || r.Len() != 2 || r.Bytes() < 2*memRecordBytes+3*8 {
		t.Errorf("%q, want %q; %d bytes", got, want, r.Bytes())
	}
}

// endless is memory that leads from bucket to bucket for ever, each as far behind the one before as stride says.
type endless struct {
	stride, nstk uint64
	typ          uint64 // 0: memBucket
	delay        time.Duration
	reads        int
}

func (e *endless) ReadAt(p []byte, off int64) (int, error) {
	e.reads++
	time.Sleep(e.delay)
	clear(p)
	put := func(addr uint64, v uint64) {
		if i := int64(addr) - off; i >= 0 && i+8 <= int64(len(p)) {
			binary.LittleEndian.PutUint64(p[i:], v)
		}
	}
	put(0, e.stride)
	for at := max(uint64(off)/e.stride, 1) * e.stride; at < uint64(off)+uint64(len(p)); at += e.stride {
		put(at+8, at+e.stride)
		put(at+0x10, cmp.Or(e.typ, memBucket))
		put(at+0x28, e.nstk)
		put(at+bucketHeader+e.nstk*8, 1)
	}
	return len(p), nil
}

// TestHostileMemProfiles: lists that lead nowhere, in circles, or on for ever end with an error, soon and in little memory.
func TestHostileMemProfiles(t *testing.T) {
	deep := bucketBytes(0, 0, 0, 1)
	binary.LittleEndian.PutUint64(deep[0x28:], 1<<40)
	circle := list(bucketBytes(64, 8, 2, 1))
	late := list(bucketBytes(64+192, 8, 2, 1), bucketBytes(64+2*192, 8, 2, 1), bucketBytes(64+192, 8, 2, 1))
	for name, c := range map[string]struct {
		mem      io.ReaderAt
		says     string
		patience time.Duration // for tests; 0: the default
	}{
		"circle":           {bytes.NewReader(circle), "leads back", 0},
		"circle, late":     {bytes.NewReader(late), "leads back", 0},
		"deep stack":       {bytes.NewReader(list(deep)), "no bucket", 0},
		"nowhere":          {bytes.NewReader(list(bucketBytes(1<<46, 8, 2, 1))), "bucket at 0x400000000000", 0},
		"kernel addresses": {bytes.NewReader(list(bucketBytes(1<<63+8, 8, 2, 1))), "not in user space", 0},
		"not aligned":      {bytes.NewReader(list(bucketBytes(65, 8, 2, 1))), "no bucket", 0},
		"no end":           {&endless{stride: 512, nstk: 1}, "more than 524288 sites", 0},
		"deep, no end":     {&endless{stride: 16384, nstk: 1024}, "more than 8388608 frames", 0},
		"far, no end":      {&endless{stride: 1 << 20, nstk: 1}, "spread over more than 2048 MiB", 0},
		"slow, no end":     {&endless{stride: 1 << 20, nstk: 1, delay: 20 * time.Millisecond}, "reading", 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, r, began := MemProfile{record: recordSize, patience: c.patience}, MemRecords{}, time.Now()
			_, err := m.ReadAll(c.mem, 0, Published, &r)
			if !errors.Is(err, ErrTorn) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if took := time.Since(began); took > 20*time.Second || r.Bytes() > 128<<20 {
				t.Errorf("%v, %d MB kept", took, r.Bytes()>>20)
			}
		})
	}
}

// TestMemProfileOfProcessThatIsGone is no damage.
func TestMemProfileOfProcessThatIsGone(t *testing.T) {
	head := bytes.NewReader(list(bucketBytes(0, 8, 2, 1)))
	m := MemProfile{record: recordSize}
	_, err := m.Read(goneBehind{head, 64}, 0, Published, func(*Bucket) error { return nil })
	if errors.Is(err, ErrTorn) || !errors.Is(err, objfile.ErrProcessGone) {
		t.Errorf("error %v", err)
	}
}

type goneBehind struct {
	io.ReaderAt
	end int64
}

func (g goneBehind) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > g.end {
		return 0, objfile.ErrProcessGone
	}
	return g.ReaderAt.ReadAt(p, off)
}

// TestMemProfileCycleIsPlausible: a word that is no count of garbage collections is not used as one.
func TestMemProfileCycleIsPlausible(t *testing.T) {
	mem := list(bucketBytes(0, 8, 2, 1))
	for cycle, ok := range map[uint32]bool{0: true, 5: true, (maxCycle - 1) << 1: true, maxCycle << 1: false, 1<<32 - 1: false} {
		binary.LittleEndian.PutUint32(mem[32:], cycle)
		m := MemProfile{record: recordSize, Cycle: 32}
		if _, err := m.Read(bytes.NewReader(mem), 0, Published, func(*Bucket) error { return nil }); errors.Is(err, ErrTorn) == ok {
			t.Errorf("%#x: %v", cycle, err)
		}
	}
}

// FuzzMemProfile reads lists of buckets from memory that is data, over and over: what is read is bounded, and so is what
// is kept; a list that is read to its end has only what lies in that memory.
func FuzzMemProfile(f *testing.F) {
	f.Add(list(bucketBytes(0, 8, 2, 1))[:512], false, true)
	f.Add(list(bucketBytes(64, 8, 2, 1))[:512], true, true)
	f.Add(list(bucketBytes(64+192, 8, 2, 0), bucketBytes(0, 48, 1, 0, 3, 2, 1))[:512], true, false)
	f.Add(bytes.Repeat([]byte{8, 0, 0, 0, 0, 0, 0, 0}, 8), false, false)
	f.Fuzz(func(t *testing.T, data []byte, endless, counts bool) {
		if len(data) == 0 {
			return
		}
		m := MemProfile{record: recordSize, Cycle: 16, Rate: 24}
		if counts {
			m.record = recordSizeCounts
		}
		var mem io.ReaderAt = bytes.NewReader(data)
		again := &repeated{data: data}
		if endless {
			mem = again
		}
		for _, mode := range []ReadMode{Published, Unpublished} {
			var r MemRecords
			_, err := m.ReadAll(mem, 0, mode, &r)
			if again.reads > 3*maxFetches || r.Bytes() > 128<<20 {
				t.Errorf("%d reads, %d bytes kept", again.reads, r.Bytes())
			}
			for b := range r.All {
				if len(b.Stack) > maxBucketStack || err == nil && !endless && b.Addr+bucketHeader+uint64(8*len(b.Stack)+4*m.record) > uint64(len(data)) {
					t.Errorf("bucket at %#x of %d bytes, %d frames", b.Addr, len(data), len(b.Stack))
				}
			}
		}
		_, _ = m.ReadRate(mem, 0)
	})
}
