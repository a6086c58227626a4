package gopclntab

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

var updateSeeds = flag.Bool("update-seeds", false, "write testdata/fuzz anew")

// FuzzTable reads a crafted table in every way. Seeds are pieces of real tables (testdata/fuzz,
// see TestSeeds). Text is at 0x401000, funcdata in the middle of the table.
func FuzzTable(f *testing.F) {
	for _, magic := range []byte{0xfa, 0xf0, 0xf1} {
		f.Add(append([]byte{magic, 0xff, 0xff, 0xff, 0, 0, 1, 8, 2}, make([]byte, 200)...), uint64(0x401000))
	}
	f.Fuzz(func(t *testing.T, b []byte, pc uint64) {
		tab, err := Open(bytes.NewReader(b), Image{Text: 0x401000, GoFunc: uint64(len(b) / 2)})
		if err != nil {
			return
		}
		tab.Lookup("runtime.mcall", "main.main")
		tab.Inlining("runtime.mcall", "runtime.acquirem")
		for _, pc := range []uint64{pc, 0x401000, 0x401000 + pc%0x10000} {
			fn, ok := tab.Find(pc)
			if ok && (pc < fn.Entry || pc >= fn.End) {
				t.Errorf("pc %#x is not in [%#x, %#x)", pc, fn.Entry, fn.End)
			}
			if d, ok := fn.SPDelta(pc); d != 0 && !ok {
				t.Errorf("SP delta %d, %v", d, ok)
			} else if _, start, end, _ := fn.SPRange(pc); ok && (start < fn.Entry || start > pc || end <= pc || end > fn.End) {
				t.Errorf("SP delta of %#x: [%#x, %#x) of [%#x, %#x)", pc, start, end, fn.Entry, fn.End)
			}
			frames := fn.AppendFrames(nil, pc)
			if len(frames) > maxInline+1 || len(frames) > 0 && frames[len(frames)-1].Inlined {
				t.Errorf("%d frames", len(frames))
			}
			for _, fr := range frames {
				if len(fr.Func) > maxString || len(fr.File) > maxString || strings.Contains(fr.Func+fr.File, "\x00") {
					t.Errorf("frame %.200s", fmt.Sprint(fr))
				}
			}
		}
	})
}

// TestSeeds keeps the seeds alive: pieces of real tables of each version of the format, which say
// of their functions what the whole tables do. With -update-seeds it writes them anew.
func TestSeeds(t *testing.T) {
	for _, version := range []string{"1.17.13", "1.18.10", "1.21.13", "1.27.4"} {
		if strings.HasPrefix(version, "1.17") && !everything() && !*updateSeeds {
			continue
		}
		p := buildPCs(t, testprog.Options{Go: version})
		tab := p.table(t)
		seed := piece(t, p, tab, 40)
		small, err := Open(bytes.NewReader(seed), Image{Text: p.Text})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(40) {
			want, _ := tab.funcAt(i)
			pc := want.Entry + 1
			got, ok := small.Find(pc)
			d1, _ := want.SPDelta(pc)
			if d2, _ := got.SPDelta(pc); !ok || got.Name() != want.Name() || d1 != d2 {
				t.Errorf("%s: function %d: %q, want %q", version, i, got.Name(), want.Name())
			}
		}
		name := filepath.Join("testdata/fuzz/FuzzTable", "go"+version)
		text := fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\nuint64(%d)\n", seed, p.Text+0x100)
		if *updateSeeds {
			if err := os.WriteFile(name, text, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// piece cuts a table of the first n functions out of a real one, by cutting each sub-table.
func piece(t *testing.T, p *program, tab *Table, n uint64) []byte {
	read := func(addr, size uint64) []byte {
		b := make([]byte, size)
		if !tab.pages.read(b, addr) {
			t.Fatalf("reading %#x", addr)
		}
		return b
	}
	le := binary.LittleEndian
	header := read(p.PCHeader, uint64(8+8*tab.headerWords))
	le.PutUint64(header[8:], n)
	out := bytes.Clone(header)
	at := len(header) - 5*8
	for i, sub := range []struct{ addr, size uint64 }{{tab.funcname, 4 << 10}, {tab.cutab, 512}, {tab.filetab, 1 << 10}, {tab.pctab, 8 << 10}} {
		le.PutUint64(out[at+8*i:], uint64(len(out)))
		out = append(out, read(sub.addr, sub.size)...)
	}
	le.PutUint64(out[at+8*4:], uint64(len(out)))
	functab := read(tab.functab, n*2*tab.entry+tab.entry)
	for i := range n { // records move as functab shrinks
		at := functab[i*2*tab.entry+tab.entry:]
		le.PutUint32(at, le.Uint32(at)-uint32((tab.nfunc-n)*2*tab.entry))
	}
	out = append(out, functab...)
	return append(out, read(tab.functab+tab.nfunc*2*tab.entry+tab.entry, 4<<10)...)
}
