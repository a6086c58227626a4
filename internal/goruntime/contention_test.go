//go:build linux

package goruntime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestFindContention: what is found in the code of a program without symbols are the variables that symbols name.
func TestFindContention(t *testing.T) {
	builds := []testprog.Options{
		{}, {PIE: true}, {Cgo: true}, {Cgo: true, PIE: true}, {Arch: "arm64"}, {Arch: "arm64", PIE: true},
		{Cgo: true, Flags: []string{"-race"}}, {Flags: []string{"-gcflags=all=-l"}},
	}
	for _, version := range testprog.Versions() {
		for _, o := range builds {
			o.Go = version
			t.Run(o.String(), func(t *testing.T) {
				t.Parallel()
				path := testprog.Build(t, "contend", o)
				bare := withoutSections(t, path)
				want := namedContention(t, path)
				for name, path := range map[string]string{"by symbols": path, "by code": bare} {
					f, version := openFile(t, path)
					c, err := FindContention(f, version)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					got := []uint64{c.lists[0], c.lists[1], c.rates[Block], c.rates[Mutex]}
					slices.Sort(got[:2])
					if !slices.Equal(got, want[:4]) || c.ticks <= want[4] || c.ticks > want[4]+24 {
						t.Errorf("%s: %x, ticks %x; want %x", name, got, c.ticks, want)
					}
				}
			})
		}
	}
}

// namedContention are the addresses of the lists, sorted, of the rates and of ticks.
func namedContention(t *testing.T, path string) []uint64 {
	t.Helper()
	s := openSymbols(t, path)
	var want []uint64
	for _, name := range []string{"bbuckets", "xbuckets", "blockprofilerate", "mutexprofilerate", "ticks"} {
		a := s.syms["runtime."+name].Value
		if a == 0 {
			t.Fatalf("%s has no runtime.%s", path, name)
		}
		want = append(want, a)
	}
	slices.Sort(want[:2])
	return want
}

// withoutSections is a copy of a program that has no section headers, and so no symbols.
func withoutSections(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(t.TempDir(), "bare")
	if err := os.WriteFile(bare, data, 0o755); err != nil {
		t.Fatal(err)
	}
	testprog.DropSections(t, bare)
	return bare
}

// blockBytes is a bucket of blocking or contention as it stands in memory.
func blockBytes(next, typ, nstk uint64, count float64, ticks uint64) []byte {
	b := bucketBytes(next, 0, nstk)[:bucketHeader+8*nstk+contentionRecord]
	put := binary.LittleEndian.PutUint64
	put(b[0x10:], typ)
	put(b[bucketHeader+8*nstk:], math.Float64bits(count))
	put(b[bucketHeader+8*nstk+8:], ticks)
	return b
}

// heads are lists whose heads are at 0 and 8, with buckets behind each other from 64 on.
func heads(first, second uint64, buckets ...[]byte) []byte {
	mem := list(buckets...)
	binary.LittleEndian.PutUint64(mem, first)
	binary.LittleEndian.PutUint64(mem[8:], second)
	return mem
}

