package bpf

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Site is a function of the runtime at which allocations are seen; the names are those of enum alloc_site in sample.h.
type Site uint8

// Sites.
const (
	SiteRefill      = Site(allocAllocSiteSITE_REFILL)
	SiteNextFree    = Site(allocAllocSiteSITE_NEXT_FREE)
	SiteLarge       = Site(allocAllocSiteSITE_LARGE)
	SiteRelease     = Site(allocAllocSiteSITE_RELEASE)
	SiteProfile     = Site(allocAllocSiteSITE_PROFILE)
	SiteMallocLarge = Site(allocAllocSiteSITE_MALLOC_LARGE)
)

// AllocTarget is what the allocation programs know of a process beside its Target: offsets of runtime.mcache and
// runtime.mspan.
type AllocTarget struct {
	McacheAlloc                                            uint32 // mcache.alloc
	SpanNelems, SpanCount, SpanClass, SpanBefore, SpanSize uint32 // SpanBefore 0: mspan.allocCountBeforeCache does not exist
	WideNelems                                             bool   // mspan.nelems has 8 bytes, not 2
	StackChecks                                            []Site // that are probed at the branch of their stack check
}

// AllocOptions for LoadAlloc. The zero value takes a stack every 512 KiB.
type AllocOptions struct {
	Interval  int64 // bytes between two samples, on average; at most MaxAllocInterval
	RingBytes int   // see Options
	NoLoop    bool  // see Options
	NoMulti   bool  // do without uprobe_multi links, as kernels before 6.10 must (for tests)
}

// Bounds of AllocOptions.Interval.
const (
	DefaultAllocInterval = 512 << 10
	MaxAllocInterval     = 1<<31 - 1
)

// AllocProbes are the loaded programs that see allocations. They are Probes of another kind: Start and Stop do nothing, for
// a process's probes are there from Attach to the end of what it returns.
type AllocProbes struct {
	feed
	objs  allocObjects
	multi bool
}

// LoadAlloc loads the programs and attaches them to process events.
func LoadAlloc(o AllocOptions) (*AllocProbes, error) {
	spec, err := loadAlloc()
	if err != nil {
		return nil, fmt.Errorf("read embedded BPF programs: %w", err)
	}
	if o.Interval == 0 {
		o.Interval = DefaultAllocInterval
	}
	if err := checkInterval(o.Interval); err != nil {
		return nil, err
	}
	if err := configure(spec, Options{RingBytes: o.RingBytes, NoLoop: o.NoLoop}); err != nil {
		return nil, err
	}
	slots := 2 * spec.Maps["scratches"].MaxEntries
	spec.Maps["scratches"].MaxEntries = slots
	if err := setVariables(spec, map[string]any{"scratch_slots": slots}); err != nil {
		return nil, err
	}
	p := &AllocProbes{multi: !o.NoMulti && haveUprobeMulti()}
	if !p.multi {
		for _, prog := range spec.Programs {
			if prog.AttachType == ebpf.AttachTraceUprobeMulti {
				prog.AttachType = ebpf.AttachNone
			}
		}
	}
	if err := loadSpec(spec, &p.objs); err != nil {
		return nil, err
	}
	p.feed.wire = allocWire
	p.feed.maps = maps{targets: p.objs.Targets, losses: p.objs.Losses, throttled: p.objs.Throttled, counters: p.objs.Counters,
		control: p.objs.Control, samples: p.objs.Samples, strangers: p.objs.Strangers}
	if err := p.SetInterval(o.Interval); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.follow(p.objs.ProcessExec, p.objs.ProcessExit); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func allocWire(t *Target) any {
	v := allocAllocTarget{Target: t.wire()}
	a := t.Alloc
	if a == nil {
		return &v
	}
	v.Target.Flags |= uint32(cpuTargetFlagTARGET_ALLOC)
	tail := a.SpanCount &^ 7
	v.McacheAlloc, v.SpanNelems, v.SpanTail = uint16(a.McacheAlloc), uint16(a.SpanNelems), uint16(tail)
	v.SpanCount, v.SpanClass, v.SpanSize = uint8(a.SpanCount-tail), uint8(a.SpanClass-tail), uint8(a.SpanSize-tail)
	if a.SpanBefore != 0 {
		v.SpanBefore = uint8(a.SpanBefore - tail)
	}
	if a.WideNelems {
		v.WideNelems = 1
	}
	for _, s := range a.StackChecks {
		v.StackChecks |= 1 << s
	}
	return &v
}

// haveUprobeMulti reports whether the kernel attaches one program to many places of one process (Linux 6.6), and sees all
// of its threads: before 6.10 and its backports it saw only the first. A kernel that does refuses a negative PID, and looks
// for any other; one that has no such links refuses all.
// Source: kernel/trace/bpf_trace.c, commit 46ba0e49b642.
func haveUprobeMulti() bool {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return false
	}
	defer prog.Close()
	exe, err := link.OpenExecutable("/proc/self/exe")
	if err != nil {
		return false
	}
	refuses := func(pid uint32, why error) bool {
		l, err := exe.UprobeMulti(nil, prog, &link.UprobeMultiOptions{Addresses: []uint64{1}, PID: pid})
		if err == nil {
			_ = l.Close() // it refuses neither
			return false
		}
		return errors.Is(err, why)
	}
	return refuses(math.MaxUint32, unix.EINVAL) && refuses(math.MaxInt32, os.ErrNotExist)
}

