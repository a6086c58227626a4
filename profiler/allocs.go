package profiler

import (
	"debug/elf"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
)

// allocs is what a Profiler of allocations has beside: probes in the code of its targets.
type allocs struct {
	probes  *bpf.AllocProbes
	sites   map[objfile.ImageID]foundSites
	sizes   []int64 // of objects, by number
	certain []bool  // by number: each object is in the profile, since it was as large as the interval
	number  map[objectSize]uint16
}

type objectSize struct {
	bytes   int64
	certain bool
}

type foundSites struct {
	goruntime.AllocSites
	err error
}

// allocTarget is how the allocations of one process are seen.
type allocTarget struct {
	sites    goruntime.AllocSites
	rate     int64 // of the runtime's own sampling, which is what is probed; 0: every span that is used up is
	attached *bpf.Attached
	ending   sync.WaitGroup   // of what was attached before
	totals   []allocTotal     // but for what has not been taken from the kernel yet
	taken    []bpf.AllocTotal // what has been, of all that the kernel has counted
	duty     duty

	unverified bool // the live process was too young to check the sites against

	own      uint64 // the runtime's own count of bytes at the beginning
	ownKnown bool
}

// allocTotal is what was allocated of a class, an estimate where it was not probed all the time.
type allocTotal struct {
	class uint32
	size  int64
	bytes float64
}

// maxSizes bounds the distinct sizes of objects; further ones count as the next power of two. maxObject bounds the size, which
// the process tells: no address space is larger.
const (
	maxSizes  = math.MaxUint16 - 128
	maxObject = 1 << 48
)

// openAllocs loads the programs that see allocations.
func (c *Config) openAllocs() (*allocs, error) {
	probes, err := bpf.LoadAlloc(bpf.AllocOptions{Interval: c.AllocInterval, NoLoop: c.noLoop, NoMulti: c.noMulti})
	if err != nil {
		return nil, err
	}
	return &allocs{probes: probes, sites: make(map[objfile.ImageID]foundSites), sizes: []int64{0}, certain: []bool{false}, number: make(map[objectSize]uint16)}, nil
}

// of returns the sites of an image that is a Go program.
func (a *allocs) of(im *objfile.Image) (goruntime.AllocSites, error) {
	if found, ok := a.sites[im.ID]; ok {
		return found.AllocSites, found.err
	}
	if len(a.sites) >= maxLayouts {
		clear(a.sites)
	}
	var found foundSites
	version := ""
	if info, err := im.File.BuildInfo(); err == nil {
		version = info.GoVersion
	}
	found.AllocSites, found.err = goruntime.FindAllocSites(im.File, version)
	a.sites[im.ID] = found
	return found.AllocSites, found.err
}

// sizeNumber names a size of objects for the table.
func (a *allocs) sizeNumber(size int64, certain bool) uint16 {
	k := objectSize{size, certain}
	if n, ok := a.number[k]; ok {
		return n
	}
	if len(a.sizes) >= maxSizes {
		k.bytes = int64(1) << bits.Len64(uint64(max(size, 1)-1))
		if n, ok := a.number[k]; ok {
			return n
		}
	}
	n := uint16(len(a.sizes))
	a.sizes, a.certain, a.number[k] = append(a.sizes, k.bytes), append(a.certain, certain), n
	return n
}

// findAllocs learns where t's allocations can be seen, and checks that against the live process.
func (p *Profiler) findAllocs(t *target) error {
	if p.allocs == nil {
		return nil
	}
	m := t.space.Main()
	if m == nil || m.Image.File == nil {
		return objfile.ErrNotGo
	}
	if m.Image.File.InMemory() {
		return fmt.Errorf("%w: its code lies in anonymous memory (a packed program)", goruntime.ErrNoAllocSites)
	}
	a := &allocTarget{}
	if t.alloc != nil { // of the program before its exec
		a.totals = t.alloc.totals
	}
	var err error
	if a.sites, err = p.allocs.of(m.Image); err != nil {
		return err
	}
	mem := memory{t.space}
	if a.rate, err = ownRate(m, mem); err != nil {
		return err
	}
	if err := a.sites.Verify(mem, m.Bias); err != nil {
		if t.age() >= time.Second && !errors.Is(err, goruntime.ErrYoung) {
			return err
		}
		a.unverified = true // until then the kernel side checks each span that it is to read
	}
	if err := goruntime.VerifySites(mem, m.Bias, a.chosen()); err != nil {
		return err
	}
	t.alloc = a
	return nil
}