// TestContentionRecords: the lists are told apart by their buckets, and the numbers are as the runtime tells them.
func TestContentionRecords(t *testing.T) {
	first := blockBytes(0, mutexBucket, 3, 7, 700)
	binary.LittleEndian.PutUint64(first[bucketHeader:], logicalStack)
	second := 64 + uint64(len(first))
	third := blockBytes(second+uint64(len(blockBytes(0, 0, 1, 0, 0))), blockBucket, 1, 0.25, 30)
	mem := heads(64, second, first, third, blockBytes(0, blockBucket, 0, 12.75, 40))
	for _, lists := range [][2]uint64{{0, 8}, {8, 0}} {
		c := Contention{lists: lists}
		for kind, want := range map[ContentionKind]string{
			Mutex: "[7 700 [401001 401002]]", Block: "[1 30 [401000] 12 40 []]",
		} {
			var r ContentionRecords
			r.Keep()
			for range 2 {
				if err := c.ReadAll(bytes.NewReader(mem), 0, kind, &r); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for at := range r.All {
				got = append(got, fmt.Sprintf("%d %d %x", at.Count, at.Ticks, at.Stack))
			}
			if fmt.Sprint(got) != want || r.Len() != len(got) || r.Bytes() < blockSize {
				t.Errorf("%v of lists at %v: %v, want %s; %d bytes", kind, lists, got, want, r.Bytes())
			}
		}
	}
	// Where only one list has begun, the other kind has nothing.
	c := Contention{lists: [2]uint64{0, 8}}
	var r ContentionRecords
	if err := c.ReadAll(bytes.NewReader(heads(64, 0, first)), 0, Block, &r); err != nil || r.Len() != 0 {
		t.Errorf("%d places, %v", r.Len(), err)
	}
}

// TestContentionScale: as runtime/pprof scales, and never over the edge of what an integer holds.
func TestContentionScale(t *testing.T) {
	for name, c := range map[string]struct {
		s            ContentionScale
		count, ticks int64
		events, ns   int64
	}{
		"three ticks a nanosecond": {ContentionScale{3_000_000_000, 1}, 5, 3001, 5, 1000},
		"sampled, unscaled":        {ContentionScale{2_000_000_000, 10}, 5, 3001, 50, 15005},
		"switched off":             {ContentionScale{2_000_000_000, 0}, 5, 3001, 0, 0},
		"a slow clock":             {ContentionScale{1, 1}, 5, math.MaxInt64, 5, math.MaxInt64},
		"a large factor":           {ContentionScale{1e9, math.MaxInt64}, 5, 5, math.MaxInt64, math.MaxInt64},
	} {
		if events, ns := c.s.Apply(c.count, c.ticks); events != c.events || ns != c.ns {
			t.Errorf("%s: %d, %d; want %d, %d", name, events, ns, c.events, c.ns)
		}
	}
}

// TestBlockRate: from ticks, which runtime.SetBlockProfileRate makes of it, it comes back as it was, on clocks of any speed but slow ones.
func TestBlockRate(t *testing.T) {
	for _, perSecond := range []int64{999_999_900, 999_999_999, 1e9, 1_000_000_001, 1_000_000_100, 2_399_998_123, 3e9, 5_123_456_789} {
		s := ContentionScale{PerSecond: perSecond}
		for _, rate := range []int64{2, 3, 7, 1000, 9999, 10000, 123456, 1e6, 999_999_999} {
			ticks := int64(float64(rate) * float64(perSecond) / 1e9)
			if got := s.BlockRate(ticks); got != rate && ticks > 1 {
				t.Errorf("%d ns are %d ticks of %d a second, which are %d", rate, ticks, perSecond, got)
			}
		}
	}
	if got := (ContentionScale{PerSecond: 1}).BlockRate(math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("%d", got)
	}
}

// TestTicksPerSecond: the speed of this machine's clock is what another process measures.
func TestTicksPerSecond(t *testing.T) {
	own, err := ticksPerSecond()
	if err != nil {
		t.Fatal(err)
	}
	path := testprog.Build(t, "contend", testprog.Options{})
	proc := testprog.Start(t, path, "-dir", t.TempDir())
	f, version := openFile(t, path)
	c, err := FindContention(f, version)
	if err != nil {
		t.Fatal(err)
	}
	mem, bias := openMemory(t, f, path, proc.PID)
	s, err := c.ReadScale(mem, bias, Block, ContentionRates{})
	if err != nil {
		t.Fatal(err)
	}
	if d := math.Abs(float64(own-s.PerSecond)) / float64(own); d > 0.001 || s.Factor != 1 {
		t.Errorf("%d ticks a second, the process says %d, factor %d", own, s.PerSecond, s.Factor)
	}
	c.ticks = 0
	if s, err = c.ReadScale(mem, bias, Block, ContentionRates{}); err != nil || s.PerSecond != own {
		t.Errorf("%d ticks a second, %v; want %d", s.PerSecond, err, own)
	}
}

// TestHostileContention: lists that lead nowhere, in circles, or on for ever end with an error, soon and in little memory.
func TestHostileContention(t *testing.T) {
	for name, c := range map[string]struct {
		mem      io.ReaderAt
		says     string
		patience time.Duration // for tests; 0: the default
	}{
		"circle":           {bytes.NewReader(heads(64, 0, blockBytes(64, blockBucket, 2, 1, 1))), "leads back", 0},
		"of another type":  {bytes.NewReader(heads(64, 0, blockBytes(0, memBucket, 2, 1, 1))), "no bucket", 0},
		"changes its type": {bytes.NewReader(heads(64, 0, blockBytes(144, blockBucket, 2, 1, 1), blockBytes(0, mutexBucket, 2, 1, 1))), "no bucket", 0},
		"nowhere":          {bytes.NewReader(heads(1<<46, 0)), "bucket at 0x400000000000", 0},
		"no end":           {&endless{stride: 512, nstk: 1, typ: blockBucket}, "more than 524288 sites", 0},
		"deep, no end":     {&endless{stride: 16384, nstk: 1024, typ: blockBucket}, "more than 8388608 frames", 0},
		"slow, no end":     {&endless{stride: 1 << 20, nstk: 1, typ: blockBucket, delay: 20 * time.Millisecond}, "reading", 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			where, r, began := Contention{lists: [2]uint64{0, 8}, patience: c.patience}, ContentionRecords{}, time.Now()
			err := where.ReadAll(c.mem, 0, Block, &r)
			if !errors.Is(err, ErrTorn) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if took := time.Since(began); took > 20*time.Second || r.Bytes() > 128<<20 {
				t.Errorf("%v, %d MB kept", took, r.Bytes()>>20)
			}
		})
	}
}

