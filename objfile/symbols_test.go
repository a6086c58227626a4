package objfile

import (
	"bytes"
	"cmp"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// functions are the functions of a table as debug/elf reads it, in order, without those that overlap another.
func functions(t *testing.T, symbols []elf.Symbol) (byAddr []elf.Symbol, names map[uint64][]string) {
	t.Helper()
	names = make(map[uint64][]string)
	for _, s := range symbols {
		typ := elf.ST_TYPE(s.Info)
		if (typ == elf.STT_FUNC || typ == elf.STT_GNU_IFUNC) && s.Section != elf.SHN_UNDEF && s.Size > 0 {
			byAddr = append(byAddr, s)
			names[s.Value] = append(names[s.Value], s.Name)
		}
	}
	slices.SortFunc(byAddr, func(a, b elf.Symbol) int {
		return cmp.Or(cmp.Compare(a.Value, b.Value), cmp.Compare(a.Size, b.Size))
	})
	i := 0
	byAddr = slices.DeleteFunc(byAddr, func(s elf.Symbol) bool {
		i++
		return i < len(byAddr) && byAddr[i].Value < s.Value+s.Size && byAddr[i].Value > s.Value
	})
	return byAddr, names
}

func checkSymbols(t *testing.T, f *File, symbols []elf.Symbol) {
	t.Helper()
	funcs, names := functions(t, symbols)
	if len(funcs) < 20 {
		t.Fatalf("only %d functions", len(funcs))
	}
	for _, s := range funcs {
		for _, addr := range []uint64{s.Value, s.Value + s.Size - 1} {
			name, start, ok := f.Symbol(addr)
			if !ok || start != s.Value || !slices.Contains(names[s.Value], name) {
				t.Fatalf("%#x: got %q at %#x %v, want one of %q at %#x", addr, name, start, ok, names[s.Value], s.Value)
			}
		}
	}
	if name, _, ok := f.Symbol(1); ok {
		t.Errorf("%q covers address 1", name)
	}
}

func elfSymbols(t *testing.T, path string, dynamic bool) []elf.Symbol {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := f.Symbols
	if dynamic {
		read = f.DynamicSymbols
	}
	symbols, err := read()
	if err != nil {
		t.Fatal(err)
	}
	return symbols
}

func TestSymtab(t *testing.T) {
	path := variants()[5].build(t, "")
	checkSymbols(t, openFile(t, path), elfSymbols(t, path, false))
}

func TestDynsym(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), needs.Tool(t, "gcc"), "-print-file-name=libc.so.6").Output()
	path := string(bytes.TrimSpace(out))
	if err != nil || !filepath.IsAbs(path) {
		t.Fatalf("gcc does not know where libc is: %q, %v", path, err)
	}
	checkSymbols(t, openFile(t, path), elfSymbols(t, path, true))
}

func TestMiniDebugInfo(t *testing.T) {
	path := variants()[5].build(t, "")
	symbols := elfSymbols(t, path, false)
	mini := filepath.Join(t.TempDir(), "mini")
	command(t, "objcopy", "--only-keep-debug", path, mini)
	command(t, "strip", "--strip-debug", mini)
	plain, err := os.ReadFile(mini)
	if err != nil {
		t.Fatal(err)
	}
	withXZ := func(args ...string) func(testing.TB, []byte) []byte {
		return func(t testing.TB, b []byte) []byte { return compressXZ(t, b, args...) }
	}
	for name, compress := range map[string]func(testing.TB, []byte) []byte{
		"Go": compressGo, "xz": withXZ(), "xz with blocks": withXZ("--block-size=65536", "--check=sha256"),
	} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data.xz")
			if err := os.WriteFile(data, compress(t, plain), 0o644); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "out")
			command(t, "objcopy", "--add-section", ".gnu_debugdata="+data, stripped(t, path), out)
			checkSymbols(t, openFile(t, out), symbols)
		})
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if b, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, b)
	}
}

func compressGo(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func compressXZ(t testing.TB, b []byte, args ...string) []byte {
	t.Helper()
	path := needs.Tool(t, "xz")
	cmd := exec.CommandContext(t.Context(), path, append(args, "-c")...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestXZLimits(t *testing.T) {
	data := compressGo(t, make([]byte, 1<<20))
	if b, err := unxz(data, 1<<20); err != nil || len(b) != 1<<20 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := unxz(data, 1<<20-1); err == nil {
		t.Error("the limit of output is not kept")
	}
	i := bytes.IndexByte(data[xzHeaderSize:], xzLZMA2) + xzHeaderSize
	data[i+2] = 40 // 4 GiB - 1
	if _, err := unxz(data, 1<<20); err == nil {
		t.Error("the limit of the dictionary is not kept")
	}
}

func TestSymbolAddrs(t *testing.T) {
	path := variants()[5].build(t, "")
	by := make(map[string]uint64)
	for _, s := range elfSymbols(t, path, false) {
		if s.Section != elf.SHN_UNDEF {
			by[s.Name] = s.Value
		}
	}
	f := openFile(t, path)
	names := []string{"runtime.allgs", "runtime.mheap_", "runtime.firstmoduledata", "main.main", "main", "crosscall2", "no.such.symbol"}
	got := f.SymbolAddrs(names...)
	for _, name := range names {
		want, ok := by[name]
		if addr, found := got[name]; addr != want || found != ok {
			t.Errorf("%s: %#x %v, want %#x %v", name, addr, found, want, ok)
		}
	}
	if addr, ok := f.SymbolAddr("runtime.allgs"); !ok || addr != by["runtime.allgs"] {
		t.Errorf("runtime.allgs: %#x %v", addr, ok)
	}
}

func TestDWARFSections(t *testing.T) {
	for _, version := range goVersions() {
		for _, v := range []variant{variants()[0], variants()[5]} {
			path := v.build(t, version)
			f := openFile(t, path)
			e, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			d, err := e.DWARF()
			if err != nil {
				t.Fatal(err)
			}
			if entry, err := d.Reader().Next(); err != nil || entry == nil {
				t.Fatalf("go%s %s: no DWARF: %v", version, v.name, err)
			}
			for _, name := range []string{"info", "abbrev", "line", "frame"} {
				want := plainDWARF(t, e, name)
				got, err := f.DWARFSection(name)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("go%s %s: %s: %d bytes, want %d: %v", version, v.name, name, len(got), len(want), err)
				}
			}
			if _, err := f.DWARFSection("none"); err == nil {
				t.Error("a section that is not there")
			}
		}
	}
}

// plainDWARF is a section as debug/elf decompresses it; Go 1.18 writes the older form of compression.
func plainDWARF(t *testing.T, e *elf.File, name string) []byte {
	t.Helper()
	s := e.Section(".debug_" + name)
	if s == nil {
		s = e.Section(".zdebug_" + name)
	}
	if s == nil {
		t.Fatalf("no .debug_%s", name)
	}
	b, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
