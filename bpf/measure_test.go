package bpf

import (
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestMeasureTick: what it finds is what this process loses while all CPUs are sampled of which it is no target, within a factor
// of 3: other processes' caches and the host's CPUs differ from moment to moment.
func TestMeasureTick(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := load(t, Options{Frequency: 5000, Event: EventCPUClock})
	began := threadTime()
	tick, err := MeasureTick()
	if err != nil {
		t.Fatal(err)
	}
	took := threadTime() - began
	n := spinsFor(20 * time.Millisecond)
	var lost []time.Duration
	for range 15 {
		without := threadTimeOf(func() { spin(n) })
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		with := threadTimeOf(func() { spin(n) })
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
		lost = append(lost, time.Duration(float64(with-without)/float64(with)*float64(time.Second/5000)))
	}
	all := median(lost)
	t.Logf("MeasureTick %v, which took %v; by a whole Probes %v", tick, took, all)
	if tick <= 0 || tick > tickPeriod/2 || float64(tick) > 3*float64(all) || float64(all) > 3*float64(tick)+float64(time.Microsecond) {
		t.Errorf("a tick costs %v; with Probes %v", tick, all)
	}
}

// TestMeasureTrap: it is what a counting probe costs, which runs no program, and little more. Afterwards nothing is probed.
func TestMeasureTrap(t *testing.T) {
	needs.BPF(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := time.Now()
	hit, err := MeasureTrap()
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	after := timeCalls()
	counted := countedCall(t)
	t.Logf("MeasureTrap %v, which took %v; a probe that only counts %v; without %v", hit, took, counted, after)
	if hit < 100*time.Nanosecond || hit > time.Millisecond || after > hit/4 {
		t.Errorf("a hit costs %v, the same call without %v", hit, after)
	}
	if float64(hit) > 2.5*float64(counted) || float64(counted) > 2.5*float64(hit) {
		t.Errorf("a hit costs %v; of a probe that only counts %v", hit, counted)
	}
}

// countedCall is what a call of trap takes while a perf event counts it, of which no program knows.
func countedCall(t *testing.T) time.Duration {
	t.Helper()
	offset, err := ownOffset(trapAddr())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/sys/bus/event_source/devices/uprobe/type")
	if err != nil {
		t.Fatal(err)
	}
	kind, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	path := []byte("/proc/self/exe\x00")
	attr := unix.PerfEventAttr{Type: uint32(kind), Ext1: uint64(uintptr(unsafe.Pointer(&path[0]))), Ext2: offset}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	runtime.KeepAlive(path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const calls = rounds * trapCalls
	took := timeCalls()
	counted := make([]byte, 8)
	if _, err := unix.Read(fd, counted); err != nil {
		t.Fatal(err)
	}
	if n := binary.NativeEndian.Uint64(counted); n != calls {
		t.Errorf("%d of %d calls were counted: the probe is not where it should be", n, calls)
	}
	return took
}
