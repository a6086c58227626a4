package objfile

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/procfs"
)

const (
	// maxMappings bounds a space's executable mappings: programs that compile at run time may have thousands.
	maxMappings = 16 << 10
	// maxAnonNames bounds the images of anonymous memory, which a process may give any number of names (PR_SET_VMA).
	maxAnonNames = 64
	maxVDSO      = 64 << 10
	kernelSpace  = 1 << 63
	// maxFUSELookups bounds the file systems of one process that are looked up in its mounts.
	maxFUSELookups = 64
)

// ErrProcessGone is wrapped by errors that say that the process has exited, has called exec, or that
// its PID is another's.
var ErrProcessGone = errors.New("process is gone")

// Mapping is an executable mapping of a process.
type Mapping struct {
	Start, End, FileOff uint64
	Image               *Image
	Bias                uint64 // run-time address - link-time address
}

// Space is the address space of one process at one exec, or of one that has left a core file. One goroutine at a time.
type Space struct {
	recent recent // first: all that most samples need of a space, in one line of the CPU's caches
	images *Images
	proc   procfs.Proc
	start  uint64 // of the process, in clock ticks since boot
	stack  uint64 // procfs.Stat.StartStack: which exec it is the space of
	mem    *processMemory

	maps []Mapping // by address, without overlap
	// owned are the images that this space holds a reference to, by what maps says of them.
	owned map[mapKey]*Image
	exe   *Image
	// spent is how long opening and searching images has taken.
	spent time.Duration
	// next is when maps may be read again, and lines how many they had.
	next  time.Time
	lines int
	// reloaded says that maps and owned may hold what is not mapped any more.
	reloaded bool
	core     *coreMemory // in the place of the process; nil: there is one
}

// recent is where the last address was found that Resolve was asked for.
type recent struct {
	start, size, bias uint64
	image             ImageID
}

// mapKey is what maps says about a mapped file, or the name of anonymous memory.
type mapKey struct {
	dev   procfs.Dev
	inode uint64
	path  string
}

// OpenSpace reads /proc/PID/maps below procRoot ("/proc") and opens what is mapped executable.
// Errors wrap fs.ErrNotExist or ErrProcessGone where there is no such process (any more), and
// fs.ErrPermission where rights are missing. A file that cannot be opened is no error: see Image.Err.
func OpenSpace(images *Images, procRoot string, pid int) (*Space, error) {
	stat, err := procfs.New(procRoot).Proc(pid).Stat()
	if err != nil {
		return nil, fmt.Errorf("open address space of process %d: %w", pid, err)
	}
	return OpenSpaceOf(images, procRoot, stat)
}

// OpenSpaceOf opens the space of a process whose stat was read just now.
func OpenSpaceOf(images *Images, procRoot string, stat procfs.Stat) (*Space, error) {
	s := &Space{images: images, proc: procfs.New(procRoot).Proc(stat.PID), owned: make(map[mapKey]*Image),
		start: stat.StartTime, stack: stat.StartStack}
	s.mem = openMemory(s.proc, s.start)
	s.mem.stack = s.stack
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open address space of process %d: %w", stat.PID, err), s.Close())
	}
	return s, nil
}

// Current reports whether the process still runs the program that the space was opened for: it has neither exited nor
// called exec since. Of a process that is in the middle of an exec it may say either.
func (s *Space) Current() bool {
	if s.core != nil {
		return true
	}
	return len(s.maps) > 0 && s.check(s.maps, func() bool { return s.mem.gone(s.maps[0].Start) }) == nil
}

// Exited frees what only a process that runs is read through. What is mapped stays known, until Close.
func (s *Space) Exited() error {
	if s.mem == nil {
		return nil
	}
	return s.mem.Close()
}

// ReadDirectly has ReadMem and ReadPieces read by the thread that asks for it, at once, and without the cost of another one. Nobody gives up
// a read then that somebody else may have to serve: that is the caller's to watch.
func (s *Space) ReadDirectly() {
	if s.mem != nil {
		s.mem.direct = true
	}
}

