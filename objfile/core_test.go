package objfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// coreBytes is a core file with one thread, a mapped file and two ranges of memory, of which the second is not all in the file.
func coreBytes(path string) []byte {
	note := func(typ uint32, data []byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 5)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
		b = binary.LittleEndian.AppendUint32(b, typ)
		b = append(b, "CORE\x00\x00\x00\x00"...)
		return append(b, append(data, make([]byte, -len(data)&3)...)...)
	}
	words := func(list ...uint64) (b []byte) {
		for _, w := range list {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		return b
	}
	status := make([]byte, 336)
	binary.LittleEndian.PutUint32(status[32:], 77)
	binary.LittleEndian.PutUint16(status[12:], 11)
	binary.LittleEndian.PutUint64(status[112+16*8:], 0x400123) // rip
	binary.LittleEndian.PutUint64(status[112+19*8:], 0xc000000008)
	info := make([]byte, 128)
	binary.LittleEndian.PutUint32(info, 11)
	binary.LittleEndian.PutUint32(info[8:], 1) // SEGV_MAPERR
	binary.LittleEndian.PutUint64(info[16:], 0xbad)
	process := make([]byte, 136)
	binary.LittleEndian.PutUint32(process[24:], 76)
	copy(process[40:], "crashed")
	notes := bytes.Join([][]byte{
		note(noteProcess, process), note(noteStatus, status), note(noteSignal, info), note(2, make([]byte, 512)), note(noteAuxv, words(auxPhdr, 0x400040, 0, 0)),
		note(noteFile, append(words(2, 4096, 0x400000, 0x402000, 0, 0x402000, 0x403000, 2), path+"\x00"+path+"\x00"...)),
	}, nil)
	head := make([]byte, ehdrSize)
	copy(head, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(head[16:], 4) // ET_CORE
	binary.LittleEndian.PutUint16(head[18:], 62)
	binary.LittleEndian.PutUint64(head[32:], ehdrSize)
	binary.LittleEndian.PutUint16(head[54:], phdrSize)
	binary.LittleEndian.PutUint16(head[56:], 3)
	at := uint64(ehdrSize + 3*phdrSize)
	segment := func(typ, flags uint32, off, addr, filesz, memsz uint64) []byte {
		b := binary.LittleEndian.AppendUint32(nil, typ)
		b = binary.LittleEndian.AppendUint32(b, flags)
		return append(b, words(off, addr, 0, filesz, memsz, 1)...)
	}
	data := at + uint64(len(notes))
	return bytes.Join([][]byte{
		head, segment(4, 4, at, 0, uint64(len(notes)), 0), segment(1, 5, data, 0x400000, 8, 0x2000), segment(1, 6, data+8, 0xc000000000, 16, 4096),
		notes, []byte("\x7fELF\x02\x01\x01\x00"), []byte("in the core file"),
	}, nil)
}

func newCore(b []byte) (*Core, error) {
	return NewCore(nopCloser{bytes.NewReader(b)}, int64(len(b)))
}

// TestCore: what a core file says of its process, and its memory: its own, that of files, and nothing else.
func TestCore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	content := append([]byte("\x7fELF\x02\x01\x01\x00"), bytes.Repeat([]byte("x"), 3*4096-100-8)...)
	if err := os.WriteFile(file, content, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := newCore(coreBytes(file))
	if err != nil {
		t.Fatal(err)
	}
	if c.PID != 76 || c.Comm != "crashed" || len(c.Threads) != 1 || c.Threads[0].ID != 77 || c.CutOff() || c.executable() != file {
		t.Errorf("%+v", c)
	}
	if c.Threads[0] != (CoreThread{ID: 77, PC: 0x400123, SP: 0xc000000008}) || c.Signal != (CoreSignal{Number: 11, Code: 1, Addr: 0xbad}) || !c.Signal.Fatal() {
		t.Errorf("%+v, %+v", c.Threads, c.Signal)
	}
	images := NewImages()
	s, err := OpenCoreSpace(images, c, "")
	if err != nil {
		t.Fatal(err)
	}
	// The file is no program that can be read: so its memory is not there, either.
	if err := s.WhyNotGo(); !errors.Is(err, ErrNotGo) || !s.Current() || s.Exited() != nil || s.Trim() != nil || s.Reload() == nil || s.Core() != c {
		t.Errorf("%v", err)
	}
	for at, want := range map[uint64]string{0xc000000000: "in the core file", 0xc000000003: "the", 0x400000: "\x7fELF"} {
		b := make([]byte, len(want))
		if err := s.ReadMem(b, at); err != nil || string(b) != want {
			t.Errorf("%#x: %q, %v", at, b, err)
		}
	}
	pieces := []Piece{{Addr: 0xc000000000, Data: make([]byte, 2)}, {Addr: 0xc00000000f, Data: make([]byte, 2)}, {Addr: 1, Data: make([]byte, 1)}}
	if err := s.ReadPieces(pieces); err != nil || !pieces[0].OK || pieces[1].OK || pieces[2].OK {
		t.Errorf("%+v, %v", pieces, err)
	}
	for _, at := range []uint64{0, 0x400010, 0x402000, 0xc000000010, 1 << 63} {
		if err := s.ReadMem(make([]byte, 1), at); err == nil {
			t.Errorf("%#x can be read", at)
		}
	}
	if err := s.Close(); err != nil || images.Len() != 1 {
		t.Errorf("%v, %d images", err, images.Len())
	}
}

// TestCoresThatAreNone say what they are.
func TestCoresThatAreNone(t *testing.T) {
	good := coreBytes("/x")
	change := func(at int, b ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[at:], b)
		return bad
	}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"empty": {nil, "cut off"}, "text": {bytes.Repeat([]byte("text"), 50), "no ELF file"}, "a program": {change(16, 2), "ET_EXEC"},
		"another machine": {change(18, 8), "EM_MIPS"}, "no segments": {change(56, 0), "0 segments"}, "cut off in the segments": {good[:150], "cut off"},
		"cut off in the notes": {good[:500], "cut off"}, "no list of files": {change(ehdrSize+32, 0, 0), "NT_FILE"},
		"too many notes":    {change(ehdrSize+32, 0, 0, 0, 0, 0, 1), "bytes of notes"},
		"too many segments": {change(56, 0xff, 0xff), "segments"},
	} {
		if _, err := newCore(c.data); !errors.Is(err, ErrCore) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := newCore(good[:len(good)-3])
	if err != nil || !c.CutOff() {
		t.Fatalf("cut off in the memory: %v", err)
	}
	m := coreMemory{Core: c}
	if _, err := m.ReadAt(make([]byte, 16), 0xc000000000); !errors.Is(err, ErrCore) {
		t.Errorf("memory that is cut off: %v", err)
	}
}

