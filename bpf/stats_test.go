package bpf

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestTargetsAndLossesGo: each entry that is made can be given back, and one that exit has removed does not come again.
func TestTargetsAndLossesGo(t *testing.T) {
	p := load(t, Options{Frequency: 1999, Event: EventCPUClock, RingBytes: os.Getpagesize()})
	use := func(targets, losses int) {
		t.Helper()
		if u, err := p.Use(); err != nil || u.Targets != targets || u.Losses != losses || u.Bytes < uint64(os.Getpagesize()) {
			t.Errorf("%+v, %v; want %d targets, %d losses", u, err, targets, losses)
		}
	}
	pid := uint32(os.Getpid())
	if err := p.UpdateTarget(pid, &Target{}); err != nil {
		t.Error(err)
	}
	use(0, 0)
	child := exec.CommandContext(t.Context(), "cat")
	in, err := child.StdinPipe()
	if err := errors.Join(err, child.Start()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.SetTarget(pid, &Target{}), p.SetTarget(uint32(child.Process.Pid), &Target{}), p.Start()); err != nil {
		t.Fatal(err)
	}
	use(2, 0)
	if err := errors.Join(in.Close(), child.Wait()); err != nil {
		t.Fatal(err)
	}
	if err := p.UpdateTarget(uint32(child.Process.Pid), &Target{}); err != nil {
		t.Error(err)
	}
	use(1, 0)
	burn(300 * time.Millisecond) // nobody reads
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	use(1, 1)
	for _, want := range []bool{true, false} {
		if was, err := p.RemoveTarget(pid); was != want || err != nil {
			t.Errorf("removed: %v, %v; want %v", was, err, want)
		}
		if err := p.ForgetLosses(pid); err != nil {
			t.Error(err)
		}
		use(0, 0)
	}
}

// TestCloseFreesEverything: what the kernel made for us is gone after Close, each time. Descriptors alone do not tell, since
// events, links and mapped rings keep programs and maps, too.
func TestCloseFreesEverything(t *testing.T) {
	times := 50
	switch {
	case os.Getenv("PPROFD_FULL") == "1":
		times = 1000
	case testprog.Emulated(): // there the newest kernels take five seconds to verify the programs
		times = 10
	}
	load(t, Options{}) // what the libraries keep for good
	before := heap()
	for i := range times {
		p, err := Load(Options{})
		if err != nil {
			t.Fatal(err)
		}
		ids := objectIDs(t, p)
		if i%2 == 1 {
			if err := errors.Join(p.SetTarget(uint32(os.Getpid()), &Target{}), p.Start()); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if i < 3 || i > times-3 {
			wantGone(t, ids)
		}
	}
	if after := heap(); after > before+(1<<20) {
		t.Errorf("%d bytes in use after %d loads, %d before", after, times, before)
	}
}

// ids of a Probes' kernel objects.
type ids struct {
	maps     []ebpf.MapID
	programs []ebpf.ProgramID
}

func objectIDs(t *testing.T, p *Probes) (all ids) {
	t.Helper()
	for _, m := range []*ebpf.Map{p.objs.Targets, p.objs.Samples, p.objs.Counters, p.objs.Losses, p.objs.Scratches} {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		all.maps = append(all.maps, id)
	}
	programs, err := p.Programs()
	if err != nil {
		t.Fatal(err)
	}
	for _, prog := range programs {
		all.programs = append(all.programs, ebpf.ProgramID(prog.ID))
	}
	return all
}

// wantGone waits for the kernel, which frees after a grace period.
func wantGone(t *testing.T, all ids) {
	t.Helper()
	gone := func(c interface{ Close() error }, err error) bool {
		if err == nil {
			c.Close()
		}
		return errors.Is(err, os.ErrNotExist)
	}
	await := func(what string, gone func() bool) {
		for end := time.Now().Add(10 * time.Second); !gone(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is still in the kernel", what)
			}
		}
	}
	for _, id := range all.maps {
		await("a map", func() bool { m, err := ebpf.NewMapFromID(id); return gone(m, err) })
	}
	for _, id := range all.programs {
		await("a program", func() bool { p, err := ebpf.NewProgramFromID(id); return gone(p, err) })
	}
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
