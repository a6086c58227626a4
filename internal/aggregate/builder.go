package aggregate

import (
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// builder collects one profile.
type builder struct {
	t       *Table
	o       BuildOptions
	p       *profile.Profile
	sym     *symbolize.Symbolizer
	names   *naming
	number  uint32 // of this profile among those of names
	maps    mappings
	locs    map[locKey]*profile.Location // but for those in names
	pseudo  map[string]*profile.Location
	labels  map[LabelID]map[string][]string // of samples that have no others
	numbers []uint32                        // of the addresses of a stack
	list    []*name                         // of these addresses
	frames  [][]symbolize.Frame
	masks   []uint64
	stack   []*profile.Location

	sampleSlab   slab[profile.Sample]
	valueSlab    slab[int64]
	stackSlab    slab[*profile.Location]
	locationSlab slab[profile.Location]
	lineSlab     slab[profile.Line]
	functionSlab slab[profile.Function]
}

// locKey: wrappers are elided by what they call, so that one address may need several locations.
type locKey struct {
	addr uint32
	mask uint64
}

// maxSlab bounds what a small profile allocates in vain.
const maxSlab = 1 << 10

// newBuilder begins the next profile of names, of so many samples or less.
func newBuilder(t *Table, images symbolize.Images, names *naming, o BuildOptions, samples int) *builder {
	p := emptyProfile(o)
	p.Sample = make([]*profile.Sample, 0, samples)
	names.profiles++
	names.samples.reset(samples)
	chunk := min(samples, maxSlab)
	return &builder{
		t: t, o: o, p: p, sym: names.sym, names: names, number: names.profiles,
		sampleSlab: slab[profile.Sample]{chunk: chunk}, valueSlab: slab[int64]{chunk: 2 * chunk},
		stackSlab: slab[*profile.Location]{chunk: 4 * chunk}, locationSlab: slab[profile.Location]{chunk: chunk},
		lineSlab: slab[profile.Line]{chunk: chunk}, functionSlab: slab[profile.Function]{chunk: chunk},
		maps:   mappings{p: p, images: images, known: make(map[mapKey]*mapping)},
		locs:   make(map[locKey]*profile.Location),
		pseudo: make(map[string]*profile.Location),
	}
}

// main makes the mappings of the programs, in the order of their targets, before any other.
func (b *builder) main(s selection) {
	if b.o.Main == nil {
		return
	}
	targets := []uint32{s.target}
	if b.o.Merge {
		targets = s.targets(b.t)
	}
	for _, target := range targets {
		b.maps.main(b.o.Main(target))
	}
}

func (b *builder) add(e *entry) {
	b.stack = b.stack[:0]
	b.list = b.list[:0]
	b.numbers = b.t.stacks.numbers(b.numbers[:0], e.stack)
	for _, n := range b.numbers {
		b.list = append(b.list, b.names.name(n))
	}
	b.mask()
	for i, mask := range b.masks {
		switch m := b.list[i]; {
		case mask == 0:
		case m.in == b.number && mask == m.all:
			b.stack = append(b.stack, m.loc)
		default:
			b.stack = append(b.stack, b.location(b.numbers[i], m, mask))
		}
	}
	b.roots(e.key.Status)
	b.sample(e)
}

// mask says which frames of b.list are shown, in b.masks. Few stacks have a frame that takes a look at its neighbours.
func (b *builder) mask() {
	b.masks = b.masks[:0]
	shown, simple := false, b.o.Objects == nil
	for _, m := range b.list {
		simple = simple && m.elision != elidedSometimes
		shown = shown || m.elision == shownAlways
		b.masks = append(b.masks, m.all)
	}
	if simple && shown {
		return
	}
	b.frames = b.frames[:0]
	for _, m := range b.list {
		b.frames = append(b.frames, m.frames)
	}
	b.masks = symbolize.Elide(b.masks[:0], b.frames)
	if b.o.Objects != nil {
		hideAllocator(b.masks, b.frames)
	}
}

// roots marks what is missing.
func (b *builder) roots(s Status) {
	switch {
	case s&Broken != 0:
		b.stack = append(b.stack, b.named(BrokenFrame))
	case s&Truncated != 0:
		b.stack = append(b.stack, b.named(TruncatedFrame))
	case len(b.stack) == 0:
		b.stack = append(b.stack, b.named(NoStackFrame))
	}
}

func (b *builder) sample(e *entry) {
	k := sampleKey{hash: b.hash(), labels: e.key.Labels, size: e.key.Size}
	if b.o.TargetLabels != nil {
		k.target = e.key.Target
	}
	for at := b.names.samples.find(k, 0); at != 0; at = b.names.samples.find(k, at) {
		s := b.p.Sample[at-1]
		if !equalStacks(s.Location, b.stack) {
			continue
		}
		for i, v := range b.values(e.key, e.value) {
			s.Value[i] += v
		}
		return
	}
	s := &b.sampleSlab.take(1)[0]
	s.Location = b.stackSlab.take(len(b.stack))
	copy(s.Location, b.stack)
	s.Value = b.values(e.key, e.value)
	b.label(s, e.key)
	b.names.samples.add(k)
	b.p.Sample = append(b.p.Sample, s)
}

func (b *builder) hash() (h uint64) {
	for _, l := range b.stack {
		h = addr(&b.t.hash.keys, h, objfile.Addr{Off: l.ID})
	}
	return h
}

func equalStacks(a, b []*profile.Location) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (b *builder) label(s *profile.Sample, k Key) {
	v := b.t.labels.get(k.Labels)
	if b.o.TargetLabels == nil {
		s.Label = b.shared(k.Labels, v.list)
	} else {
		for _, l := range v.list {
			addLabel(s, l)
		}
		b.targetLabels(s, k.Target)
	}
	addNumber(s, "goid", int64(v.num.Goid))
	addNumber(s, "tid", int64(v.num.TID))
	if o := b.o.Objects; o != nil {
		addNumber(s, "bytes", o.Sizes[k.Size])
	}
}

// shared are the labels of a set, in one map for all samples of the profile: each map takes 400 bytes.
func (b *builder) shared(id LabelID, list []Label) map[string][]string {
	if len(list) == 0 {
		return nil
	}
	labels, ok := b.labels[id]
	if !ok {
		s := &profile.Sample{}
		for _, l := range list {
			addLabel(s, l)
		}
		if labels = s.Label; b.labels == nil {
			b.labels = make(map[LabelID]map[string][]string)
		}
		b.labels[id] = labels
	}
	return labels
}

func (b *builder) targetLabels(s *profile.Sample, target uint32) {
	if b.o.TargetLabels == nil {
		return
	}
	for _, l := range b.o.TargetLabels(target) {
		addLabel(s, l)
	}
}

// addLabel leaves out labels with an empty value: the format cannot tell them from none (runtime/pprof's vanish, too).
func addLabel(s *profile.Sample, l Label) {
	if l.Value == "" {
		return
	}
	if s.Label == nil {
		s.Label = make(map[string][]string)
	}
	key := clean(l.Key)
	s.Label[key] = append(s.Label[key], clean(l.Value))
}

func addNumber(s *profile.Sample, key string, v int64) {
	if v == 0 {
		return
	}
	if s.NumLabel == nil {
		s.NumLabel = make(map[string][]int64)
	}
	s.NumLabel[key] = []int64{v}
}

func (b *builder) lost(k lostKey, v Value) {
	frame := LostFrame
	if k.reason == Throttled {
		frame = ThrottledFrame
	}
	s := &profile.Sample{Location: []*profile.Location{b.named(frame)}, Value: b.values(Key{Target: k.target, Kind: k.kind}, v)}
	addLabel(s, Label{"lost", k.reason})
	b.targetLabels(s, k.target)
	b.p.Sample = append(b.p.Sample, s)
}

// location returns the location of an address with the frames in mask.
func (b *builder) location(n uint32, name *name, mask uint64) *profile.Location {
	if mask != 1<<len(name.frames)-1 {
		k := locKey{n, mask}
		if b.locs[k] == nil {
			b.locs[k] = b.newLocation(name.addr, mask, name.frames, name.ids)
		}
		return b.locs[k]
	}
	if name.in != b.number {
		name.loc, name.in = b.newLocation(name.addr, mask, name.frames, name.ids), b.number
	}
	return name.loc
}

// newLocation makes the location of an address; ids are those of its frames' functions.
func (b *builder) newLocation(a objfile.Addr, mask uint64, frames []symbolize.Frame, ids []uint32) *profile.Location {
	if a.Image == objfile.KernelImage && len(frames) > 0 {
		return b.kernelLocation(ids[0], &frames[0])
	}
	m := b.maps.get(a)
	l := b.append(a.Off, m)
	l.Line = b.lineSlab.take(len(frames))[:0]
	for i := range frames {
		if i >= 64 || mask&(1<<i) != 0 {
			l.Line = append(l.Line, profile.Line{Function: b.function(ids[i], &frames[i]), Line: int64(frames[i].Line)})
		}
		m.observe(&frames[i])
	}
	return l
}

// kernelLocation is the function's, with the offset from _text as address: the absolute one would tell
// whoever reads the file where the kernel lies (KASLR), and would differ after each boot.
func (b *builder) kernelLocation(id uint32, f *symbolize.Frame) *profile.Location {
	fn := b.function(id, f)
	known := &b.names.functions[id]
	if known.kernel == nil {
		m := b.maps.get(objfile.Addr{Image: objfile.KernelImage})
		known.kernel = b.append(f.Entry, m)
		known.kernel.Line = b.lineSlab.take(1)
		known.kernel.Line[0] = profile.Line{Function: fn, Line: int64(f.Line)}
		m.observe(f)
	}
	return known.kernel
}

func (b *builder) named(name string) *profile.Location {
	if l := b.pseudo[name]; l != nil {
		return l
	}
	l := b.append(0, nil)
	l.Line = []profile.Line{b.line(&symbolize.Frame{Func: name, SystemName: name})}
	b.pseudo[name] = l
	return l
}

func (b *builder) append(addr uint64, m *mapping) *profile.Location {
	l := &b.locationSlab.take(1)[0]
	l.ID, l.Address = uint64(len(b.p.Location)+1), addr
	if m != nil {
		l.Mapping = m.Mapping
	}
	b.p.Location = append(b.p.Location, l)
	return l
}

func (b *builder) line(f *symbolize.Frame) profile.Line {
	return profile.Line{Function: b.function(b.names.id(f), f), Line: int64(f.Line)}
}

// function returns that of a frame, whose id is known.
func (b *builder) function(id uint32, f *symbolize.Frame) *profile.Function {
	known := &b.names.functions[id]
	if known.in != b.number {
		*known = function{in: b.number, Function: &b.functionSlab.take(1)[0]}
		*known.Function = profile.Function{
			ID: uint64(len(b.p.Function) + 1), Name: f.Func, SystemName: f.SystemName,
			Filename: f.File, StartLine: int64(f.StartLine),
		}
		b.p.Function = append(b.p.Function, known.Function)
	}
	return known.Function
}

func (b *builder) finish() { b.maps.finish() }
