// Package symbolize turns addresses into the frames that a reader of a profile wants to see.
package symbolize

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/pprofd/pprofd/gopclntab"
	"github.com/pprofd/pprofd/objfile"
)

// Kind says where a frame's name comes from.
type Kind uint8

// Kinds of frames.
const (
	Unknown Kind = iota // no symbol covers the address
	Go                  // pclntab: file, line and inlining are known
	Native              // ELF symbol: a name only
	Kernel              // kallsyms: a name only
)

// Frame is one source-level frame.
type Frame struct {
	Func       string // as shown; never empty
	SystemName string // as the linker has it: differs from Func where that is demangled
	File       string
	Line       int
	StartLine  int    // of Func; 0: not known
	Entry      uint64 // Kernel only: where Func starts, relative to the kernel's _text
	Kind       Kind
	Inlined    bool // into the next frame of the same address
	Wrapper    bool // compiler-generated, see Elide
}

// Options may be nil.
type Options struct {
	Kallsyms string // "/proc/kallsyms"
	// KernelNames asks the kernel what it prints for addresses with %pS (bpf.KernelNamer). nil, or where it fails: all of
	// Kallsyms is read, which takes the kernel 50 ms.
	KernelNames func(addrs []uint64) ([]string, error)
	MaxCache    int // distinct addresses that are remembered until Reset; 16384
}

const (
	defaultCache = 1 << 14
	maxFrames    = 1 << 10 // frames of one address: no compiler inlines deeper
	maxNotes     = 64

	// maxImageBytes bounds the names and frames of one image until Reset. 20,000 addresses of a Go program take 5 MB;
	// a crafted one may have a thousand inlined calls at each.
	maxImageBytes = 32 << 20
	frameBytes    = 88 // of a Frame, without its strings
)

// Symbolizer resolves addresses of the images in one table. Its answers are cached until Reset.
// It is not safe for concurrent use.
type Symbolizer struct {
	images   Images
	kallsyms string
	names    func([]uint64) ([]string, error)
	max      int
	cache    map[objfile.Addr][]Frame
	strings  map[string]string
	tables   map[objfile.ImageID]*gopclntab.Table // nil: no Go program
	noted    map[objfile.ImageID]bool
	bytes    map[objfile.ImageID]int // of names and frames
	interned int                     // bytes of strings
	// overflowed says that more than max addresses were asked for since Reset.
	overflowed bool
	kernel     kernelSymbols
	scratch    []gopclntab.Frame
	free       []Frame
	chunk      int // frames of the last allocation
	notes      []string
}

// Images looks an image up: objfile.Images.Get.
type Images func(objfile.ImageID) *objfile.Image

// New returns a Symbolizer. The images must live as long as it does.
func New(images Images, o *Options) *Symbolizer {
	if o == nil {
		o = &Options{}
	}
	s := &Symbolizer{images: images, kallsyms: o.Kallsyms, names: o.KernelNames, max: o.MaxCache}
	if s.kallsyms == "" {
		s.kallsyms = "/proc/kallsyms"
	}
	if s.max <= 0 {
		s.max = defaultCache
	}
	s.Reset()
	return s
}

// Reset forgets what was resolved and the notes: at the end of a window.
func (s *Symbolizer) Reset() {
	s.Forget()
	s.tables = make(map[objfile.ImageID]*gopclntab.Table)
	s.noted = make(map[objfile.ImageID]bool)
	s.kernel = kernelSymbols{}
	s.notes = nil
	s.overflowed = false
}

// Overflowed says that more distinct addresses were asked for since Reset than are remembered. Who goes on for long without
// Reset comes to the limits of single files then, for what is resolved again counts again.
func (s *Symbolizer) Overflowed() bool { return s.overflowed }

// Forget drops the names and frames of all images but the kernel's, where those of other images are asked for next.
func (s *Symbolizer) Forget() {
	s.cache = make(map[objfile.Addr][]Frame)
	s.strings = make(map[string]string)
	s.bytes = make(map[objfile.ImageID]int)
}

// Notes are what went wrong since Reset, once per image, with what to do.
func (s *Symbolizer) Notes() []string { return slices.Clone(s.notes) }

