package gopclntab

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// A forgery is a table of one function at Text, laid out by hand.
type forgery struct {
	pctab, tree []byte
	npcdata     uint32
}

const forgedText = 1 << 30

// open assembles the table at address 0: header, names, cutab, filetab, pctab, functab, _func, tree.
func (fo forgery) open(t *testing.T) Func {
	t.Helper()
	names := []byte("\x00main.f\x00main.g\x00")
	files := []byte("f.go\x00")
	offs := []int{72}
	for _, n := range []int{len(names), 4, len(files), len(fo.pctab)} {
		offs = append(offs, offs[len(offs)-1]+n)
	}
	le := binary.LittleEndian
	b := []byte{0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8}
	b = le.AppendUint64(le.AppendUint64(le.AppendUint64(b, 1), 1), 0)
	for _, off := range offs {
		b = le.AppendUint64(b, uint64(off))
	}
	b = slices.Concat(b, names, make([]byte, 4), files, fo.pctab)
	for _, word := range []uint32{0, 12, 1 << 30} { // functab
		b = le.AppendUint32(b, word)
	}
	for _, word := range []uint32{0, 1, 0, 0, 1, 1, 1, fo.npcdata, 0, 7, 4 << 24, 0, 0, 1, ^uint32(0), ^uint32(0), ^uint32(0), 0} {
		b = le.AppendUint32(b, word)
	}
	tab, err := Open(bytes.NewReader(append(b, fo.tree...)), Image{Text: forgedText, GoFunc: uint64(len(b))})
	if err != nil {
		t.Fatal(err)
	}
	f, ok := tab.Find(forgedText + 1)
	if !ok || f.Name() != "main.f" {
		t.Fatalf("forgery does not work: %v, %q", ok, f.Name())
	}
	return f
}

// inTime fails if f takes more than a second, five hundred times what it should.
func inTime(t *testing.T, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func TestInlineCycle(t *testing.T) {
	tree := make([]byte, 16)
	binary.LittleEndian.PutUint32(tree[4:], 8) // main.g, parentPc 0
	f := forgery{pctab: []byte{0, 2, 0x7f, 0}, tree: tree, npcdata: 3}.open(t)
	inTime(t, func() {
		frames := f.AppendFrames(nil, f.Entry)
		want := Frame{Func: "main.g", File: "f.go", Line: 0, Inlined: true}
		if len(frames) != maxInline+1 || frames[0] != want || frames[maxInline].Func != "main.f" || frames[maxInline].Inlined {
			t.Errorf("%d frames, %+v ... %+v", len(frames), frames[0], frames[len(frames)-1])
		}
	})
}

// endless is a pc-value table whose pc never gets anywhere.
func endless() []byte { return append([]byte{0}, bytes.Repeat([]byte{2, 0}, 16<<20)...) }

func TestEndlessTable(t *testing.T) {
	f := forgery{pctab: endless(), npcdata: 3}.open(t)
	inTime(t, func() {
		if d, ok := f.SPDelta(f.Entry + 1); ok {
			t.Errorf("SP delta %d", d)
		}
		f.t.pages.fills = 0
		want := []Frame{{Func: "main.f", File: "?", StartLine: 7}}
		if got := f.AppendFrames(nil, f.Entry+1); !slices.Equal(got, want) {
			t.Errorf("frames %+v, want %+v", got, want)
		}
		if limit := uint64(maxDecode/pageSize + 100); f.t.pages.fills > limit {
			t.Errorf("%d pages read, limit %d", f.t.pages.fills, limit)
		}
		f.t.budget = maxDecode
		if calls := f.inlinedCalls(nil, maxInlining); len(calls) > 0 {
			t.Errorf("%d inlined calls", len(calls))
		}
	})
}

func TestVarints(t *testing.T) {
	for what, test := range map[string]struct {
		table []byte
		delta int32
		ok    bool
	}{
		"one byte":             {[]byte{0, 2, 0x7f, 0}, 0, true},
		"value of two bytes":   {[]byte{0, 0x82, 0x01, 0x7f, 0}, 64, true},
		"pc of two bytes":      {[]byte{0, 18, 0x80, 0x01, 0}, 8, true},
		"later entry":          {[]byte{0, 2, 1, 16, 0x7f, 0}, 8, true},
		"negative":             {[]byte{0, 1, 0x7f, 0}, -2, true},
		"end before pc":        {[]byte{0, 2, 1, 0}, 0, false},
		"cut in a varint":      {[]byte{0, 0x82}, 0, false},
		"varint of five bytes": {[]byte{0, 2, 0x80, 0x80, 0x80, 0x80, 0x01, 0}, 0, true},
		"varint of six bytes":  {[]byte{0, 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0}, 0, false},
	} {
		f := forgery{pctab: test.table}.open(t)
		if d, ok := f.SPDelta(f.Entry + 1); d != test.delta || ok != test.ok {
			t.Errorf("%s: %d, %v, want %d, %v", what, d, ok, test.delta, test.ok)
		}
	}
}

func TestStringWithoutEnd(t *testing.T) {
	p := pages{r: bytes.NewReader(bytes.Repeat([]byte("x"), 1<<20))}
	if s := p.cstring(5, 1<<20); s != "" {
		t.Errorf("%d bytes", len(s))
	}
	if limit := uint64(maxString/pageSize + 2); p.fills > limit {
		t.Errorf("%d pages read, limit %d", p.fills, limit)
	}
	long := append(bytes.Repeat([]byte("x"), 3*pageSize), 0)
	p = pages{r: bytes.NewReader(long)}
	if s := p.cstring(0, 1<<20); s != string(long[:len(long)-1]) {
		t.Errorf("%d bytes, want %d", len(s), len(long)-1)
	}
	if s := p.cstring(0, uint64(len(long)-1)); s != "" {
		t.Errorf("%d bytes beyond the table's end", len(s))
	}
}

// TestZeroFunc calls what a caller may who ignores ok.
func TestZeroFunc(t *testing.T) {
	var f Func
	if d, ok := f.SPDelta(0); f.Name() != "" || f.Flags() != 0 || d != 0 || ok || f.AppendFrames(nil, 0) != nil {
		t.Error("the zero Func knows something")
	}
}

func TestElided(t *testing.T) {
	for callee, want := range map[string]bool{
		"": true, "main.f": true, "runtime.deferreturn": true, "runtime.panicmem": true,
		"runtime.gopanic": false, "runtime.sigpanic": false, "runtime.panicwrap": false,
	} {
		if got := (Frame{Wrapper: true}).Elided(callee); got != want {
			t.Errorf("wrapper of %q: %v, want %v", callee, got, want)
		}
		if (Frame{}).Elided(callee) {
			t.Errorf("elided above %q, though no wrapper", callee)
		}
	}
}
