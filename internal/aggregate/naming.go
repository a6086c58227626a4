package aggregate

import (
	"cmp"
	"slices"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// naming has what all profiles of one Build share: the frames of addresses by their numbers, and what has been made of
// them for the profile that is being built. So nothing is looked up by name or address for each sample of each target.
type naming struct {
	addrs     *addrSet
	sym       *symbolize.Symbolizer
	names     []*name  // by number; nil: not asked for
	order     []uint32 // numbers of all addresses, by address: those of an image are neighbours
	images    [][]uint32
	ids       map[functionKey]uint32
	functions []function       // by id
	outer     *symbolize.Frame // the last one that had a number and was not inlined; outerID is its function's
	outerID   uint32
	profiles  uint32    // begun
	samples   sampleSet // of the current profile

	nameSlab slab[name]
	wordSlab slab[meaning]
	idSlab   slab[uint32]
}

// name is an address's. Two are in one line of the CPU's caches.
type name struct {
	*meaning
	loc     *profile.Location
	all     uint64 // which frames are shown as a rule
	in      uint32 // the profile that loc is of: it has all frames
	elision elision
}

// meaning is what is needed of an address once in a profile.
type meaning struct {
	addr   objfile.Addr
	frames []symbolize.Frame
	ids    []uint32 // of their functions
}

// elision says what symbolize.Elide does to the frames of an address, whatever its neighbours are.
type elision uint8

const (
	elidedSometimes elision = iota // that depends on the neighbours
	shownAlways
	kernelAlone  // shown, too, but where all the rest is hidden no reason to leave it so
	hiddenMostly // goexit: hidden if anything but the kernel's is shown
)

// function is one of the current profile, if in says so.
type function struct {
	*profile.Function
	kernel *profile.Location // kernel addresses have no lines: one location per function
	in     uint32
}

func newNaming(addrs *addrSet, sym *symbolize.Symbolizer) *naming {
	n := &naming{
		addrs: addrs, sym: sym, ids: make(map[functionKey]uint32),
		names: make([]*name, addrs.list.n), order: make([]uint32, addrs.list.n),
		nameSlab: slab[name]{chunk: chunk}, wordSlab: slab[meaning]{chunk: chunk}, idSlab: slab[uint32]{chunk: chunk},
	}
	for i := range n.order {
		n.order[i] = uint32(i)
	}
	slices.SortFunc(n.order, func(a, b uint32) int { return compareAddrs(*addrs.list.at(int(a)), *addrs.list.at(int(b))) })
	return n
}

func compareAddrs(a, b objfile.Addr) int {
	return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Off, b.Off))
}

// name returns that of an address, and resolves with it all others of its image: in order, they lie in the same pages of the
// image's tables.
func (n *naming) name(number uint32) *name {
	if known := n.names[number]; known != nil {
		return known
	}
	image := n.addrs.list.at(int(number)).Image
	first, _ := slices.BinarySearchFunc(n.order, objfile.Addr{Image: image}, func(i uint32, a objfile.Addr) int {
		return compareAddrs(*n.addrs.list.at(int(i)), a)
	})
	all, _ := split(n.order[first:], func(i uint32) bool { return n.addrs.list.at(int(i)).Image == image })
	for _, i := range all {
		n.names[i] = n.resolve(*n.addrs.list.at(int(i)))
	}
	n.images = append(n.images, all)
	return n.names[number]
}

func (n *naming) resolve(a objfile.Addr) *name {
	m := &n.nameSlab.take(1)[0]
	m.meaning = &n.wordSlab.take(1)[0]
	m.addr, m.frames = a, n.sym.Resolve(a)
	m.elision, m.all = elisionOf(m.frames)
	m.ids = n.idSlab.take(len(m.frames))
	for i := range m.frames {
		m.ids[i] = n.id(&m.frames[i])
	}
	return m
}

// elisionOf follows the rules of symbolize.Elide.
func elisionOf(frames []symbolize.Frame) (e elision, shown uint64) {
	if len(frames) >= 64 {
		return elidedSometimes, 0
	}
	all := uint64(1)<<len(frames) - 1
	e = kernelAlone
	for i := range frames {
		f := &frames[i]
		switch {
		case f.Kind == symbolize.Kernel:
			continue
		case f.Kind == symbolize.Go && f.Func == symbolize.Goexit && len(frames) == 1:
			return hiddenMostly, 0
		case f.Kind == symbolize.Go && symbolize.MayElide(f):
			return elidedSometimes, all
		}
		e = shownAlways
	}
	return e, all
}

// forget drops all names: what comes next is of other programs.
func (n *naming) forget() {
	for _, numbers := range n.images {
		for _, i := range numbers {
			n.names[i] = nil
		}
	}
	n.images, n.functions, n.ids, n.outer = nil, nil, make(map[functionKey]uint32), nil
	n.sym.Forget()
}

type functionKey struct {
	name, system, file string
	startLine          int
}

// id numbers the function of a frame. Addresses that follow one another are mostly of one function.
func (n *naming) id(f *symbolize.Frame) uint32 {
	if o := n.outer; o != nil && o.Func == f.Func && o.SystemName == f.SystemName && o.File == f.File && o.StartLine == f.StartLine {
		return n.outerID
	}
	id := n.lookUp(f)
	if !f.Inlined {
		n.outer, n.outerID = f, id
	}
	return id
}

func (n *naming) lookUp(f *symbolize.Frame) uint32 {
	k := functionKey{f.Func, f.SystemName, f.File, f.StartLine}
	id, ok := n.ids[k]
	if !ok {
		id = uint32(len(n.functions))
		n.functions = append(n.functions, function{})
		n.ids[k] = id
	}
	return id
}

// slab hands out pieces of larger allocations, which live as long as one of them.
type slab[T any] struct {
	free  []T
	chunk int
}

func (s *slab[T]) take(n int) []T {
	if n > len(s.free) {
		s.free = make([]T, max(n, s.chunk))
	}
	piece := s.free[:n:n]
	s.free = s.free[n:]
	return piece
}
