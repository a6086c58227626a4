package gopclntab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
)

// wellKnown are names that the unwinder needs, and the flags that its rules rest on.
var wellKnown = map[string]uint8{
	"runtime.systemstack":        FlagSPWrite | FlagAsm,
	"runtime.systemstack_switch": FlagAsm,
	"runtime.mcall":              FlagSPWrite | FlagAsm,
	"runtime.morestack":          FlagSPWrite | FlagAsm,
	"runtime.gogo":               FlagAsm, // jumps to a function named "gogo", which has SPWrite (1.17)
	"runtime.goexit":             FlagTopFrame | FlagAsm,
	"runtime.mstart":             FlagTopFrame | FlagAsm,
	"runtime.asyncPreempt":       FlagAsm,
	"runtime.mallocgc":           0,
	"runtime.schedule":           0,
}

// flagsIn is what a Go version has of flags.
func flagsIn(version string, flags uint8) uint8 {
	switch version {
	case "1.16.15":
		return 0
	case "1.17.13":
		return flags &^ FlagAsm
	}
	return flags
}

// TestLookup compares with the symbol table.
func TestLookup(t *testing.T) {
	for _, o := range oracleBuilds() {
		t.Run(o.String(), func(t *testing.T) {
			p := buildPCs(t, o)
			names := append(slices.Collect(maps.Keys(wellKnown)), "runtime.noSuchFunction")
			start := time.Now()
			tab := p.table(t)
			found := tab.Lookup(names...)
			t.Logf("%v for %d of %d names, %d pages", time.Since(start), len(found), len(names), tab.pages.fills)
			if len(found) != len(wellKnown) {
				t.Errorf("found %d of %d", len(found), len(wellKnown))
			}
			for name, f := range found {
				if f.Name() != name {
					t.Errorf("%s: found %q", name, f.Name())
				}
				if f.Entry != p.symbols[name] && f.Entry != p.symbols[name+".abi0"] {
					t.Errorf("%s: found %#x, symbol is %#x or %#x", name, f.Entry, p.symbols[name], p.symbols[name+".abi0"])
				}
				if want := flagsIn(o.Go, wellKnown[name]); f.Flags() != want {
					t.Errorf("%s: flags %b, want %b", name, f.Flags(), want)
				}
			}
			if f := tab.Lookup("main.main", "runtime.mcall"); len(f) != 2 || f["main.main"].Entry != p.symbols["main.main"] {
				t.Errorf("main.main: %+v", f)
			}
		})
	}
}

// TestInlining: what was inlined into which function of package runtime is what the frames of all pcs there say.
func TestInlining(t *testing.T) {
	for _, version := range []string{"1.18.10", "1.21.13", "1.27.4", ""} {
		t.Run("go"+version, func(t *testing.T) {
			t.Parallel()
			tab := buildPCs(t, testprog.Options{Go: version}).table(t)
			want, calls := make(map[string][]string), 0
			var frames []Frame
			for i := range tab.nfunc {
				f, ok := tab.funcAt(i)
				if !ok || !strings.HasPrefix(f.Name(), runtimePrefix) {
					continue
				}
				tab.budget = maxDecode
				calls += len(f.inlinedCalls(nil, maxInlining))
				for pc := f.Entry; pc < f.End; pc++ {
					frames = f.AppendFrames(frames[:0], pc)
					for _, fr := range frames {
						if in := want[fr.Func]; fr.Inlined && !slices.Contains(in, f.Name()) {
							want[fr.Func] = append(in, f.Name())
						}
					}
				}
			}
			got := tab.Inlining(slices.Collect(maps.Keys(want))...)
			t.Logf("%d functions were inlined into others, %d calls", len(want), calls)
			if len(want) < 200 || calls > maxInlining/4 {
				t.Errorf("%d functions, %d calls", len(want), calls)
			}
			for name, in := range want {
				var list []string
				for _, f := range got[name] {
					list = append(list, f.Name())
				}
				if !slices.Equal(list, in) {
					t.Errorf("%s: inlined into %v, want %v", name, list, in)
				}
			}
			if found := tab.Inlining("runtime.main", "main.main", ""); len(found) > 0 {
				t.Errorf("inlined nowhere: %v", found)
			}
		})
	}
}