// FuzzContention reads lists from memory that is data, over and over: what is read and kept is bounded, no number is negative.
func FuzzContention(f *testing.F) {
	f.Add(heads(64, 0, blockBytes(0, blockBucket, 2, 1, 1))[:512], false)
	f.Add(heads(64, 144, blockBytes(0, blockBucket, 2, math.Inf(1), 1<<63), blockBytes(144, mutexBucket, 1, math.NaN(), 7))[:512], true)
	f.Add(bytes.Repeat([]byte{8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0}, 8), true)
	f.Fuzz(func(t *testing.T, data []byte, endless bool) {
		if len(data) == 0 {
			return
		}
		again := &repeated{data: data}
		var mem io.ReaderAt = bytes.NewReader(data)
		if endless {
			mem = again
		}
		c := Contention{lists: [2]uint64{0, 8}, rates: [2]uint64{16, 24}, ticks: 32, unscaled: true}
		for _, kind := range []ContentionKind{Block, Mutex} {
			rates, _ := c.ReadRates(mem, 0)
			scale, err := c.ReadScale(mem, 0, kind, rates)
			if rates.Of(kind) < 0 || err == nil && (scale.PerSecond <= 0 || scale.Factor < 0) {
				t.Fatalf("rates %+v, %+v", rates, scale)
			}
			var r ContentionRecords
			_ = c.ReadAll(mem, 0, kind, &r)
			if again.reads > 2*maxFetches || r.Bytes() > 128<<20 {
				t.Errorf("%d reads, %d bytes kept", again.reads, r.Bytes())
			}
			for at := range r.All {
				if events, ns := scale.Apply(at.Count, at.Ticks); events < 0 || ns < 0 || len(at.Stack) > maxBucketStack {
					t.Fatalf("%d events, %d ns of %+v", events, ns, at)
				}
			}
		}
	})
}
