package goruntime

import (
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/pprofd/pprofd/objfile"
)

// GCOffsets are byte offsets of fields of runtime.mstats and runtime.gcControllerState; sources: runtime/mstats.go,
// runtime/mgcpacer.go of each Go version. 0: there is no such field.
type GCOffsets struct {
	StatLastGC, StatPauseTotal, StatPauseEnd, StatNumGC, StatFraction uint32 // last_gc_unix, pause_total_ns, pause_end, numgc, gc_cpu_fraction
	StatInUse                                                         uint32 // heap_inuse, up to Go 1.18

	CtlLive, CtlMarked                 uint32 // heapLive, heapMarked
	CtlGoal, CtlSweepMin, CtlTriggered uint32 // gcPercentHeapGoal (in Go 1.18 heapGoal), sweepDistMinTrigger, triggered
	CtlLimit, CtlInUse, CtlTotalAlloc  uint32 // memoryLimit, heapInUse, totalAlloc; since Go 1.19
	CtlEnd                             uint32 // behind the last of them
}

// gcRow are the offsets in one Go minor version; generated from DWARF into gcstate_table.go.
type gcRow struct {
	minor int
	off   GCOffsets
}

// GCFromDWARF reads the layouts of runtime.mstats and runtime.gcControllerState.
func GCFromDWARF(d *dwarf.Data) (GCOffsets, error) {
	const stats, controller = "runtime.mstats", "runtime.gcControllerState"
	structs, err := findStructs(d, map[string]bool{stats: true, controller: true})
	if err != nil {
		return GCOffsets{}, err
	}
	s, c := structs[stats], structs[controller]
	o := GCOffsets{
		StatLastGC: s["last_gc_unix"], StatPauseTotal: s["pause_total_ns"], StatPauseEnd: s["pause_end"], StatNumGC: s["numgc"],
		StatFraction: s["gc_cpu_fraction"], StatInUse: s["heap_inuse"],
		CtlLive: c["heapLive"], CtlMarked: c["heapMarked"], CtlGoal: c["gcPercentHeapGoal"], CtlSweepMin: c["sweepDistMinTrigger"],
		CtlTriggered: c["triggered"], CtlLimit: c["memoryLimit"], CtlInUse: c["heapInUse"], CtlTotalAlloc: c["totalAlloc"],
	}
	if o.CtlGoal == 0 {
		o.CtlGoal = c["heapGoal"]
	}
	if o.StatLastGC == 0 || o.StatPauseEnd == 0 || o.StatNumGC == 0 || o.CtlLive == 0 || o.CtlMarked == 0 || o.CtlGoal == 0 {
		return o, errors.New("DWARF: runtime.mstats or runtime.gcControllerState lacks expected members")
	}
	o.CtlEnd = 8 + max(o.CtlLive, o.CtlMarked, o.CtlGoal, o.CtlSweepMin, o.CtlTriggered, o.CtlLimit, o.CtlInUse, o.CtlTotalAlloc)
	return o, nil
}

// GCState says where a program's runtime counts its memory and its garbage collections.
type GCState struct {
	GCOffsets
	Stats, Controller uint64 // link-time addresses of runtime.memstats, runtime.gcController
}

// ErrNoGCState is wrapped by errors that say why a program's heap and garbage collections cannot be read.
var ErrNoGCState = errors.New("its heap and garbage collections cannot be read")

// Positions of the two variables among the distinct pc-relative operands in writable segments of functions that use them, see variable.
const (
	statsInAllocLarge   = 1 // since Go 1.19, of which mstats begins with what allocLarge counts
	statsInReadmemstats = 0
	controllerInCommit  = 1 // since Go 1.19
	controllerInBalance = 1 // of (*gcWork).balance, up to Go 1.25
)

// FindGCState finds them in f, whose build information says version. Errors wrap ErrNoGCState. Nothing is verified before Read.
func FindGCState(f *objfile.File, version string) (GCState, error) {
	t, err := f.Pclntab()
	if err != nil {
		return GCState{}, fmt.Errorf("%w: %w", ErrNoGCState, err)
	}
	const large, read, commit, balance = "runtime.(*mcache).allocLarge", "runtime.readmemstats_m", "runtime.gcControllerCommit", "runtime.(*gcWork).balance"
	p := &program{file: f, table: t, mach: f.Machine(), funcs: t.Lookup(large, read, commit, balance)}
	rel := parseVersion(version)
	var s GCState
	if s.GCOffsets, err = gcOffsets(f, rel); err != nil {
		return s, fmt.Errorf("%w: Go version %q: %w", ErrNoGCState, version, err)
	}
	if rel.minor == 18 {
		s.Stats, s.Controller = p.variable("runtime.memstats", read, statsInReadmemstats), p.variable("runtime.gcController", balance, controllerInBalance)
	} else {
		s.Stats, s.Controller = p.variable("runtime.memstats", large, statsInAllocLarge), p.variable("runtime.gcController", commit, controllerInCommit)
	}
	if s.Stats == 0 || s.Controller == 0 {
		return s, fmt.Errorf("%w: Go version %q: runtime.memstats and runtime.gcController were not found", ErrNoGCState, version)
	}
	return s, nil
}