// TestCoreOfTheKernel: a core file that the kernel has written, of a program that crashed, is that program.
func TestCoreOfTheKernel(t *testing.T) {
	path := testprog.Build(t, "heap", testprog.Options{PIE: true})
	file := testprog.Crash(t, path, "-quiet")
	if file == "" {
		t.Skip("this machine hands core files to a program, or keeps none: gcore's are tested in package profiler")
	}
	c, err := OpenCore(file)
	if err != nil {
		t.Fatal(err)
	}
	images := NewImages()
	s, err := OpenCoreSpace(images, c, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	main := s.Main()
	if main == nil || c.Comm != "heap" || len(c.Threads) < 3 || len(s.Absent()) > 0 || s.Exe().Path != path {
		t.Fatalf("%v, %q, %v, %v", s.WhyNotGo(), c.Comm, c.Threads, s.Absent())
	}
	for name := range map[string]bool{"main.main": true, "runtime.mallocgc": true} {
		mod, err := main.Image.File.Pclntab()
		if err != nil {
			t.Fatal(err)
		}
		fn, ok := mod.Lookup(name)[name]
		a, resolved := s.Resolve(fn.Entry + main.Bias)
		if !ok || !resolved || a != (Addr{main.Image.ID, fn.Entry}) {
			t.Errorf("%s: %v, %v", name, a, fn)
		}
		code, was := make([]byte, 16), make([]byte, 16)
		if _, err := main.Image.File.ReadAt(was, int64(fn.Entry)); err != nil {
			t.Fatal(err)
		}
		if err := s.ReadMem(code, fn.Entry+main.Bias); err != nil || !bytes.Equal(code, was) {
			t.Errorf("%s: code % x, in the file % x; %v", name, code, was, err)
		}
	}
}

// FuzzCore opens core files that are data: what they take is bounded, and what is mapped lies in order.
func FuzzCore(f *testing.F) {
	good := coreBytes("/proc/self/exe")
	f.Add(good)
	f.Add(good[:len(good)-5])
	f.Add(good[:300])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := newCore(b)
		if err != nil {
			return
		}
		for i := range c.files {
			c.files[i].path = "/nowhere" // not what the fuzzer thinks of
		}
		images := NewImages()
		s, err := OpenCoreSpace(images, c, "")
		if err != nil {
			return
		}
		for i, m := range s.Mappings() {
			if m.Start >= m.End || i > 0 && s.Mappings()[i-1].End > m.Start {
				t.Errorf("mappings %+v", s.Mappings())
			}
			s.Resolve(m.Start)
		}
		for _, seg := range c.segs[:min(len(c.segs), 100)] {
			p := make([]byte, 64)
			if n, err := s.core.ReadAt(p, int64(seg.Vaddr)); n < len(p) && err == nil || errors.Is(err, io.EOF) && int64(seg.Vaddr) >= 0 {
				t.Errorf("%d bytes at %#x: %v", n, seg.Vaddr, err)
			}
		}
		s.Main()
		if err := s.Close(); err != nil || images.Len() != 1 {
			t.Errorf("%v, %d images", err, images.Len())
		}
	})
}
