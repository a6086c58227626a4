package symbolize

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

const small = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000040 t alpha
ffffffff81000040 T alpha_alias
ffffffff81000100 W beta
ffffffff81100000 T _etext
ffffffff81200000 D some_data
ffffffffc0001000 t zeta	[mod_b]
ffffffffc0000100 t gamma	[mod_a]
ffffffffc0000080 d table	[mod_a]
ffffffffc0000080 t code_and_table	[mod_a]
`

func TestKernelNames(t *testing.T) {
	tests := map[string]struct {
		addr  uint64
		want  string
		entry uint64
	}{
		"first of several names":                {0xffffffff81000000, "_stext", 0},
		"start of a function":                   {0xffffffff81000040, "alpha", 0x40},
		"inside a function":                     {0xffffffff810000ff, "alpha", 0x40},
		"weak symbol":                           {0xffffffff81000101, "beta", 0x100},
		"data is no function":                   {0xffffffff81200010, "[kernel]+0x200010", 0x200010},
		"module":                                {0xffffffffc0000101, "gamma [mod_a]", 0x3f000100},
		"module whose symbols are not in order": {0xffffffffc0001fff, "zeta [mod_b]", 0x3f001000},
		"text before data at the same address":  {0xffffffffc0000090, "code_and_table [mod_a]", 0x3f000080},
		"gap after the last module":             {0xffffffffd0000000, "[kernel]+0x4f000000", 0x4f000000},
		"before the text":                       {0xffffffff80000000, "[kernel]", 0},
	}
	var all []uint64
	for _, tt := range tests {
		all = append(all, tt.addr)
	}
	var together kernelSymbols
	if err := together.resolve(strings.NewReader(small), all); err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var alone kernelSymbols
			if err := alone.resolve(strings.NewReader(small), []uint64{tt.addr}); err != nil {
				t.Fatal(err)
			}
			want := Frame{Func: tt.want, SystemName: tt.want, Kind: Kernel, Entry: tt.entry}
			for how, k := range map[string]*kernelSymbols{"alone": &alone, "together": &together} {
				if d := cmp.Diff(want, k.frame(tt.addr)); d != "" {
					t.Errorf("%s: -want +got:\n%s", how, d)
				}
			}
		})
	}
}

func TestHiddenKernelAddresses(t *testing.T) {
	name := t.TempDir() + "/kallsyms"
	if err := os.WriteFile(name, []byte("0000000000000000 T _text\n0000000000000000 t alpha\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for file, fix := range map[string]string{name: "kptr_restrict", "/none": "CONFIG_KALLSYMS"} {
		s := New(noImages, &Options{Kallsyms: file})
		for off := range uint64(3) {
			got := s.AppendFrames(nil, objfile.Addr{Image: objfile.KernelImage, Off: 0xffffffff81000000 + off})
			if len(got) != 1 || got[0].Func != "[kernel]" {
				t.Errorf("%s: %+v", file, got)
			}
		}
		if n := s.Notes(); len(n) != 1 || !strings.Contains(n[0], fix) {
			t.Errorf("%s: notes %q, want one that says %q", file, n, fix)
		}
	}
}

func noImages(objfile.ImageID) *objfile.Image { return nil }

// The machine's own kernel, against a plain search through the whole sorted list.
func TestOwnKernel(t *testing.T) {
	data, err := os.ReadFile("/proc/kallsyms")
	if err != nil || !bytes.Contains(data, []byte(" _text\n")) || bytes.HasPrefix(data, []byte("0000000000000000 T")) {
		needs.Missing(t, "kallsyms", fmt.Sprintf("CAP_SYSLOG and kptr_restrict < 2, to read /proc/kallsyms: %v", err))
	}
	type symbol struct {
		addr uint64
		typ  string
		name string
	}
	var list []symbol
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, symbol{addr, f[1], strings.Join(f[2:], " ")})
	}
	slices.SortStableFunc(list, func(a, b symbol) int {
		switch {
		case a.addr < b.addr:
			return -1
		case a.addr > b.addr:
			return 1
		}
		return 0
	})
	var addrs []objfile.Addr
	want := make(map[uint64]string)
	for i := 0; i < len(list)-1; i += 97 {
		s := list[i]
		if !strings.Contains("tTwW", s.typ) || s.addr == list[i+1].addr || i > 0 && s.addr == list[i-1].addr || list[i+1].addr-s.addr > maxKernelFunc {
			continue
		}
		for _, a := range []uint64{s.addr, list[i+1].addr - 1} {
			addrs = append(addrs, objfile.Addr{Image: objfile.KernelImage, Off: a})
			want[a] = s.name
		}
	}
	s := New(noImages, nil)
	s.Prepare(addrs)
	bad := 0
	for _, a := range addrs {
		if got := s.Frames(a)[0].Func; got != want[a.Off] {
			if bad++; bad < 10 {
				t.Errorf("%#x: %s, want %s", a.Off, got, want[a.Off])
			}
		}
	}
	if len(addrs) < 500 || len(s.Notes()) > 0 {
		t.Errorf("%d addresses checked, notes %q", len(addrs), s.Notes())
	}
}

func TestKernelQueryMemoryIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "%016x t a_function_with_a_long_name_%d\n", uint64(0xffffffff81000000)+uint64(i)*64, i)
	}
	wanted := []uint64{0xffffffff81000100, 0xffffffff81000000 + 99_999*64}
	text := b.String()
	allocs := testing.AllocsPerRun(1, func() {
		var k kernelSymbols
		if err := k.resolve(strings.NewReader(text), wanted); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 100 {
		t.Errorf("%v allocations for 100,000 symbols and 2 addresses", allocs)
	}
}

// TestWhatTheKernelPrints: answers for %pS.
func TestWhatTheKernelPrints(t *testing.T) {
	kallsyms := filepath.Join(t.TempDir(), "kallsyms")
	if err := os.WriteFile(kallsyms, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	const text = 0xffffffff81000000 // of small
	for _, c := range []struct {
		addr         uint64
		answer, want string
		entry        uint64
	}{
		{text + 0x1050, "schedule+0x10/0x80", "schedule", 0x1040},
		{text + 0xffff, "f+0x0/0x1 [ext4]", "f [ext4]", 0xffff},
		{text + 0x20, "0xffffffff81000020", "[kernel]+0x20", 0x20},
		{0x20, "0x20", "[kernel]", 0},
	} {
		s := New(noImages, &Options{Kallsyms: kallsyms, KernelNames: func([]uint64) ([]string, error) { return []string{c.answer}, nil }})
		if f := s.Frames(objfile.Addr{Image: objfile.KernelImage, Off: c.addr})[0]; f.Func != c.want || f.Entry != c.entry {
			t.Errorf("%q: %+v", c.answer, f)
		}
	}
	// What cannot be understood is looked up in kallsyms.
	for _, answer := range []string{"", "cut+0x1", "cut+0x1/", "+0x1/0x2", "wrong+0xffffffffffffffff/0x10", "rust::a_name_that_is_cu"} {
		s := New(noImages, &Options{Kallsyms: kallsyms, KernelNames: func([]uint64) ([]string, error) { return []string{answer}, nil }})
		if f := s.Frames(objfile.Addr{Image: objfile.KernelImage, Off: 0xffffffff81000050})[0]; f.Func != "alpha" {
			t.Errorf("%q: %+v", answer, f)
		}
	}
}

func FuzzKallsyms(f *testing.F) {
	f.Add([]byte(small), uint64(0xffffffff81000050), uint64(0xffffffffc0000101))
	f.Add([]byte("0 t x\n"), uint64(0), uint64(1))
	f.Add([]byte("ffffffffffffffff t \t[\n\nzz"), ^uint64(0), uint64(1))
	f.Fuzz(func(t *testing.T, data []byte, a, b uint64) {
		var k kernelSymbols
		if err := k.resolve(bytes.NewReader(data), []uint64{a, b, a}); err != nil {
			if !errors.Is(err, errRestricted) {
				t.Fatal(err)
			}
			return
		}
		for _, addr := range []uint64{a, b} {
			if k.frame(addr).Func == "" {
				t.Errorf("%#x has no name", addr)
			}
		}
	})
}