// ownRate is the rate at which the runtime of a process samples allocations itself; 0: it does not.
func ownRate(m *objfile.Mapping, mem memory) (int64, error) {
	version := ""
	if info, err := m.Image.File.BuildInfo(); err == nil {
		version = info.GoVersion
	}
	own, err := goruntime.FindMemProfile(m.Image.File, version)
	if errors.Is(err, goruntime.ErrNoMemProfile) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return own.ReadRate(mem, m.Bias)
}

// chosen are the sites that are probed: where the runtime samples, its samples are taken.
func (a *allocTarget) chosen() []goruntime.Site {
	if a.rate > 0 && a.sites.Profile != nil {
		return a.sites.Profile
	}
	return a.sites.Heap
}

// wire is what the kernel side must know of t's heap.
func (a *allocTarget) wire() *bpf.AllocTarget {
	o := &a.sites.Heaps
	w := &bpf.AllocTarget{
		McacheAlloc: o.McacheAlloc, SpanNelems: o.SpanNelems, SpanCount: o.SpanCount, SpanClass: o.SpanClass,
		SpanBefore: o.SpanBefore, SpanSize: o.SpanSize, WideNelems: o.NelemsBytes == 8,
	}
	for _, s := range a.chosen() {
		if s.StackCheck {
			w.StackChecks = append(w.StackChecks, site(s.Func))
		}
	}
	return w
}

func site(f goruntime.AllocFunc) bpf.Site {
	return map[goruntime.AllocFunc]bpf.Site{
		goruntime.Refill: bpf.SiteRefill, goruntime.NextFree: bpf.SiteNextFree, goruntime.AllocLarge: bpf.SiteLarge,
		goruntime.ReleaseAll: bpf.SiteRelease, goruntime.ProfileAlloc: bpf.SiteProfile, goruntime.MallocLarge: bpf.SiteMallocLarge,
	}[f]
}

// attachAllocs probes t, which is a target, once Run has begun.
func (p *Profiler) attachAllocs(t *target) error {
	if t.alloc == nil || p.started.IsZero() || p.rate.off || t.alloc.attached != nil {
		return nil
	}
	m := t.space.Main()
	sites := t.alloc.chosen()
	f, err := p.openCode(t, m, sites)
	if err != nil {
		return err
	}
	defer f.Close()
	places := make([]bpf.Place, 0, len(sites))
	for _, s := range sites {
		places = append(places, bpf.Place{Site: site(s.Func), Offset: fileOffset(m.Image.File, s.Addr)})
	}
	attached, err := p.allocs.probes.Attach(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), t.pid, places)
	if err != nil {
		return err
	}
	if !t.current() { // it has executed another program meanwhile
		return errors.Join(attached.Close(), fmt.Errorf("%w: it runs another program by now", objfile.ErrProcessGone))
	}
	t.alloc.attached = attached
	if t.alloc.duty.n == 0 && t.alloc.duty.at == 0 {
		t.alloc.duty = newDuty()
		t.alloc.countTotal(t)
	}
	return nil
}

// openCode opens the file whose code t runs: the very one that is mapped, not what its path leads to. Its bytes must be
// those that the sites were found in.
func (p *Profiler) openCode(t *target, m *objfile.Mapping, sites []goruntime.Site) (*os.File, error) {
	vma, err := p.mappingOf(t, sites[0].Addr+m.Bias)
	if err != nil {
		return nil, err
	}
	f, err := openMapping(p.procs.Proc(int(t.pid)), &vma)
	if err != nil {
		return nil, fmt.Errorf("open the code of the process: %w", err)
	}
	for _, s := range sites {
		b := make([]byte, len(s.Code))
		if _, err := f.ReadAt(b, int64(fileOffset(m.Image.File, s.Addr))); err != nil || string(b) != string(s.Code) {
			return nil, errors.Join(fmt.Errorf("%w: its file was changed: % x where % x is expected", goruntime.ErrNoAllocSites, b, s.Code), err, f.Close())
		}
	}
	return f, nil
}

// mappingOf finds what t has mapped at an address.
func (p *Profiler) mappingOf(t *target, addr uint64) (procfs.Map, error) {
	for vma, err := range p.procs.Proc(int(t.pid)).Maps() {
		if err != nil {
			return vma, err
		}
		if addr >= vma.Start && addr < vma.End {
			return vma, nil
		}
	}
	return procfs.Map{}, fmt.Errorf("%w: nothing is mapped at %#x any more", objfile.ErrProcessGone, addr)
}

