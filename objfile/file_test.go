package objfile

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// The oracle is debug/elf's reading of each segment.
func TestReadAtIsTheSegmentsContent(t *testing.T) {
	path := testprog.Build(t, "hello", testprog.Options{PIE: true})
	f := openFile(t, path)
	e, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, p := range e.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		want := make([]byte, p.Memsz)
		if _, err := p.ReadAt(want[:p.Filesz], 0); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			off := rand.IntN(len(want))
			n := min(1+rand.IntN(3*pageSize), len(want)-off)
			got := make([]byte, n)
			if m, err := f.ReadAt(got, int64(p.Vaddr)+int64(off)); m != n || err != nil || !bytes.Equal(got, want[off:off+n]) {
				t.Fatalf("%d bytes at %#x+%#x: %d, %v", n, p.Vaddr, off, m, err)
			}
		}
	}
	last := f.Segments()[len(f.Segments())-1]
	end := int64(last.Vaddr + last.Memsz)
	if n, err := f.ReadAt(make([]byte, 16), end-8); n != 8 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(make([]byte, 16), -8); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("negative address: %d, %v", n, err)
	}
}

// A binary of 100 MB (sparse at its end) opens, and tells all that a sampler needs, within 1 MB of heap.
func TestHeapOfALargeProgram(t *testing.T) {
	path := copyOfFile(t, needs.Tool(t, "go"))
	if err := os.Truncate(path, 100<<20); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f := openFile(t, path)
	if _, err := f.GoModule(); err != nil {
		t.Fatal(err)
	}
	if f.BuildID() == "" {
		t.Error("no build ID")
	}
	f.Cgo()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}

func copyOfFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(out, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}

func BenchmarkOpen(b *testing.B) {
	path := copyOfFile(b, needs.Tool(b, "go"))
	if err := os.Truncate(path, 100<<20); err != nil {
		b.Fatal(err)
	}
	bare := withoutSections(b, path)
	for name, path := range map[string]string{"sections": path, "bare": bare} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := os.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				f, err := Open(r, 100<<20)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.GoModule(); err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}