// Prepare resolves addrs together, in memory proportional to their number, and sorts them. Without it each distinct kernel
// address costs a question, or a pass over kallsyms, and those of a file cost several reads each: in order they lie in the
// same pages of its tables. Of files it does so only if all of them are remembered.
func (s *Symbolizer) Prepare(addrs []objfile.Addr) {
	var wanted []uint64
	for _, a := range addrs {
		if a.Image == objfile.KernelImage && !s.kernel.known(a.Off) {
			wanted = append(wanted, a.Off)
		}
	}
	s.prepareKernel(wanted)
	if len(addrs) > s.max {
		return
	}
	slices.SortFunc(addrs, func(a, b objfile.Addr) int { return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Off, b.Off)) })
	for _, a := range addrs {
		s.Frames(a)
	}
}

func (s *Symbolizer) prepareKernel(wanted []uint64) {
	if len(wanted) == 0 || s.askKernel(wanted) {
		return
	}
	f, err := os.Open(s.kallsyms)
	if err == nil {
		defer f.Close()
		err = s.kernel.resolve(f, wanted)
	}
	if err != nil {
		s.kernel.miss(wanted)
		s.note(objfile.KernelImage, kernelNote(s.kallsyms, err))
	}
}

// askKernel names addresses without reading all of kallsyms, if it can.
func (s *Symbolizer) askKernel(wanted []uint64) bool {
	if s.names == nil {
		return false
	}
	if f, err := os.Open(s.kallsyms); err == nil {
		defer f.Close()
		s.kernel.findText(f)
	}
	return s.kernel.ask(s.names, wanted)
}

func kernelNote(file string, err error) string {
	switch {
	case errors.Is(err, errRestricted):
		return fmt.Sprintf("kernel functions are shown as [kernel]: %s hides their addresses; "+
			"run with CAP_SYSLOG and `sysctl kernel.kptr_restrict=1` (or 0)", file)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("kernel functions are shown as [kernel]: there is no %s (CONFIG_KALLSYMS is off or /proc is not mounted)", file)
	}
	return fmt.Sprintf("kernel functions are shown as [kernel]: read kernel symbols: %v", err)
}

// AppendFrames appends the frames at a, innermost first: at least one, more where calls were inlined.
// a is looked up as is: the address of the call, not the return address.
func (s *Symbolizer) AppendFrames(dst []Frame, a objfile.Addr) []Frame {
	return append(dst, s.Frames(a)...)
}

// Frames is AppendFrames without the copy: the result must not be modified.
func (s *Symbolizer) Frames(a objfile.Addr) []Frame {
	if f, ok := s.cache[a]; ok {
		return f
	}
	f := s.resolve(a)
	if len(s.cache) >= s.max {
		clear(s.cache) // callers go from program to program: what comes next is not there
		s.overflowed = true
	}
	s.cache[a] = f
	return f
}

// Resolve is Frames for who keeps the result: what is not remembered yet is not remembered then.
func (s *Symbolizer) Resolve(a objfile.Addr) []Frame {
	if f, ok := s.cache[a]; ok {
		return f
	}
	s.overflowed = true
	return s.resolve(a)
}

// MaxCache is how many distinct addresses are remembered: who asks for more had better ask for those of one image together.
func (s *Symbolizer) MaxCache() int { return s.max }

func (s *Symbolizer) resolve(a objfile.Addr) []Frame {
	if a.Image == objfile.KernelImage {
		return s.resolveKernel(a.Off)
	}
	im := s.images(a.Image)
	if im == nil {
		return []Frame{unknown("[unknown]", a.Off)}
	}
	if im.File == nil {
		s.note(a.Image, fmt.Sprintf("%s: no symbols: %v", clean(im.Path), im.Err))
		return []Frame{unknown(module(im), a.Off)}
	}
	if f := s.resolveFile(im, a.Off); len(f) > 0 {
		return f
	}
	if err := im.File.Refused(); err != nil {
		s.note(a.Image, fmt.Sprintf("%s: some of its addresses have no symbols: %v", clean(im.Path), err))
	}
	return []Frame{unknown(module(im), a.Off)}
}

