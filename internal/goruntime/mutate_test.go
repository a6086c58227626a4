package goruntime_test

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// base is a program's file with edits laid over it: the whole of it is never in memory.
type base struct {
	path    string
	f       *os.File
	size    int64
	regions []region
	patches []patch
	edits   []string
	added   int // sections
}

// region is a part of a file that means something.
type region struct {
	name      string
	off, size int64
}

// patch replaces bytes of the file, n times in a row.
type patch struct {
	off  int64
	data []byte
	n    int64
}

func (b *base) patch(off int64, data []byte) { b.patches = append(b.patches, patch{off, data, 1}) }

// ReadAt implements io.ReaderAt.
func (b *base) ReadAt(p []byte, off int64) (int, error) {
	if off >= b.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), b.size-off))
	m, err := b.f.ReadAt(p[:n], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return m, err
	}
	clear(p[m:n]) // the file was made longer
	for i := range b.patches {
		b.patches[i].apply(p[:n], off)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (p *patch) apply(b []byte, off int64) {
	size := int64(len(p.data))
	from, to := max(off, p.off), min(off+int64(len(b)), p.off+size*p.n)
	for from < to {
		from += int64(copy(b[from-off:to-off], p.data[(from-p.off)%size:]))
	}
}

// Close implements io.Closer for objfile, which closes what it fails to open: the base is closed by its own.
func (b *base) Close() error { return nil }

func (b *base) close() { _ = b.f.Close() }

func openBase(t *testing.T, path string) *base {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := &base{path: path, f: f, size: st.Size()}
	if err := b.findRegions(); err != nil {
		t.Fatal(err)
	}
	return b
}

// findRegions finds the parts of the program that pprofd reads.
func (b *base) findRegions() error {
	e, err := elf.NewFile(b.f)
	if err != nil {
		return err
	}
	var h [64]byte
	if _, err := b.f.ReadAt(h[:], 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	b.regions = []region{
		{"ELF header", 0, 64}, {"program headers", int64(le.Uint64(h[32:])), 56 * int64(len(e.Progs))},
		{"section headers", int64(le.Uint64(h[40:])), 64 * int64(len(e.Sections))}, {"anywhere", 0, b.size},
	}
	for _, s := range e.Sections {
		if s.Type != elf.SHT_NOBITS && s.Type != elf.SHT_NULL && s.FileSize > 0 {
			b.regions = append(b.regions, region{s.Name, int64(s.Offset), int64(s.FileSize)})
		}
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_NOTE || p.Type == elf.PT_DYNAMIC {
			b.regions = append(b.regions, region{p.Type.String(), int64(p.Off), int64(p.Filesz)})
		}
	}
	return b.findTables(e)
}

// findTables finds the parts of Go's tables, whether or not sections say where they are.
func (b *base) findTables(e *elf.File) error {
	f, err := objfile.Open(b, b.size)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := f.GoModule()
	if err != nil {
		return nil // C
	}
	at := func(addr uint64) int64 {
		for _, p := range e.Progs {
			if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
				return int64(p.Off + addr - p.Vaddr)
			}
		}
		return 0
	}
	header := at(m.PCHeader)
	var h [0x48]byte
	if _, err := b.f.ReadAt(h[:], header); err != nil {
		return err
	}
	for range 3 { // what matters most is mutated most
		b.regions = append(b.regions, region{"pclntab header", header, 0x48}, region{"moduledata", at(m.ModuleData), 8 * 74})
	}
	for i, name := range []string{"funcnametab", "cutab", "filetab", "pctab", "functab"} {
		if off := int64(binary.LittleEndian.Uint64(h[0x20+8*i:])); off > 0 && header+off < b.size {
			b.regions = append(b.regions, region{name, header + off, min(64<<10, b.size-header-off)})
		}
	}
	b.regions = append(b.regions, region{"inline trees", at(m.GoFunc), 64 << 10}, region{"text", at(m.Text), 64 << 10})
	return nil
}

// mutate makes the i-th mutation: the same one each time.
func (b *base) mutate(i uint64) {
	r := rand.New(rand.NewPCG(i, 20260))
	for range 1 + r.IntN(4) {
		reg := b.regions[r.IntN(len(b.regions))]
		if reg.size <= 0 {
			continue
		}
		off := reg.off + r.Int64N(reg.size)
		b.edits = append(b.edits, fmt.Sprintf("%s+%#x", reg.name, off-reg.off))
		b.edit(r, reg, off)
	}
	if r.IntN(12) == 0 {
		b.size = 1 + r.Int64N(b.size)
		b.edits = append(b.edits, fmt.Sprintf("cut at %#x", b.size))
	}
}

// edit changes a region at off.
func (b *base) edit(r *rand.Rand, reg region, off int64) {
	values := []uint64{
		0, 1, 7, 255, 1 << 12, 1 << 16, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 40, 1 << 47, 1<<62 - 1, 1 << 62, 1 << 63, 1<<64 - 1,
		uint64(b.size), uint64(b.size) - 1, uint64(reg.off), r.Uint64(), r.Uint64() >> 32, r.Uint64() >> 48,
	}
	word := binary.LittleEndian.AppendUint64(nil, values[r.IntN(len(values))])
	switch r.IntN(6) {
	case 0, 1: // a field
		size := int64(1) << r.IntN(4)
		b.patch(reg.off+(off-reg.off)&^(size-1), word[:size])
	case 2: // a bit
		var c [1]byte
		_, _ = b.f.ReadAt(c[:], off)
		c[0] ^= 1 << r.IntN(8)
		b.patch(off, c[:])
	case 3: // noise
		noise := make([]byte, 1+r.IntN(64))
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		b.patch(off, noise)
	case 4: // a repeated word, up to the region's end
		n := min(1+r.Int64N(4096), (reg.off+reg.size-off)/8+1)
		b.patches = append(b.patches, patch{off &^ 7, word, n})
	case 5: // a piece of the file elsewhere
		piece := make([]byte, 1+r.IntN(256))
		_, _ = b.f.ReadAt(piece, r.Int64N(b.size))
		b.patch(off, piece)
	}
}

// bomb makes a file of which little is much in memory, or takes long.
type bomb struct {
	symbols bool // it takes a program that has symbols
	lay     func(*base)
}

// bombs of all kinds; xz and zlib are compressed zeros.
func bombs(xz, zlib []byte) map[string]bomb {
	section := func(name string, data []byte, n int64) bomb {
		return bomb{lay: func(b *base) { b.addSection(name, elf.SHT_PROGBITS, data, n) }}
	}
	segment := func(pattern string) bomb {
		return bomb{lay: func(b *base) { b.addSegment([]byte(pattern), 1<<30) }}
	}
	symbol := append([]byte("\x01\x00\x00\x00\x02\x00\x01\x00\x00\x10\x00\x00"), make([]byte, 12)...)
	unit := []byte("\x08\x00\x00\x00\x04\x00\x00\x00\x00\x00\x08\x01") // its abbreviations are at 0
	dwarf := func(info string, data []byte, n int64) bomb {
		return bomb{lay: func(b *base) {
			b.addSection(info, elf.SHT_PROGBITS, data, n)
			b.addSection(".debug_abbrev", elf.SHT_PROGBITS, append([]byte{1, 0x11, 0}, bytes.Repeat([]byte{0x50, 0x19}, 1<<20)...), 1)
		}}
	}
	return map[string]bomb{
		"millions of symbols":                {true, func(b *base) { b.addSection(".symtab", elf.SHT_SYMTAB, symbol, 3<<20) }},
		".gnu_debugdata: zeros":              section(".gnu_debugdata", xz, 1),
		"DWARF: units without end":           dwarf(".debug_info", make([]byte, 4096), 64<<10),
		"DWARF: zeros, compressed":           dwarf(".zdebug_info", zlib, 1),
		"DWARF: abbreviations for each unit": dwarf(".debug_info", unit, 1<<20),
		"function tables":                    segment("\xf1\xff\xff\xff\x00\x00\x01\x08"),
		"build information":                  segment("\xff Go buildinf:\x08\x00"),
	}
}

// xzZeros is as much as is unpacked.
func xzZeros() []byte {
	var out bytes.Buffer
	if w, err := xz.NewWriter(&out); err == nil {
		_, _ = w.Write(make([]byte, 16<<20))
		_ = w.Close()
	}
	return out.Bytes()
}

// zlibZeros are 128 MiB in the older form of compressed debug sections.
func zlibZeros() []byte {
	const mib = 128
	var out bytes.Buffer
	out.Write(append([]byte("ZLIB"), binary.BigEndian.AppendUint64(nil, uint64(mib)<<20)...))
	w := zlib.NewWriter(&out)
	for range mib {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	_ = w.Close()
	return out.Bytes()
}

// addSection appends data, n times, and makes it the section of that name: in place of the file's, or of another.
func (b *base) addSection(name string, typ elf.SectionType, data []byte, n int64) {
	e, err := elf.NewFile(b.f)
	if err != nil {
		return
	}
	b.added++
	index := b.added
	for i, s := range e.Sections {
		if s.Name == name {
			index = i
		}
	}
	header := make([]byte, 64)
	at := b.regions[2].off + 64*int64(index)
	_, _ = b.f.ReadAt(header, at)
	le := binary.LittleEndian
	le.PutUint32(header[4:], uint32(typ))
	le.PutUint64(header[8:], 0)
	le.PutUint64(header[24:], uint64(b.size))
	le.PutUint64(header[32:], uint64(len(data))*uint64(n))
	b.patch(at, header)
	if names := e.Section(".shstrtab"); names != nil && index == b.added { // its name, over another's
		b.patch(int64(names.Offset)+int64(le.Uint32(header)), append([]byte(name), 0))
	}
	b.patches = append(b.patches, patch{b.size, data, n})
	b.size += int64(len(data)) * n
}

// addSegment removes the section headers, and makes the first mapped segment one that holds the pattern.
func (b *base) addSegment(pattern []byte, size int64) {
	b.patch(40, make([]byte, 8))
	segment := binary.LittleEndian.AppendUint64(nil, uint64(elf.PT_LOAD)|7<<32)
	for _, v := range []uint64{uint64(b.size) &^ 7, 0x10000, 0, uint64(size), uint64(size), 4096} {
		segment = binary.LittleEndian.AppendUint64(segment, v)
	}
	b.patch(b.regions[1].off, segment)
	b.patches = append(b.patches, patch{b.size &^ 7, pattern, size / int64(len(pattern))})
	b.size += size
}

// judge does with files what pprofd does, and keeps account of what that takes.
type judge struct{ *report }

// file judges one file, and says what CPU time that took.
func (j judge) file(t *testing.T, b *base, name string) time.Duration {
	t.Helper()
	resetPeak()
	start := cpuTime(t)
	j.Files++
	j.use(b, name)
	cost := cpuTime(t) - start
	if cost > j.MaxTime {
		j.MaxTime, j.TimeAt = cost, name
	}
	if m := statusBytes(t, "VmHWM:"); m > j.MaxMemory {
		j.MaxMemory, j.MemoryAt = m, name
	}
	return cost
}

// use does with a file what pprofd does.
func (j judge) use(b *base, name string) {
	f, err := objfile.Open(b, b.size)
	if err != nil {
		return
	}
	defer f.Close()
	j.Opened++
	im := &objfile.Image{ID: 7, Path: "/bin/app", BuildID: f.BuildID(), File: f}
	version := ""
	if info, err := f.BuildInfo(); err == nil {
		version = info.GoVersion
	}
	f.Cgo()
	addrs := []uint64{f.Entry(), 0, 1<<63 - 1}
	if m, err := f.GoModule(); err == nil {
		j.Go++
		step := max((m.EText-m.Text)/100, 1)
		for pc := m.Text; pc < m.EText && len(addrs) < 110; pc += step {
			addrs = append(addrs, pc)
		}
	}
	for _, s := range f.Segments() {
		addrs = append(addrs, s.Vaddr, s.Vaddr+s.Memsz/2, s.Vaddr+s.Memsz-1)
	}
	if l, err := goruntime.Find(f, version); err == nil {
		j.Layouts++
		_ = l.UseDWARF(f)
	} else {
		_ = new(goruntime.Layout).UseDWARF(f)
	}
	if t, err := f.Pclntab(); err == nil {
		t.Lookup("runtime.goexit", "runtime.mcall", "crosscall2")
		for _, pc := range addrs {
			if fn, ok := t.Find(pc); ok {
				fn.SPDelta(pc)
				fn.Flags()
			}
		}
	}
	j.profile(im, addrs, name)
}

// profile builds the profile of a sample at each of the addresses.
func (j judge) profile(im *objfile.Image, addrs []uint64, name string) {
	images := func(id objfile.ImageID) *objfile.Image {
		if id == im.ID {
			return im
		}
		return nil
	}
	table := aggregate.New(aggregate.Limits{})
	for i, pc := range addrs {
		stack := []objfile.Addr{{Image: im.ID, Off: pc}, {Image: im.ID, Off: addrs[len(addrs)-1-i]}}
		table.Add(aggregate.Key{Target: 1}, stack, int64(time.Millisecond))
	}
	sym := symbolize.New(images, &symbolize.Options{Kallsyms: "/none"})
	o := aggregate.BuildOptions{Main: func(uint32) objfile.ImageID { return im.ID }}
	for built := range table.Build(images, sym, o) {
		err := built.Profile.CheckValid()
		if err == nil {
			err = built.Profile.WriteUncompressed(io.Discard)
		}
		if err != nil {
			j.Invalid = append(j.Invalid, fmt.Sprintf("%s: %v", name, err))
		}
		j.Profiles++
	}
}