// openMapping opens a file that a process maps by the kernel's link to its executable, where that is the file, else by that
// to the mapping, which takes CAP_CHECKPOINT_RESTORE.
func openMapping(proc procfs.Proc, vma *procfs.Map) (*os.File, error) {
	if f, err := os.Open(proc.Path("exe")); err == nil {
		if isMapped(proc, f, vma) {
			return f, nil
		}
		_ = f.Close() // it was opened to be read
	}
	return os.Open(proc.Path(fmt.Sprintf("map_files/%x-%x", vma.Start, vma.End)))
}

// isMapped: the executable f of proc is what vma maps. On overlay and btrfs the mapping names another device: then the
// kernel must give both the same path.
func isMapped(proc procfs.Proc, f *os.File, vma *procfs.Map) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Ino != vma.Inode {
		return false
	}
	if unix.Major(st.Dev) == vma.Dev.Major && unix.Minor(st.Dev) == vma.Dev.Minor {
		return true
	}
	exe, err := proc.Exe()
	return err == nil && strings.TrimSuffix(exe, " (deleted)") == vma.Path
}

// fileOffset is where a link-time address lies in the file.
func fileOffset(f *objfile.File, addr uint64) uint64 {
	for _, s := range f.Segments() {
		if s.Type == elf.PT_LOAD && addr >= s.Vaddr && addr-s.Vaddr < s.Filesz {
			return addr - s.Vaddr + s.Off
		}
	}
	return 0 // never code: there is the ELF header
}

// verifyAllocsLater verifies what was too young before, and takes the probes away where that fails.
func (p *Profiler) verifyAllocsLater(t *target) {
	if t.alloc == nil || !t.alloc.unverified || t.space == nil || t.age() < time.Second {
		return
	}
	err := t.alloc.sites.Verify(memory{t.space}, t.bias)
	if t.alloc.unverified = errors.Is(err, goruntime.ErrYoung); t.alloc.unverified {
		return
	}
	if err != nil && p.alive(&t.process) {
		p.detachAllocs(t)
		p.note("process %d (%s): %v", t.pid, t.comm, err)
	}
}

// detachAllocs takes t's probes away, and waits until they are gone.
func (p *Profiler) detachAllocs(t *target) {
	p.beginDetach(t)
	if t.alloc != nil {
		t.alloc.ending.Wait()
	}
}

// beginDetach takes t's probes away in the background: they are gone at once, but the kernel then waits for its readers.
func (p *Profiler) beginDetach(t *target) {
	if t.alloc == nil || t.alloc.attached == nil {
		return
	}
	attached := t.alloc.attached
	t.alloc.attached = nil
	t.alloc.ending.Go(func() {
		if err := attached.Close(); err != nil {
			p.note("process %d (%s): %v", t.pid, t.comm, err)
		}
	})
}

// endAllocs detaches t, which has ended, and keeps what it has allocated.
func (p *Profiler) endAllocs(t *target) {
	if t.alloc == nil {
		return
	}
	p.detachAllocs(t)
	p.keepTotals(t, t.alloc.duty.weight)
	if err := p.allocs.probes.ForgetTotals(t.pid); err != nil {
		p.note("process %d (%s): %v", t.pid, t.comm, err)
	}
	t.alloc.taken = nil
}

// keepTotals adds to t what the kernel has counted of it since the last time.
func (p *Profiler) keepTotals(t *target, weight float64) {
	totals, err := p.allocs.probes.Totals(t.pid)
	if err != nil {
		p.note("process %d (%s): %v", t.pid, t.comm, err)
		return
	}
	a := t.alloc
	for _, c := range totals {
		bytes := c.Bytes
		for _, before := range a.taken {
			if before.Class == c.Class {
				bytes -= before.Bytes
			}
		}
		if bytes > 0 { // else its size may not be known yet
			a.add(allocTotal{class: c.Class, size: c.Size, bytes: weight * float64(bytes)})
		}
	}
	a.taken = totals
}

// hits is how often the kernel has seen t at its probes, in all.
func (a *allocTarget) hits() (n uint64) {
	for _, c := range a.taken {
		n += c.Hits
	}
	return n
}