func TestOpenSaysWhatIsUnsupported(t *testing.T) {
	b, err := os.ReadFile(testprog.Build(t, "hello", testprog.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	b = b[:4096]
	for name, change := range map[string]func([]byte) []byte{
		"empty": func([]byte) []byte { return nil },
		"script": func([]byte) []byte {
			return []byte("#!/bin/sh\nexit 0\n# and so on, longer than an ELF header is\n....")
		},
		"32-bit":           func(b []byte) []byte { b[elf.EI_CLASS] = 1; return b },
		"big-endian":       func(b []byte) []byte { b[elf.EI_DATA] = 2; return b },
		"other machine":    func(b []byte) []byte { b[18] = byte(elf.EM_RISCV); return b },
		"relocatable":      func(b []byte) []byte { b[16] = 1; return b },
		"no segments":      func(b []byte) []byte { b[56], b[57] = 0, 0; return b },
		"many segments":    func(b []byte) []byte { b[56], b[57] = 0xff, 0xff; return b },
		"segments far off": func(b []byte) []byte { binary.LittleEndian.PutUint64(b[32:], 1<<63); return b },
		"cut":              func(b []byte) []byte { return b[:100] },
	} {
		b := change(bytes.Clone(b))
		if _, err := Open(nopCloser{bytes.NewReader(b)}, int64(len(b))); !errors.Is(err, ErrUnsupported) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// heads are beginnings of real programs, long enough for headers, notes and some tables.
func heads(f *testing.F) {
	for _, version := range []string{"1.18.10", "1.27.4"} {
		for _, o := range []testprog.Options{{Go: version, Strip: true}, {Go: version, Strip: true, PIE: true}} {
			b, err := os.ReadFile(testprog.Build(f, "hello", o))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b[:64<<10])
			f.Add(synthetic())
		}
	}
}

// synthetic is a file of one segment with a function table, module data, build information, symbols and a note in 8 KiB:
// fuzzing changes it more fruitfully than a real program.
func synthetic() []byte {
	const base, size = 0x400000, 0x2000
	b := make([]byte, size)
	w := func(off int, words ...uint64) {
		for i, v := range words {
			le.PutUint64(b[off+8*i:], v)
		}
	}
	copy(b, elf.ELFMAG+"\x02\x01\x01")
	le.PutUint16(b[16:], uint16(elf.ET_EXEC))
	le.PutUint16(b[18:], uint16(elf.EM_X86_64))
	w(24, base+0x100, 64) // entry, phoff
	le.PutUint16(b[54:], phdrSize)
	le.PutUint16(b[56:], 2)
	w(64, uint64(elf.PT_LOAD)|7<<32, 0, base, base, size, size, 0x1000)
	w(64+phdrSize, uint64(elf.PT_NOTE)|4<<32, 0xf00, base+0xf00, 0, 0x20, 0x20, 4)
	hdr := 0x200
	copy(b[hdr:], "\xf1\xff\xff\xff\x00\x00\x01\x08")
	w(hdr+8, 1, 1, 0, 0x48, 0x60, 0x70, 0x80, 0x90)
	w(hdr+0x90, 0x40<<32, 0x100)
	copy(b[hdr+0x48:], "\x00crosscall2\x00")
	md := 0x400
	w(md, base+0x200, base+0x248)
	w(md+8*mdFtab, base+0x290, 2, 2)
	w(md+8*mdMinPC, base+0x100, base+0x180, base+0x100, base+0x180)
	w(md+8*40, base+0x300, base+0x700, 1, 1) // gofunc, textsectmap
	w(0x700, 0, 0x80, base+0x100)
	copy(b[0x800:], buildInfoMagic+"\x08\x02")
	copy(b[0x820:], "\x08go1.25.7\x00")
	copy(b[0xf00:], "\x04\x00\x00\x00\x04\x00\x00\x00\x04\x00\x00\x00Go\x00\x00abcd")
	return b
}

func TestSyntheticProgramIsFound(t *testing.T) {
	b := synthetic()
	f, err := Open(nopCloser{bytes.NewReader(b)}, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.GoModule()
	if err != nil || m.ModuleData != 0x400400 || m.GoFunc != 0x400300 || m.NextAddr != 0x400400+72*8 || !f.Cgo() || f.GoBuildID() != "abcd" {
		t.Errorf("%+v %v %v %q", m, err, f.Cgo(), f.GoBuildID())
	}
}

// sectioned is synthetic with what only section headers lead to: symbols, also compressed ones, a note, debug sections.
func sectioned(t testing.TB) []byte {
	b := synthetic()
	symbols := func(names ...string) (symtab, strtab []byte) {
		symtab, strtab = append(symtab, make([]byte, symSize)...), []byte{0}
		for i, name := range names {
			symtab = le.AppendUint32(symtab, uint32(len(strtab)))
			symtab = append(symtab, byte(elf.STT_FUNC), 0, 1, 0)
			symtab = le.AppendUint64(le.AppendUint64(symtab, uint64(0x400100+0x10*i)), 0x10)
			strtab = append(append(strtab, name...), 0)
		}
		return symtab, strtab
	}
	symtab, strtab := symbols("main", "_ZN3foo3barEv", "runtime.allgs")
	innerSyms, innerStrs := symbols("static_one", "static_two")
	inner := appendSections(synthetic()[:0x100], []namedSection{
		{".text", elf.SHT_PROGBITS, 0, nil}, {".symtab", elf.SHT_SYMTAB, 3, innerSyms}, {".strtab", elf.SHT_STRTAB, 0, innerStrs},
	})
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	_, _ = w.Write(bytes.Repeat([]byte("debug information "), 20))
	_ = w.Close()
	chdr := le.AppendUint64(le.AppendUint64(le.AppendUint64(nil, uint64(elf.COMPRESS_ZLIB)), 360), 1)
	return appendSections(b, []namedSection{
		{".text", elf.SHT_PROGBITS, 0, nil}, {".symtab", elf.SHT_SYMTAB, 3, symtab}, {".strtab", elf.SHT_STRTAB, 0, strtab},
		{".note.gnu.build-id", elf.SHT_NOTE, 0, []byte("\x04\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00GNU\x0001234567")},
		{".debug_info", elf.SHT_PROGBITS, 0, append(chdr, packed.Bytes()...)},
		{".zdebug_abbrev", elf.SHT_PROGBITS, 0, append([]byte("ZLIB\x00\x00\x00\x00\x00\x00\x01\x68"), packed.Bytes()...)},
		{".gnu_debugdata", elf.SHT_PROGBITS, 0, compressGo(t, inner)},
		{".go.buildinfo", elf.SHT_NULL, 0, nil},
	})
}

type namedSection struct {
	name string
	typ  elf.SectionType
	link uint32
	data []byte
}

// appendSections appends sections, their names and their headers to a file of one ELF header.
func appendSections(b []byte, sections []namedSection) []byte {
	b = bytes.Clone(b)
	sections = append([]namedSection{{}}, append(sections, namedSection{".shstrtab", elf.SHT_STRTAB, 0, nil})...)
	var names []byte
	for _, s := range sections {
		names = append(append(names, s.name...), 0)
	}
	sections[len(sections)-1].data = names
	var headers []byte
	at := 0
	for _, s := range sections {
		flags := uint64(0)
		if s.name == ".debug_info" {
			flags = uint64(elf.SHF_COMPRESSED)
		}
		headers = le.AppendUint32(le.AppendUint32(headers, uint32(at)), uint32(s.typ))
		for _, v := range []uint64{flags, 0, uint64(len(b)), uint64(len(s.data)), uint64(s.link), 4, 0} {
			headers = le.AppendUint64(headers, v)
		}
		b = append(b, s.data...)
		at += len(s.name) + 1
	}
	le.PutUint64(b[40:], uint64(len(b)))
	le.PutUint16(b[58:], shdrSize)
	le.PutUint16(b[60:], uint16(len(sections)))
	le.PutUint16(b[62:], uint16(len(sections)-1))
	return append(b, headers...)
}

func TestSectionedProgramIsFound(t *testing.T) {
	b := sectioned(t)
	f, err := Open(nopCloser{bytes.NewReader(b)}, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[uint64]string{0x400100: "main", 0x400115: "static_two", 0x400130: ""} {
		if name, _, _ := f.Symbol(addr); name != want {
			t.Errorf("%#x is %q, want %q", addr, name, want)
		}
	}
	if n := len(f.symbols.strings); n != 2 {
		t.Errorf("%d symbol tables, want that of .gnu_debugdata too", n)
	}
	if _, ok := f.SymbolAddr("runtime.allgs"); !ok || f.BuildID() != "3031323334353637" {
		t.Errorf("%v %q", ok, f.BuildID())
	}
	for _, name := range []string{"info", "abbrev"} {
		if got, err := f.DWARFSection(name); err != nil || len(got) != 360 {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

// Everything that can be asked of a file ends, in bounded memory, whatever is in it.
func FuzzFile(f *testing.F) {
	heads(f)
	f.Add(sectioned(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Open(nopCloser{bytes.NewReader(b)}, int64(len(b)))
		if err != nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		askAll(t, o)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20 {
			t.Errorf("%d bytes allocated for a file of %d", n, len(b))
		}
	})
}

// askAll asks a file all that pprofd does.
func askAll(t *testing.T, o *File) {
	t.Helper()
	if m, err := o.GoModule(); err == nil && (m.Text >= m.EText || !o.executable(m.Text)) {
		t.Errorf("text %#x-%#x", m.Text, m.EText)
	}
	_, _ = o.BuildInfo()
	if len(o.BuildID()) > 2*maxGNUID || len(o.GoBuildID()) > maxGoID {
		t.Errorf("build IDs %q, %q", o.BuildID(), o.GoBuildID())
	}
	o.Cgo()
	o.SymbolAddrs("runtime.allgs", "main")
	for _, name := range []string{"info", "abbrev"} {
		if b, err := o.DWARFSection(name); err == nil && len(b) > maxDWARFSection {
			t.Errorf("%s: %d bytes", name, len(b))
		}
	}
	table, _ := o.Pclntab()
	for _, s := range o.Segments() {
		for _, addr := range []uint64{o.Entry(), s.Vaddr, s.Vaddr + s.Memsz - 1, s.Vaddr + 0x100} {
			o.Symbol(addr)
			if table == nil {
				continue
			}
			if fn, ok := table.Find(addr); ok {
				fn.SPDelta(addr)
				fn.AppendFrames(nil, addr)
			}
		}
	}
}

func FuzzXZ(f *testing.F) {
	f.Add(compressGo(f, []byte("hello, hello, hello, hello")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := unxz(b, 1<<20); err == nil && len(out) > 1<<20 {
			t.Errorf("%d bytes", len(out))
		}
	})
}