// PID is the process's number.
func (s *Space) PID() int { return s.proc.PID }

// StartTime is when the process started, in clock ticks since boot.
func (s *Space) StartTime() uint64 { return s.start }

// Resolve translates a run-time address. ok is false where nothing executable is mapped; it does no I/O and does not allocate.
func (s *Space) Resolve(addr uint64) (Addr, bool) {
	if addr >= kernelSpace {
		return Addr{KernelImage, addr}, true
	}
	if r := &s.recent; addr-r.start < r.size {
		return Addr{r.image, addr - r.bias}, true
	}
	m := s.Mapping(addr)
	if m == nil {
		return Addr{}, false
	}
	s.recent = recent{m.Start, m.End - m.Start, m.Bias, m.Image.ID}
	return Addr{m.Image.ID, addr - m.Bias}, true
}

// Mapping returns the mapping that covers addr, or nil. The result is valid until the next Reload.
func (s *Space) Mapping(addr uint64) *Mapping {
	lo, hi := 0, len(s.maps)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.maps[mid].End <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(s.maps) || addr < s.maps[lo].Start {
		return nil
	}
	return &s.maps[lo]
}

// Mappings are all executable mappings, by address. The slice is the Space's, valid until the next Reload.
func (s *Space) Mappings() []Mapping { return s.maps }

// Exe is the image of the process's executable file; nil where it is not mapped executable.
func (s *Space) Exe() *Image { return s.exe }