func (a *allocTarget) add(c allocTotal) {
	for i := range a.totals {
		if has := &a.totals[i]; has.class == c.class {
			has.bytes += c.bytes
			return
		}
	}
	a.totals = append(a.totals, c)
}

// weigh says how much a sample stands for, and of which size its objects are.
func (p *Profiler) weigh(t *target, s *bpf.Sample) (size uint16, weight int64) {
	if p.allocs == nil {
		return 0, s.Value
	}
	object, value := believable(s.Size), believable(s.Value)
	size = p.allocs.sizeNumber(object, object > maxSmall && value == object)
	if t.alloc != nil && t.alloc.rate > 0 {
		_, weight = goruntime.Unsample(1, uint64(object), t.alloc.rate)
		return size, weight
	}
	if t.alloc != nil {
		return size, int64(float64(value) * t.alloc.duty.weightOf(s.Time))
	}
	return size, value
}

// believable is a number of bytes that a process told us, or the most that there can be: it may be any 64 bits.
func believable(bytes int64) int64 { return int64(min(uint64(bytes), maxObject)) }

// objects describes the window's profiles of allocations.
func (p *Profiler) objects() *aggregate.Objects {
	for _, t := range p.targets {
		if t.alloc != nil {
			p.keepTotals(t, t.alloc.duty.weight)
			t.alloc.duty.finish()
		}
	}
	p.tellSources()
	scales := p.scales()
	return &aggregate.Objects{Sizes: p.allocs.sizes, Scale: func(target uint32, size uint16) float64 {
		if f, ok := scales[aggregate.SizeKey{Target: target, Size: size}]; ok {
			return f
		}
		return 1
	}}
}

// followAllocs probes t in its new program.
func (p *Profiler) followAllocs(t *target) {
	if p.allocs == nil {
		return
	}
	err := p.findAllocs(t)
	if err == nil {
		err = p.attachAllocs(t)
	}
	if err != nil && p.alive(&t.process) {
		p.note("process %d (%s): %v", t.pid, t.comm, err)
	}
}

// startAllocs probes the targets that there are.
func (p *Profiler) startAllocs() error {
	var errs []error
	for _, t := range p.all {
		if err := p.attachAllocs(t); err != nil && p.alive(&t.process) {
			errs = append(errs, fmt.Errorf("process %d (%s): %w", t.pid, t.comm, err))
		}
	}
	return errors.Join(errs...)
}

// source says where a profile comes from, and what is wrong with it.
func (a *allocTarget) source(interval *span) string {
	if a.rate > 0 {
		return fmt.Sprintf("allocations were probed where the runtime samples them itself, one in %d bytes on average", a.rate)
	}
	s := fmt.Sprintf("allocations were probed where spans of memory are used up, a stack every %s bytes on average", interval.whole())
	if a.duty.partial {
		s += fmt.Sprintf(", in random slots that make up %.1f of %.1f s", a.duty.probed.Seconds(), a.duty.total.Seconds())
	}
	if slices.ContainsFunc(a.sites.Heap, func(s goruntime.Site) bool { return s.Func == goruntime.Refill }) {
		return s + "; functions that take turns in allocating objects of one size may have each other's bytes: " +
			"two that strictly alternated were given 40 and 60 % while there were garbage collections, 0 and 100 % with GOGC=off"
	}
	return s + "; functions that take turns in allocating objects of one size may have each other's bytes: two that strictly alternated were " +
		"given 47 and 53 % at worst, three 26 to 39 % each while there were garbage collections, 0 to 76 % with GOGC=off"
}

// tellSources tells the user where the profiles of allocations come from.
func (p *Profiler) tellSources() {
	for _, t := range p.all {
		if t.alloc != nil {
			p.note("process %d (%s): %s", t.pid, t.comm, t.alloc.source(&p.rate.interval))
		}
	}
}

// stopAllocs takes all probes away, at the end.
func (p *Profiler) stopAllocs() {
	for _, t := range p.all {
		p.beginDetach(t)
	}
	for _, t := range p.all {
		p.detachAllocs(t)
	}
}

// NotRead reports whether an error of Memory.Add says that the runtime of the process keeps no memory profile: its
// allocations can still be probed.
func NotRead(err error) bool {
	return errors.Is(err, goruntime.ErrNoMemProfile) || errors.Is(err, errMemProfileOff)
}

// Targets is how many processes are read.
func (m *Memory) Targets() int { return len(m.targets) }