// resolveFile names an address by its image's file, as long as that image's names and frames are not too many.
func (s *Symbolizer) resolveFile(im *objfile.Image, off uint64) []Frame {
	if s.bytes[im.ID] > maxImageBytes {
		s.note(im.ID, fmt.Sprintf("%s: some of its addresses have no symbols: names and inlined calls of the others take more than %d MiB", clean(im.Path), maxImageBytes>>20))
		return nil
	}
	before := s.interned
	f := s.resolveGo(im, off)
	if len(f) == 0 {
		if name, _, ok := im.File.Symbol(off); ok && name != "" {
			f = []Frame{s.native(name)}
		}
	}
	s.bytes[im.ID] += s.interned - before + len(f)*frameBytes
	return f
}

func (s *Symbolizer) resolveKernel(addr uint64) []Frame {
	if !s.kernel.known(addr) {
		s.prepareKernel([]uint64{addr})
	}
	return []Frame{s.kernel.frame(addr)}
}

func (s *Symbolizer) resolveGo(im *objfile.Image, pc uint64) []Frame {
	t := s.table(im)
	if t == nil {
		return nil
	}
	fn, ok := t.Find(pc)
	if !ok {
		return nil
	}
	s.scratch = fn.AppendFrames(s.scratch[:0], pc)
	if len(s.scratch) > maxFrames {
		s.scratch = s.scratch[:maxFrames]
	}
	frames := s.room(len(s.scratch))
	for _, f := range s.scratch {
		frames = append(frames, s.goFrame(im, pc, f))
	}
	return frames
}

// room for n frames is a piece of a larger allocation, which lives as long as one of its frames.
func (s *Symbolizer) room(n int) []Frame {
	if n > len(s.free) {
		s.chunk = min(max(2*s.chunk, minChunk), maxChunk)
		s.free = make([]Frame, max(n, s.chunk))
	}
	piece := s.free[:0:n]
	s.free = s.free[n:]
	return piece
}

// Frames that are allocated at a time.
const (
	minChunk = 8
	maxChunk = 256
)

func (s *Symbolizer) goFrame(im *objfile.Image, pc uint64, f gopclntab.Frame) Frame {
	if f.Func == "" {
		f.Func = unknown(module(im), pc).Func
	}
	name := s.intern(clean(f.Func))
	return Frame{
		Func: name, SystemName: name, File: s.intern(clean(f.File)),
		Line: max(f.Line, 0), StartLine: max(f.StartLine, 0),
		Kind: Go, Inlined: f.Inlined, Wrapper: f.Wrapper,
	}
}

func (s *Symbolizer) table(im *objfile.Image) *gopclntab.Table {
	t, ok := s.tables[im.ID]
	if ok {
		return t
	}
	t, err := im.File.Pclntab()
	if err != nil {
		t = nil
		if !errors.Is(err, objfile.ErrNotGo) {
			s.note(im.ID, fmt.Sprintf("%s: no Go symbols: %v", clean(im.Path), err))
		}
	}
	s.tables[im.ID] = t
	return t
}

func (s *Symbolizer) native(symbol string) Frame {
	symbol = clean(symbol)
	return Frame{Func: s.intern(demangled(symbol)), SystemName: s.intern(symbol), Kind: Native}
}

func (s *Symbolizer) note(id objfile.ImageID, text string) {
	if s.noted[id] || len(s.notes) >= maxNotes {
		return
	}
	s.noted[id] = true
	s.notes = append(s.notes, text)
}

// intern makes equal strings share memory: the same few thousand names and files come again for every address.
func (s *Symbolizer) intern(v string) string {
	if known, ok := s.strings[v]; ok {
		return known
	}
	s.interned += len(v)
	if len(s.strings) < s.max {
		s.strings[v] = v
	}
	return v
}

// unknown is the frame of an address that no symbol covers: it is shown, never dropped.
func unknown(module string, off uint64) Frame {
	name := fmt.Sprintf("%s+%#x", module, off)
	return Frame{Func: name, SystemName: name}
}

func module(im *objfile.Image) string {
	if im.Path == "" {
		return "[unknown]"
	}
	return path.Base(clean(im.Path))
}
