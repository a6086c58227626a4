package bpf

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

const attachEnv = "PPROFD_TEST_ATTACH"

// attachAndWait is the process that TestProbesEndWithTheirOwner kills.
func attachAndWait(t *testing.T, args string) {
	var o AllocOptions
	var pid uint32
	var path string
	var offset uint64
	if _, err := fmt.Sscan(args, &pid, &path, &offset, &o.NoMulti); err != nil {
		t.Fatal(err)
	}
	p, err := LoadAlloc(o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.Attach(path, pid, []Place{{SiteLarge, offset}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("attached")
	time.Sleep(time.Minute)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestProbesEndWithTheirOwner: kill -9 of who attached takes its probes with it: the target has the file's bytes again, and
// no link to it is left in the kernel.
func TestProbesEndWithTheirOwner(t *testing.T) {
	if args := os.Getenv(attachEnv); args != "" {
		attachAndWait(t, args)
		return
	}
	needs.BPF(t)
	path := testprog.Build(t, "alloc", testprog.Options{})
	proc := testprog.Start(t, path, "-now", "-rate", "10")
	addr, offset := functionIn(t, path, "runtime.(*mcache).allocLarge")
	before := codeOf(t, proc.PID, addr)
	multi := haveUprobeMulti()
	for _, noMulti := range []bool{false, true} {
		owner := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestProbesEndWithTheirOwner$")
		owner.Env = append(os.Environ(), attachEnv+"="+fmt.Sprintln(proc.PID, path, offset, noMulti))
		out, err := owner.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := owner.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		if line != "attached\n" {
			t.Errorf("it says %q", line)
		}
		if got, links := codeOf(t, proc.PID, addr), linksTo(t, proc.PID); bytes.Equal(got, before) || multi && !noMulti && links != 1 {
			t.Errorf("while attached: %d links, code % x, before % x", links, got, before)
		}
		if err := owner.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = owner.Wait()
		waitGone(t, proc.PID, addr, before)
	}
}

// waitGone waits until the process has its code back and no link leads to it: the kernel ends links a little later.
func waitGone(t *testing.T, pid int, addr uint64, before []byte) {
	t.Helper()
	for range 500 {
		if bytes.Equal(codeOf(t, pid, addr), before) && linksTo(t, pid) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("5 s later there are %d links, and the code is % x, before % x", linksTo(t, pid), codeOf(t, pid, addr), before)
}

// functionIn is where a function begins behind its first instruction: its address and its offset in the file.
func functionIn(t *testing.T, path, name string) (addr, offset uint64) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range syms {
		text := f.Section(".text")
		if s.Name == name {
			addr = s.Value + 4 // cmp of the stack check; on arm64 the load
			return addr, addr - text.Addr + text.Offset
		}
	}
	t.Fatalf("%s has no %s", path, name)
	return 0, 0
}

func codeOf(t *testing.T, pid int, addr uint64) []byte {
	t.Helper()
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 8)
	if _, err := f.ReadAt(b, int64(addr)); err != nil {
		t.Fatal(err)
	}
	return b
}

// linksTo counts the links that probe a process.
func linksTo(t *testing.T, pid int) (n int) {
	t.Helper()
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			continue // it has gone
		}
		if multi := info.UprobeMulti(); multi != nil {
			if of, ok := multi.Pid(); ok && of == uint32(pid) {
				n++
			}
		}
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAttachRefused: errors name the process and the file.
func TestAttachRefused(t *testing.T) {
	needs.BPF(t)
	for _, noMulti := range []bool{false, true} {
		p, err := LoadAlloc(AllocOptions{NoMulti: noMulti})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Attach("/proc/self/exe", 1<<30, []Place{{SiteLarge, 0x1000}}); err == nil || !strings.Contains(err.Error(), "process 1073741824") {
			t.Errorf("no process: %v", err)
		}
		if _, err := p.Attach("/no/such/file", 1, nil); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no file: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := LoadAlloc(AllocOptions{Interval: MaxAllocInterval + 1}); err == nil {
		t.Error("an interval that the programs cannot have is accepted")
	}
}

// TestLatencyOfAttaching tells how long a program is held up while it is probed, and while its probes are taken away: the
// longest time between two of its allocations, round by round, with that and without.
func TestLatencyOfAttaching(t *testing.T) {
	needs.BPF(t)
	path := testprog.Build(t, "alloc", testprog.Options{})
	p, err := LoadAlloc(AllocOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, large := functionIn(t, path, "runtime.(*mcache).allocLarge")
	_, refill := functionIn(t, path, "runtime.(*mcache).refill")
	worst := map[bool][]time.Duration{}
	for _, attaching := range []bool{false, true, false, true, false, true} {
		proc := testprog.Start(t, path, "-now", "-gaps", "-workers", "1", "-mb", "50", "-gc", "-1", "-life", "4s")
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
			if !attaching {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			a, err := p.Attach(path, uint32(proc.PID), []Place{{SiteLarge, large}, {SiteRefill, refill}})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
		}
		worst[attaching] = append(worst[attaching], longest(t, proc.Lines())...)
	}
	for attaching, d := range worst {
		slices.Sort(d)
		t.Logf("attaching %t: %d rounds, longest pause: median %v, 90 %% %v, most %v", attaching, len(d), d[len(d)/2], d[len(d)*9/10], d[len(d)-1])
	}
	before, with := worst[false][len(worst[false])/2], worst[true][len(worst[true])/2]
	if with > before+50*time.Millisecond {
		t.Errorf("while it is probed the program is held up for %v, else %v", with, before)
	}
}

// longest are the pauses that the program alloc tells of.
func longest(t *testing.T, lines []string) (all []time.Duration) {
	t.Helper()
	for _, line := range lines {
		var ns int64
		if n, _ := fmt.Sscanf(line, "longest %d", &ns); n == 1 {
			all = append(all, time.Duration(ns))
		}
	}
	if len(all) == 0 {
		t.Fatalf("no pauses in %q", lines)
	}
	return all
}

// BenchmarkAttach: how long it takes to probe a process, and to take the probes away.
func BenchmarkAttach(b *testing.B) {
	needs.BPF(b)
	path := testprog.Build(b, "alloc", testprog.Options{})
	proc := testprog.Start(b, path)
	p, err := LoadAlloc(AllocOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	var attach, detach time.Duration
	for b.Loop() {
		start := time.Now()
		a, err := p.Attach(path, uint32(proc.PID), []Place{{SiteLarge, 0x1000}})
		if err != nil {
			b.Fatal(err)
		}
		attach += time.Since(start)
		start = time.Now()
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
		detach += time.Since(start)
	}
	b.ReportMetric(attach.Seconds()*1000/float64(b.N), "ms/attach")
	b.ReportMetric(detach.Seconds()*1000/float64(b.N), "ms/detach")
}