// Main is the mapping of the Go program's text (the one that holds Go's tables), or nil: the
// executable's, else that of the first image that is Go (a program of another language may have
// loaded it). The first call searches the images; they remember the answer.
func (s *Space) Main() *Mapping {
	if s.exe != nil {
		if m := s.goText(s.exe); m != nil {
			return m
		}
	}
	if all := s.GoMappings(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// WhyNotGo says why Main finds nothing. The error wraps ErrNotGo where the process is no Go program; else it says which limit, or
// which error, kept its executable from being looked at, and wraps that.
func (s *Space) WhyNotGo() error {
	switch {
	case s.exe == nil && len(s.maps) >= maxMappings:
		return fmt.Errorf("its executable is not among its first %d executable mappings: %w", maxMappings, ErrTooCostly)
	case s.exe == nil:
		return fmt.Errorf("its executable is not mapped: %w", ErrNotGo)
	case s.exe.File == nil && errors.Is(s.exe.Err, ErrUnsupported):
		return fmt.Errorf("%w: %w", s.exe.Err, ErrNotGo)
	case s.exe.File == nil:
		return s.exe.Err
	case s.spent > maxSearchTime && !s.exe.File.module.done:
		return fmt.Errorf("opening and searching its files took %v: %w", s.spent.Round(time.Millisecond), ErrTooCostly)
	}
	mod, err := s.exe.File.GoModule()
	if err != nil {
		return err
	}
	if len(s.maps) >= maxMappings {
		return fmt.Errorf("its Go functions are not among its first %d executable mappings: %w", maxMappings, ErrTooCostly)
	}
	return fmt.Errorf("its Go functions, at %#x of its executable, are mapped nowhere: %w", mod.Text, ErrNotGo)
}

// GoMappings are the text mappings of all Go modules: the program, plugins and C shared libraries. By address.
func (s *Space) GoMappings() []*Mapping {
	var all []*Mapping
	for _, im := range s.owned {
		if m := s.goText(im); m != nil {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *Mapping) int { return cmp.Compare(a.Start, b.Start) })
	return all
}

// goText is where the space maps the Go text of an image, or nil.
func (s *Space) goText(im *Image) *Mapping {
	if im.File == nil {
		return nil
	}
	if s.spent > maxSearchTime && !im.File.module.done {
		return nil
	}
	start := time.Now()
	mod, err := im.File.GoModule()
	s.spent += time.Since(start)
	if err != nil {
		return nil
	}
	for i := range s.maps {
		m := &s.maps[i]
		if m.Image == im && mod.Text-(m.Start-m.Bias) < m.End-m.Start {
			return m
		}
	}
	return nil
}

// Reload reads the maps again: after a look-up failed (dlopen). Known mappings stay known after they
// are gone. Errors wrap ErrProcessGone where the process has exited or called exec; the space then stays as it was.
// It refuses where reading the maps so often would take more than a twentieth of the time: a process may have a million mappings.
func (s *Space) Reload() error {
	if s.core != nil {
		return fmt.Errorf("reload address space: a core file does not change: %w", ErrProcessGone)
	}
	start := time.Now()
	if start.Before(s.next) {
		return fmt.Errorf("reload address space of process %d: %w", s.proc.PID, ErrTooCostly)
	}
	err := s.load()
	if took := time.Since(start); s.lines > fewMappings {
		s.next = start.Add(reloadShare * took)
	}
	if err != nil {
		return fmt.Errorf("reload address space of process %d: %w", s.proc.PID, err)
	}
	return nil
}

// load reads maps and merges them in, once it is sure that they are this process's.
func (s *Space) load() error {
	var fresh []Mapping
	fuse := fuseRanges{proc: s.proc, known: make(map[procfs.Dev]bool)}
	s.lines = 0
	for m, err := range s.proc.Maps() {
		if err != nil {
			return err
		}
		s.lines++
		fuse.add(m)
		if m.Perm&procfs.PermExec == 0 || m.End > kernelSpace {
			continue
		}
		if len(fresh) >= maxMappings {
			break
		}
		if n := len(fresh); n == 0 || fresh[n-1].End <= m.Start {
			fresh = append(fresh, s.mapping(m))
		}
	}
	ended := func() bool { return s.mem.ended(fresh[0].Start) }
	if err := s.check(fresh, ended); err != nil {
		return err
	}
	s.reloaded = s.reloaded || s.maps != nil
	s.mem.fuse = fuse.list
	s.maps = mergeMappings(s.maps, fresh)
	s.findPacked()
	s.recent = recent{}
	return nil
}

// Trim forgets what is not mapped any more, once nobody asks for its addresses: a process may load and unload files, or
// compile code, for ever. Where maps cannot be read all stays as it was.
func (s *Space) Trim() error {
	if !s.reloaded {
		return nil
	}
	old := s.maps
	s.maps = nil
	if s.Reload() == nil {
		s.reloaded = false
		return s.giveBack()
	}
	s.maps = old
	return nil
}

// giveBack releases the images that nothing is mapped of.
func (s *Space) giveBack() error {
	mapped := map[*Image]bool{s.exe: true}
	for i := range s.maps {
		mapped[s.maps[i].Image] = true
	}
	unused := make(map[ImageID]bool)
	for key, im := range s.owned {
		if !mapped[im] {
			delete(s.owned, key)
			unused[im.ID] = true
		}
	}
	var errs []error
	for id := range unused {
		errs = append(errs, s.images.Release(id))
	}
	return errors.Join(errs...)
}

// addrRange is [start, end).
type addrRange struct{ start, end uint64 }

// fuseRanges collects where a process has mapped files on FUSE.
type fuseRanges struct {
	proc  procfs.Proc
	known map[procfs.Dev]bool // devices: whether they are FUSE
	list  []addrRange
}

func (f *fuseRanges) add(m procfs.Map) {
	if !m.IsFile() || len(f.list) >= maxMappings {
		return
	}
	fuse, ok := f.known[m.Dev]
	if !ok && len(f.known) < maxFUSELookups {
		fuse = isFUSE(f.proc, m.Dev)
		f.known[m.Dev] = fuse
	}
	if fuse {
		f.list = append(f.list, addrRange{m.Start, m.End})
	}
}

// isFUSE looks a device up in the process's mounts.
func isFUSE(p procfs.Proc, d procfs.Dev) bool {
	if d.Major != 0 { // a block device
		return false
	}
	typ, err := p.FSType(d)
	return err == nil && strings.HasPrefix(typ, "fuse")
}

// check makes sure that fresh was read from the process and program that the space was opened for; gone says whether the memory that it
// had then is gone.
func (s *Space) check(fresh []Mapping, gone func() bool) error {
	stat, err := s.proc.Stat()
	if err != nil || stat.StartTime != s.start {
		return fmt.Errorf("its PID is free or another's: %w", errors.Join(ErrProcessGone, err))
	}
	if len(fresh) == 0 {
		return fmt.Errorf("nothing is mapped (a kernel thread, or exiting): %w", ErrProcessGone)
	}
	// The memory alone does not tell: a child of vfork has that of its parent, who keeps it beyond the child's exec.
	if stat.StartStack != s.stack && stat.StartStack != 0 || gone() {
		return fmt.Errorf("it has exited or runs another program: %w", ErrProcessGone)
	}
	return nil
}

// mapping makes a Mapping of a line of maps.
func (s *Space) mapping(m procfs.Map) Mapping {
	im := s.image(m)
	out := Mapping{Start: m.Start, End: m.End, FileOff: m.Offset, Image: im}
	switch {
	case im.File != nil && im.File.memory: // link-time addresses are run-time addresses
	case im.File != nil:
		out.Bias = im.File.bias(m.Start, m.Offset)
	case m.IsFile():
		out.Bias = m.Start - m.Offset
	}
	return out
}

// bias is the difference between run-time and link-time addresses where file offset off is mapped at start.
func (f *File) bias(start, off uint64) uint64 {
	var best *elf.ProgHeader
	for i := range f.loads {
		p := &f.loads[i]
		first := p.Off &^ uint64(os.Getpagesize()-1)
		if off < first || off >= p.Off+p.Filesz {
			continue
		}
		if best == nil || best.Flags&elf.PF_X == 0 && p.Flags&elf.PF_X != 0 {
			best = p
		}
	}
	if best == nil {
		return start - off
	}
	return start - off + best.Off - best.Vaddr
}

// image returns the image of what is mapped; the space keeps a reference.
func (s *Space) image(m procfs.Map) *Image {
	key := mapKey{m.Dev, m.Inode, m.Path}
	if im := s.owned[key]; im != nil {
		return im
	}
	var im *Image
	switch {
	case m.IsFile():
		im = s.fileImage(m)
	case m.Path == pathVDSO:
		im = s.vdso(m)
	default:
		return s.anonImage(m.Path)
	}
	s.own(key, im)
	return im
}

// own keeps the reference that came with im, or gives it back where the space has one already.
func (s *Space) own(key mapKey, im *Image) {
	for _, have := range s.owned {
		if have == im {
			im.refs--
			break
		}
	}
	s.owned[key] = im
}

func (s *Space) fileImage(m procfs.Map) *Image {
	if im, isExe := s.images.mapped(s.proc, m); im != nil {
		if isExe {
			s.exe = im
		}
		return im
	}
	mf, isExe, err := s.openFile(m)
	var im *Image
	if err != nil {
		im = s.images.add(&Image{Path: m.Path, Err: fmt.Errorf("open %s: %w", m.Path, err)})
	} else {
		im = s.images.file(m.Path, mf)
	}
	if isExe {
		s.exe = im
	}
	return im
}

// openFile opens a mapped file, unless files of this process have taken too long already.
func (s *Space) openFile(m procfs.Map) (mf *mappedFile, isExe bool, err error) {
	if s.spent > maxSearchTime {
		return nil, false, fmt.Errorf("the process's files took %v: %w", s.spent.Round(time.Millisecond), ErrTooCostly)
	}
	start, proc, allowFUSE := time.Now(), s.proc, s.images.AllowFUSE
	type opened struct {
		*mappedFile
		isExe bool
	}
	o, err := within(maxStall, func() (opened, error) {
		mf, isExe, err := openMapped(proc, m, allowFUSE)
		return opened{mf, isExe}, err
	}, func(o opened) { _ = o.r.Close() })
	s.spent += time.Since(start)
	return o.mappedFile, o.isExe, err
}

func (s *Space) anonImage(name string) *Image {
	if name == "" || len(s.owned) >= maxAnonNames {
		name = pathAnon
	}
	key := mapKey{path: name}
	if im := s.owned[key]; im != nil {
		return im
	}
	im := s.images.add(&Image{Path: name, Err: errAnonymous})
	s.owned[key] = im
	return im
}

var errAnonymous = errors.New("anonymous memory, no file")

// vdso copies the kernel's shared object from the process's memory, except where it is ours.
func (s *Space) vdso(m procfs.Map) *Image {
	if b := ownVDSO(); uint64(len(b)) == m.End-m.Start && s.native() {
		return s.images.ownVDSO(b)
	}
	b := make([]byte, min(m.End-m.Start, maxVDSO))
	if err := s.ReadMem(b, m.Start); err != nil {
		return s.images.add(&Image{Path: pathVDSO, Err: err})
	}
	return s.images.copied(pathVDSO, b)
}

// native: the process is of this machine's kernel, and its program of this program's architecture: then it has the same vDSO.
func (s *Space) native() bool {
	return s.exe != nil && s.exe.File != nil && s.exe.File.Machine() == machine() && strings.HasPrefix(s.proc.Path(""), "/proc/")
}

// machine that this program runs on; EM_NONE where that is none that is profiled.
func machine() elf.Machine {
	switch runtime.GOARCH {
	case "amd64":
		return elf.EM_X86_64
	case "arm64":
		return elf.EM_AARCH64
	}
	return elf.EM_NONE
}

// ReadMem reads the process's memory at a run-time address. It never reads another process's: not
// after exec, nor where the PID has been reused; errors then wrap ErrProcessGone.
func (s *Space) ReadMem(p []byte, addr uint64) error {
	if s.core != nil {
		if n, err := s.core.ReadAt(p, int64(addr)); n < len(p) {
			return fmt.Errorf("read memory at %#x: %w", addr, err)
		}
		return nil
	}
	n, err := s.mem.readAt(p, int64(addr), s.mem.direct)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("read memory of process %d (needs CAP_SYS_PTRACE): %w", s.proc.PID, err)
	}
	return fmt.Errorf("read memory of process %d at %#x: %w", s.proc.PID, addr, err)
}

// Close gives the images back.
func (s *Space) Close() error {
	var errs []error
	if s.mem != nil {
		errs = append(errs, s.mem.Close())
	}
	if s.core != nil {
		errs = append(errs, s.core.Close())
	}
	released := make(map[*Image]bool)
	for _, im := range s.owned {
		if !released[im] {
			released[im] = true
			errs = append(errs, s.images.Release(im.ID))
		}
	}
	s.owned, s.maps, s.exe = nil, nil, nil
	s.recent = recent{}
	return errors.Join(errs...)
}

// mergeMappings returns fresh and what is left of old beside it, by address.
func mergeMappings(old, fresh []Mapping) []Mapping {
	merged := slices.Clone(fresh)
	j := 0
	for _, m := range old {
		for j > 0 && fresh[j-1].End > m.Start {
			j--
		}
		for ; j < len(fresh) && fresh[j].Start < m.End; j++ {
			if fresh[j].End <= m.Start {
				continue
			}
			merged = appendPart(merged, m, m.Start, fresh[j].Start)
			m = part(m, min(m.End, max(m.Start, fresh[j].End)), m.End)
		}
		merged = appendPart(merged, m, m.Start, m.End)
	}
	slices.SortFunc(merged, func(a, b Mapping) int { return cmp.Compare(a.Start, b.Start) })
	return merged
}

func appendPart(to []Mapping, m Mapping, start, end uint64) []Mapping {
	if start >= end || len(to) >= 2*maxMappings {
		return to
	}
	return append(to, part(m, start, end))
}

func part(m Mapping, start, end uint64) Mapping {
	m.FileOff += start - m.Start
	m.Start, m.End = start, end
	return m
}