// TestArm64 reads a table of the other architecture, whose pc deltas count in units of 4. The truth
// is the source of main.depth0 and what it inlines: function, line, start line.
func TestArm64(t *testing.T) {
	p := buildPCs(t, testprog.Options{Arch: "arm64"})
	tab := p.table(t)
	f, ok := tab.Find(p.symbols["main.depth0"])
	if !ok || f.Name() != "main.depth0" || f.Entry != p.symbols["main.depth0"] {
		t.Fatalf("main.depth0: %v, %q", ok, f.Name())
	}
	if d, ok := f.SPDelta(f.Entry); d != 0 || !ok {
		t.Errorf("SP delta at entry: %d, %v", d, ok)
	}
	var got []string
	for pc := f.Entry; pc < f.End; pc += 4 {
		if d, ok := f.SPDelta(pc); ok && d%16 != 0 {
			t.Errorf("%#x: SP delta %d", pc, d)
		}
		for _, fr := range f.AppendFrames(nil, pc) {
			if fr.Line != 0 {
				got = append(got, fmt.Sprintf("%s:%d:%d", fr.Func, fr.Line, fr.StartLine))
			}
		}
	}
	slices.Sort(got)
	want := []string{"main.depth0:38:38", "main.depth1:39:39", "main.depth2:40:40",
		"main.depth3:42:41", "main.depth3:43:41", "main.depth3:45:41"}
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q (workload.go)", got, want)
	}
}