// Place is a Site in an executable: the offset in the file of the instruction that is probed.
type Place struct {
	Site   Site
	Offset uint64
}

// Attached are the probes of one process. They live until Close, or until pprofd ends, however it does.
type Attached struct{ links []link.Link }

// Attach probes places of an executable, for one process only: those of its threads that are, and those that come. path
// must lead to the file that the process maps. Who attaches makes sure that the places are what they are taken for.
func (p *AllocProbes) Attach(path string, pid uint32, places []Place) (*Attached, error) {
	exe, err := link.OpenExecutable(path)
	if err != nil {
		return nil, fmt.Errorf("probe process %d: %w", pid, err)
	}
	if err := p.countTotals(pid); err != nil {
		return nil, err
	}
	a := &Attached{}
	for _, place := range places {
		l, err := p.attachOne(exe, pid, place)
		if err != nil {
			return nil, errors.Join(explain(fmt.Sprintf("probe process %d at %#x of %s", pid, place.Offset, path), err), a.Close())
		}
		a.links = append(a.links, l)
	}
	return a, nil
}

func (p *AllocProbes) attachOne(exe *link.Executable, pid uint32, place Place) (link.Link, error) {
	prog := map[Site]*ebpf.Program{
		SiteRefill: p.objs.AllocRefill, SiteNextFree: p.objs.AllocNextFree, SiteLarge: p.objs.AllocLarge,
		SiteRelease: p.objs.AllocRelease, SiteProfile: p.objs.AllocProfile, SiteMallocLarge: p.objs.AllocMallocLarge,
	}[place.Site]
	if p.multi {
		return exe.UprobeMulti(nil, prog, &link.UprobeMultiOptions{Addresses: []uint64{place.Offset}, PID: pid})
	}
	return exe.Uprobe("", prog, &link.UprobeOptions{Address: place.Offset, PID: int(pid)})
}

// Close takes the probes away. It waits until no thread is in one any more, which takes tens of milliseconds; the process
// goes on meanwhile, without.
func (a *Attached) Close() error {
	errs := make([]error, len(a.links))
	var wait sync.WaitGroup
	for i, l := range a.links {
		wait.Go(func() { errs[i] = l.Close() })
	}
	wait.Wait()
	a.links = nil
	return errors.Join(errs...)
}

// AllocTotal is all that a process has allocated of a class of objects while it was probed.
type AllocTotal struct {
	Class uint32 // the runtime's span class (twice the size class, plus 1 without pointers), or ClassAlways
	Bytes uint64
	Hits  uint64 // of the probes
	Size  int64  // of an object, in classes of one size; 0: large objects
}

// ClassAlways is the class of objects that are each in the profile, since they are as large as the interval.
const ClassAlways = 1

// Totals reads what pid has allocated since it was probed first. The numbers only grow until ForgetTotals.
func (p *AllocProbes) Totals(pid uint32) ([]AllocTotal, error) {
	var v allocAllocTotals
	if err := p.objs.Allocated.Lookup(pid, &v); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read what process %d has allocated: %w", pid, err)
	}
	var all []AllocTotal
	for class, c := range v.Of {
		if c.Hits == 0 {
			continue
		}
		t := AllocTotal{Class: uint32(class), Bytes: c.Bytes, Hits: c.Hits}
		if class > ClassAlways {
			t.Size = int64(c.Size)
		}
		all = append(all, t)
	}
	return all, nil
}

// countTotals begins to count what pid allocates, unless it is counted already.
func (p *AllocProbes) countTotals(pid uint32) error {
	if err := p.objs.Allocated.Update(pid, new(allocAllocTotals), ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("count what process %d allocates: %w", pid, err)
	}
	return nil
}

// ForgetTotals starts anew for pid, which must not be probed any more: what its probes see meanwhile would be lost.
func (p *AllocProbes) ForgetTotals(pid uint32) error {
	if err := p.objs.Allocated.Delete(pid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget what process %d has allocated: %w", pid, err)
	}
	return nil
}

// Start does nothing: see Attach.
func (*AllocProbes) Start() error { return nil }

// Stop does nothing: see Attached.Close.
func (*AllocProbes) Stop() error { return nil }

// Event is EventUprobe.
func (*AllocProbes) Event() Event { return EventUprobe }

// EventUprobe is what triggers samples of allocations.
const EventUprobe Event = "uprobe"

// Close frees everything but what Attach returned.
func (p *AllocProbes) Close() error {
	return errors.Join(p.feed.close(), p.objs.Close())
}