// gcOffsets are those of the program's version: from the table, else from DWARF, else, where it is newer, the newest ones, which Read
// verifies.
func gcOffsets(f *objfile.File, rel release) (GCOffsets, error) {
	rows := gcTable()
	for _, r := range rows {
		if r.minor == rel.minor {
			return r.off, nil
		}
	}
	u, err := openUnits(f)
	if err == nil {
		var off GCOffsets
		if off, err = inUnits(u, GCFromDWARF); err == nil {
			return off, nil
		}
	}
	if newest := rows[len(rows)-1]; rel.minor == 0 || rel.minor > newest.minor {
		return newest.off, nil
	}
	return GCOffsets{}, fmt.Errorf("how it counts garbage collections is unknown, and there is no DWARF that says so: %w", err)
}

// GC is what a process's runtime counts of its heap and of garbage collections.
type GC struct {
	Live       uint64        // bytes that the last collection has left, and that were allocated since
	InUse      uint64        // bytes of spans that hold objects, as runtime.MemStats.HeapInuse
	Goal       uint64        // the next collection is to end before the heap is so large; 0: there will be none (GOGC=off)
	Limit      uint64        // debug.SetMemoryLimit; 0: none. Near it Goal is lower than said here
	TotalAlloc uint64        // bytes ever allocated but for those in spans that are being filled; 0: not known
	Cycles     uint32        // collections
	PauseTotal time.Duration // for which all was stopped, since the process began
	Last       time.Time     // when the last one ended; zero: there was none
	Fraction   float64       // of the CPU time that the process could have had, since it began
}

// pauses is how many ends of collections runtime.mstats remembers.
const pauses = 256

// maxHeap is more than the runtime's arenas can have (runtime/malloc.go: heapAddrBits).
const maxHeap = 1 << 48

// Read reads them. mem is the process's memory, bias its run-time minus link-time addresses. The error wraps ErrNoGCState where what is
// there makes no sense.
func (s *GCState) Read(mem io.ReaderAt, bias uint64) (g GC, err error) {
	for range verifyTries { // a collection may end in between
		if g, err = s.read(mem, bias); !errors.Is(err, errMoved) {
			return g, err
		}
	}
	return g, fmt.Errorf("%w: %w", ErrNoGCState, err)
}

var errMoved = errors.New("runtime.memstats is not where it was expected")

func (s *GCState) read(mem io.ReaderAt, bias uint64) (GC, error) {
	end := max(s.StatFraction, s.StatNumGC, s.StatInUse, s.StatPauseEnd+8*pauses) + 8
	stats, ctl := make([]byte, end), make([]byte, s.CtlEnd)
	if err := readFull(mem, s.Stats+bias, stats); err != nil {
		return GC{}, fmt.Errorf("read runtime.memstats: %w", err)
	}
	if err := readFull(mem, s.Controller+bias, ctl); err != nil {
		return GC{}, fmt.Errorf("read runtime.gcController: %w", err)
	}
	g := GC{
		Cycles: binary.LittleEndian.Uint32(stats[s.StatNumGC:]), PauseTotal: time.Duration(word(stats, s.StatPauseTotal)),
		Fraction: math.Float64frombits(word(stats, s.StatFraction)), Live: word(ctl, s.CtlLive), TotalAlloc: word(ctl, s.CtlTotalAlloc),
	}
	last := word(stats, s.StatLastGC)
	if last != word(stats, s.StatPauseEnd+8*((g.Cycles+pauses-1)%pauses)) || (last == 0) != (g.Cycles == 0) {
		return GC{}, errMoved
	}
	if last != 0 {
		g.Last = time.Unix(0, int64(last))
	}
	if g.InUse = word(stats, s.StatInUse); s.CtlInUse != 0 {
		g.InUse = word(ctl, s.CtlInUse)
	}
	s.goal(&g, ctl)
	if g.Live >= maxHeap || g.InUse >= maxHeap || g.InUse%pageSize != 0 || word(ctl, s.CtlMarked) >= maxHeap || !(g.Fraction >= 0 && g.Fraction <= 1) {
		return GC{}, fmt.Errorf("%w: runtime.gcController says that %d bytes live in %d", ErrNoGCState, g.Live, g.InUse)
	}
	return g, nil
}

// pageSize of the heap (runtime/sizeclasses.go).
const pageSize = 8 << 10

// goal is what the pacer wants but for the memory limit (runtime/mgcpacer.go: heapGoalInternal).
func (s *GCState) goal(g *GC, ctl []byte) {
	const none, runway = math.MaxUint64, 64 << 10
	if limit := word(ctl, s.CtlLimit); limit != math.MaxInt64 {
		g.Limit = limit
	}
	if g.Goal = word(ctl, s.CtlGoal); g.Goal == none {
		g.Goal = g.Limit
		return
	}
	g.Goal = max(g.Goal, word(ctl, s.CtlSweepMin))
	if t := word(ctl, s.CtlTriggered); s.CtlTriggered != 0 && t != none && t < maxHeap {
		g.Goal = max(g.Goal, t+runway)
	}
	if g.Limit != 0 {
		g.Goal = min(g.Goal, g.Limit)
	}
}