// TestNoAllocations holds the hot path to its promise.
func TestNoAllocations(t *testing.T) {
	p := buildPCs(t, testprog.Options{})
	tab := p.table(t)
	pc := p.symbols["main.stacks"] + 40
	n := testing.AllocsPerRun(1000, func() {
		f, ok := tab.Find(pc)
		if _, ok2 := f.SPDelta(pc); !ok || !ok2 {
			t.Fatal("not found")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestCacheBound reads every function of a program and looks at the heap.
func TestCacheBound(t *testing.T) {
	p := buildPCs(t, testprog.Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tab := p.table(t)
	for i := range tab.nfunc {
		if f, ok := tab.funcAt(i); !ok || f.Name() == "" || len(f.AppendFrames(nil, f.Entry)) == 0 {
			t.Fatalf("function %d: %v, %q", i, ok, f.Name())
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 512<<10 {
		t.Errorf("heap grew by %d KiB", grown>>10)
	}
	runtime.KeepAlive(tab)
}

func TestOpenErrors(t *testing.T) {
	p := buildPCs(t, testprog.Options{})
	good := make([]byte, maxHeader)
	if _, err := p.ReadAt(good, int64(p.PCHeader)); err != nil {
		t.Fatal(err)
	}
	patch := func(off int, v uint64) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint64(b[off:], v)
		return b
	}
	word := func(off int) uint64 { return binary.LittleEndian.Uint64(good[off:]) }
	for what, b := range map[string][]byte{
		"empty":                      nil,
		"cut short":                  good[:71],
		"magic of Go 1.15":           patch(0, word(0)&^0xff|0xfb),
		"32-bit":                     patch(0, word(0)&^(0xff<<56)|4<<56),
		"padding":                    patch(0, word(0)|1<<32),
		"minLC 2":                    patch(0, word(0)&^(0xff<<48)|2<<48),
		"no functions":               patch(8, 0),
		"too many functions":         patch(8, maxFuncs+1),
		"functions overflow":         patch(8, 1<<61+5),
		"names inside header":        patch(32, 71),
		"offsets out of order":       patch(40, word(32)),
		"offset beyond 4 GiB":        patch(64, 1<<40),
		"offset that wraps around":   patch(64, ^uint64(0)),
		"file names behind pc table": patch(48, word(56)+1),
	} {
		if tab, err := Open(bytes.NewReader(b), Image{Text: 1 << 20}); !errors.Is(err, ErrFormat) || tab != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Open(bytes.NewReader(good), Image{Text: 1 << 20}); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	if _, err := Open(p, Image{PCHeader: 1 << 63}); !errors.Is(err, ErrFormat) {
		t.Errorf("address out of range: %v", err)
	}
}

// TestTruncated cuts the image at many places: less is known, nothing breaks.
func TestTruncated(t *testing.T) {
	p := buildPCs(t, testprog.Options{})
	pc := p.symbols["main.recovered"] + 40
	for cut := uint64(maxHeader); cut < 1<<21; cut = cut*9/8 + 1 {
		tab, err := Open(truncated{p, int64(p.PCHeader + cut)}, p.Image)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := tab.Find(pc)
		if name := f.Name(); name != "" && name != "main.recovered" {
			t.Errorf("cut at %#x: %q", cut, name)
		}
		f.SPDelta(pc)
		f.AppendFrames(nil, pc)
		tab.Lookup("runtime.mcall", "main.recovered")
	}
}

// truncated has nothing from address end on.
type truncated struct {
	r   io.ReaderAt
	end int64
}

func (tr truncated) ReadAt(b []byte, addr int64) (int, error) {
	if addr >= tr.end {
		return 0, io.EOF
	}
	return tr.r.ReadAt(b[:min(int64(len(b)), tr.end-addr)], addr)
}

// TestPagesInsideHoles reads a segment that begins inside a page.
func TestPagesInsideHoles(t *testing.T) {
	const base = 0x10d0
	data := bytes.Repeat([]byte("0123456789abcdef"), 1024)
	p := pages{r: holed{data, base}}
	for _, off := range []int{0, 1, 0xf2f, 0xf30, 0xf31, 0x2fff, len(data) - 5, 7} {
		b := make([]byte, 5)
		if !p.read(b, base+uint64(off)) || !bytes.Equal(b, data[off:off+5]) {
			t.Errorf("at %#x: %q, want %q", off, b, data[off:off+5])
		}
	}
	if p.read(make([]byte, 5), base+uint64(len(data))-4) || p.read(make([]byte, 5), base-1) {
		t.Error("read where nothing is")
	}
}

type holed struct {
	data []byte
	base int64
}

func (h holed) ReadAt(b []byte, addr int64) (int, error) {
	if addr < h.base {
		return 0, io.EOF
	}
	return bytes.NewReader(h.data).ReadAt(b, addr-h.base)
}

func BenchmarkOpen(b *testing.B) {
	p := buildPCs(b, testprog.Options{})
	b.ReportAllocs()
	for b.Loop() {
		p.table(b)
	}
}

func BenchmarkLookup(b *testing.B) {
	p := buildPCs(b, testprog.Options{})
	for b.Loop() {
		p.table(b).Lookup("runtime.mcall", "runtime.noSuchFunction")
	}
}

// benchmarkPCs calls f for pcs all over the text, in a fixed random order, or one hot pc.
func benchmarkPCs(b *testing.B, f func(*Table, uint64)) {
	p := buildPCs(b, testprog.Options{})
	for name, n := range map[string]uint64{"hot": 1, "spread": 4096} {
		b.Run(name, func(b *testing.B) {
			tab := p.table(b)
			b.ReportAllocs()
			for i := uint64(1); b.Loop(); i++ {
				f(tab, p.Text+(p.EText-p.Text)/n*(i*2654435761%n)+(p.EText-p.Text)/2/n)
			}
		})
	}
}

func BenchmarkSPDelta(b *testing.B) {
	benchmarkPCs(b, func(tab *Table, pc uint64) {
		f, _ := tab.Find(pc)
		f.SPDelta(pc)
	})
}

func BenchmarkAppendFrames(b *testing.B) {
	var frames []Frame
	benchmarkPCs(b, func(tab *Table, pc uint64) {
		f, _ := tab.Find(pc)
		frames = f.AppendFrames(frames[:0], pc)
	})
}
