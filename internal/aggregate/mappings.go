package aggregate

import (
	"cmp"
	"debug/elf"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// mappings are made per executable segment, in link-time addresses: Start, Limit and Offset are what
// the loader would use with a bias of zero. So `go tool pprof` finds the base 0 when it opens the binary
// (for -list and -disasm; elfexec.GetBase), and profiles of several processes or runs merge without
// regard to ASLR.
type mappings struct {
	p      *profile.Profile
	images symbolize.Images
	known  map[mapKey]*mapping
	last   lastMapping
}

// lastMapping is what get gave last: neighbours in a stack are mostly of one segment.
type lastMapping struct {
	image       objfile.ImageID
	start, size uint64
	*mapping
}

type mapKey struct {
	image   objfile.ImageID
	segment int
}

// mapping is a Mapping and what its frames have in common.
type mapping struct {
	*profile.Mapping
	tree                           bool // the image has inline trees
	rank                           int
	noFunc, noFile, noLine, noneGo bool
}

const (
	noSegment = -1
	page      = 4096
)

// get returns the mapping of an address, nil where there is no image.
func (m *mappings) get(a objfile.Addr) *mapping {
	if l := &m.last; l.mapping != nil && a.Image == l.image && a.Off >= l.start && a.Off-l.start < l.size {
		return l.mapping
	}
	im := m.images(a.Image)
	if im == nil && a.Image != objfile.KernelImage {
		return nil
	}
	seg, prog := segment(im, a)
	k := mapKey{a.Image, seg}
	mp := m.known[k]
	if mp == nil {
		mp = m.add(im, a.Image, prog)
		m.known[k] = mp
	}
	switch {
	case seg != noSegment:
		m.last = lastMapping{a.Image, prog.Vaddr, prog.Memsz, mp}
	case a.Image != objfile.KernelImage:
		mp.cover(a.Off)
	}
	return mp
}

func (m *mappings) add(im *objfile.Image, id objfile.ImageID, prog elf.ProgHeader) *mapping {
	pm := &profile.Mapping{ID: uint64(len(m.p.Mapping) + 1)}
	m.p.Mapping = append(m.p.Mapping, pm)
	mp := &mapping{Mapping: pm}
	if id == objfile.KernelImage {
		pm.File, pm.Limit = "[kernel.kallsyms]", ^uint64(0)
		mp.rank = rankKernel
		return mp
	}
	pm.File, pm.BuildID = clean(im.Path), clean(im.BuildID)
	if prog.Memsz > 0 {
		pm.Start = prog.Vaddr &^ (page - 1)
		pm.Limit = pageUp(prog.Vaddr + prog.Memsz)
		pm.Offset = prog.Off &^ (page - 1)
	}
	mp.tree = hasInlineTree(im)
	mp.rank = rank(im)
	return mp
}

// segment finds the PT_LOAD segment that covers the address.
func segment(im *objfile.Image, a objfile.Addr) (int, elf.ProgHeader) {
	if im == nil || im.File == nil || a.Image == objfile.KernelImage {
		return noSegment, elf.ProgHeader{}
	}
	for i, s := range im.File.Segments() {
		if a.Off >= s.Vaddr && a.Off-s.Vaddr < s.Memsz {
			return i, s
		}
	}
	return noSegment, elf.ProgHeader{}
}

func hasInlineTree(im *objfile.Image) bool {
	if im.File == nil {
		return false
	}
	mod, err := im.File.GoModule()
	return err == nil && mod.GoFunc != 0
}

func isGo(im *objfile.Image) bool {
	if im.File == nil {
		return false
	}
	_, err := im.File.GoModule()
	return err == nil
}

// main adds the mapping of a program's Go text, found through the image's tables, and gives it the first rank.
func (m *mappings) main(id objfile.ImageID) {
	im := m.images(id)
	if im == nil || im.File == nil || id == objfile.KernelImage {
		return
	}
	mod, err := im.File.GoModule()
	if err != nil {
		return
	}
	m.get(objfile.Addr{Image: id, Off: mod.Text}).rank = rankMain
}

// Ranks order the mappings of a profile.
const (
	rankMain   = iota // the program
	rankGo            // images with Go's tables: what the program was before an exec, plugins
	rankFile          // C libraries
	rankPseudo        // [vdso], [anon]
	rankKernel
)

func rank(im *objfile.Image) int {
	switch {
	case isGo(im):
		return rankGo
	case strings.HasPrefix(im.Path, "["):
		return rankPseudo
	}
	return rankFile
}

// cover extends a mapping whose extent is not known.
func (m *mapping) cover(off uint64) {
	if m.Limit == 0 {
		m.Start = off &^ (page - 1)
	}
	m.Start = min(m.Start, off&^(page-1))
	m.Limit = max(m.Limit, pageUp(off+1))
}

func pageUp(v uint64) uint64 {
	if v > ^uint64(0)-page {
		return ^uint64(0)
	}
	return (v + page - 1) &^ (page - 1)
}

func (m *mapping) observe(f *symbolize.Frame) {
	if m == nil {
		return
	}
	m.noFunc = m.noFunc || f.Kind == symbolize.Unknown
	m.noFile = m.noFile || f.File == ""
	m.noLine = m.noLine || f.Line == 0
	m.noneGo = m.noneGo || f.Kind != symbolize.Go
}

// finish sets the flags and the order.
func (m *mappings) finish() {
	m.flags()
	m.order()
}

// order: the program first, the kernel last. pprof names the first mapping as the file that was profiled.
// Within a rank the order of first use stays: it is that of the programs in a merged profile.
func (m *mappings) order() {
	ranks := make(map[*profile.Mapping]int, len(m.known))
	for _, mp := range m.known {
		ranks[mp.Mapping] = mp.rank
	}
	slices.SortStableFunc(m.p.Mapping, func(a, b *profile.Mapping) int {
		return cmp.Compare(ranks[a], ranks[b])
	})
	for i, pm := range m.p.Mapping {
		pm.ID = uint64(i + 1)
	}
}

// flags sets the flags: each says that all of the mapping's locations have it. pprof looks for the binary
// to add what is missing, so a flag that claims too much would cost the reader symbols.
func (m *mappings) flags() {
	for _, mp := range m.known {
		mp.HasFunctions = !mp.noFunc
		mp.HasFilenames = !mp.noFile
		mp.HasLineNumbers = !mp.noLine
		mp.HasInlineFrames = mp.tree && !mp.noneGo
	}
}
