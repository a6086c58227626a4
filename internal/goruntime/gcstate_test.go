//go:build linux

package goruntime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestFindGCState: what is found in the code of a program without symbols are the variables that symbols name.
func TestFindGCState(t *testing.T) {
	builds := []testprog.Options{
		{}, {PIE: true}, {Cgo: true}, {Cgo: true, PIE: true}, {Arch: "arm64"}, {Arch: "arm64", PIE: true},
		{Cgo: true, Flags: []string{"-race"}}, {Flags: []string{"-gcflags=all=-l"}},
	}
	for _, version := range testprog.Versions() {
		for _, o := range builds {
			o.Go = version
			t.Run(o.String(), func(t *testing.T) {
				t.Parallel()
				path := testprog.Build(t, "gcstats", o)
				s := openSymbols(t, path)
				for name, path := range map[string]string{"by symbols": path, "by code": withoutSections(t, path)} {
					f, version := openFile(t, path)
					got, err := FindGCState(f, version)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if got.Stats != s.syms["runtime.memstats"].Value || got.Controller != s.syms["runtime.gcController"].Value {
						t.Errorf("%s: %x, %x; want %x, %x", name, got.Stats, got.Controller, s.syms["runtime.memstats"].Value, s.syms["runtime.gcController"].Value)
					}
				}
			})
		}
	}
}

// memStats are what the program has said of itself.
type memStats struct {
	cycles                               uint32
	pause, last, next, inUse, alloc, all uint64
	fraction                             float64
}

func readMemStats(t *testing.T, p *testprog.Proc) (m memStats) {
	t.Helper()
	line := p.WaitLine(t, "stats", time.Minute)
	if _, err := fmt.Sscan(line[len("stats "):], &m.cycles, &m.pause, &m.last, &m.next, &m.inUse, &m.alloc, &m.all, &m.fraction); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return m
}

// TestReadGCState: what is read is what runtime.MemStats says inside.
func TestReadGCState(t *testing.T) {
	for name, args := range map[string][]string{
		"usual": nil, "never collected": {"-keep", "1", "-drop", "0", "-gcs", "0"}, "GOGC=off": {"-percent", "-1"},
		"memory limit": {"-keep", "1"}, "more collections than pauses are kept": {"-keep", "1", "-gcs", "300"},
	} {
		for _, version := range testprog.Versions() {
			t.Run(name+" "+version, func(t *testing.T) {
				testReadGCState(t, name, testprog.Options{Go: version, Strip: true, PIE: true}, args)
			})
		}
	}
}

// printing what is counted takes some spans that were not counted yet.
const printing = 16 * pageSize

func testReadGCState(t *testing.T, name string, o testprog.Options, args []string) {
	path := testprog.Build(t, "gcstats", o)
	start := testprog.StartOptions{}
	const limit = 1 << 30
	if name == "memory limit" {
		start.Env = []string{fmt.Sprint("GOMEMLIMIT=", limit)}
	}
	p := testprog.StartWith(t, start, path, args...)
	want := readMemStats(t, p)
	f, version := openFile(t, path)
	s, err := FindGCState(f, version)
	if err != nil {
		t.Fatal(err)
	}
	mem, bias := openMemory(t, f, path, p.PID)
	got, err := s.Read(mem, bias)
	if err != nil {
		t.Fatal(err)
	}
	var last uint64
	if !got.Last.IsZero() {
		last = uint64(got.Last.UnixNano())
	}
	if got.Cycles != want.cycles || uint64(got.PauseTotal) != want.pause || last != want.last || got.Fraction != want.fraction {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got.InUse < want.inUse || got.InUse > want.inUse+printing {
		t.Errorf("%d bytes in use, want %d", got.InUse, want.inUse)
	}
	if off := math.Abs(float64(got.Live) - float64(want.alloc)); off > 0.05*float64(want.alloc)+500e3 {
		t.Errorf("%d bytes live, want %d", got.Live, want.alloc)
	}
	modern := o.Go != "1.18.10"
	if off := math.Abs(float64(got.TotalAlloc) - float64(want.all)); modern != (got.TotalAlloc != 0) || modern && off > 0.05*float64(want.all)+500e3 {
		t.Errorf("%d bytes allocated, want %d", got.TotalAlloc, want.all)
	}
	if name == "GOGC=off" {
		want.next = 0
	}
	if got.Goal != want.next {
		t.Errorf("goal %d, want %d", got.Goal, want.next)
	}
	if limited := name == "memory limit" && modern; limited != (got.Limit == limit) {
		t.Errorf("memory limit %d", got.Limit)
	}
}

// TestGCStateIsDoubted: memory that does not hold together is not read as numbers.
func TestGCStateIsDoubted(t *testing.T) {
	rows := gcTable()
	s := GCState{GCOffsets: rows[len(rows)-1].off, Stats: 0, Controller: 1 << 14}
	fresh := func() []byte {
		mem := make([]byte, 1<<15)
		put := binary.LittleEndian.PutUint64
		binary.LittleEndian.PutUint32(mem[s.StatNumGC:], 257)
		put(mem[s.StatLastGC:], 1e18)
		put(mem[s.StatPauseEnd:], 1e18) // of collection 257, in the place of the first one
		put(mem[s.Controller+uint64(s.CtlLimit):], math.MaxInt64)
		put(mem[s.Controller+uint64(s.CtlGoal):], 4<<20)
		put(mem[s.Controller+uint64(s.CtlInUse):], 5*pageSize)
		put(mem[s.Controller+uint64(s.CtlLive):], 30000)
		return mem
	}
	if g, err := s.Read(bytes.NewReader(fresh()), 0); err != nil || g.Cycles != 257 || g.Goal != 4<<20 || g.InUse != 5*pageSize || g.Live != 30000 || g.Limit != 0 {
		t.Fatalf("%+v, %v", g, err)
	}
	for name, change := range map[string]struct{ at, to uint64 }{
		"another last collection":       {uint64(s.StatLastGC), 1e18 + 1},
		"an end at another place":       {uint64(s.StatNumGC), 256},
		"no collection, but an end":     {uint64(s.StatNumGC), 0},
		"a share above one":             {uint64(s.StatFraction), math.Float64bits(1.5)},
		"a share that is none":          {uint64(s.StatFraction), math.Float64bits(math.NaN())},
		"use that is no pages":          {s.Controller + uint64(s.CtlInUse), 5*pageSize + 1},
		"more than can be":              {s.Controller + uint64(s.CtlLive), maxHeap},
		"more than can be, once marked": {s.Controller + uint64(s.CtlMarked), math.MaxUint64},
	} {
		mem := fresh()
		binary.LittleEndian.PutUint64(mem[change.at:], change.to)
		if g, err := s.Read(bytes.NewReader(mem), 0); !errors.Is(err, ErrNoGCState) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
	if g, err := s.Read(bytes.NewReader(fresh()[:1<<14]), 0); err == nil {
		t.Errorf("memory that is not there: %+v", g)
	}
}
