package goruntime

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// full says whether the slow matrix was asked for.
func full() bool { return os.Getenv("PPROFD_FULL") != "" }

// newest is the newest toolchain, whose row is the table's last.
const newest = "go1.27.4"

// toolchains are those that a test covers.
func toolchains() []string {
	if !full() {
		return []string{newest, "go1.18.10", "go1.21.13"}
	}
	return []string{
		newest, "go1.18.10", "go1.19.13", "go1.20.14", "go1.21.13", "go1.22.12",
		"go1.23.12", "go1.24.13", "go1.25.7", "go1.26.8",
	}
}

// mode is a way to build gtruth.
type mode struct {
	name string
	args []string
	cgo  bool
}

// modes are all ways to build for the newest version and in the full matrix, else the most different ones.
func modes(toolchain string) []mode {
	static := []string{"-ldflags", "-linkmode external -extldflags -static"}
	pie := []string{"-buildmode=pie"}
	stripped := []string{"-ldflags", "-s -w"}
	all := []mode{
		{name: "exe"},
		{name: "stripped", args: stripped},
		{name: "pie", args: pie},
		{name: "pie-stripped", args: append(pie[:1:1], stripped...)},
		{name: "cgo", cgo: true},
		{name: "cgo-static", args: static, cgo: true},
		{name: "cgo-pie", args: pie, cgo: true},
		{name: "cgo-pie-stripped", args: append(pie[:1:1], stripped...), cgo: true},
	}
	if full() || toolchain == newest {
		return all
	}
	return slices.DeleteFunc(all, func(m mode) bool { return m.name != "stripped" && m.name != "cgo-static" && m.name != "cgo-pie" })
}

// buildTruth builds gtruth and returns its path.
func buildTruth(t *testing.T, toolchain string, m mode, env ...string) string {
	t.Helper()
	cgo := "CGO_ENABLED=0"
	if m.cgo {
		needs.Tool(t, "gcc")
		cgo = "CGO_ENABLED=1"
	}
	out := filepath.Join(t.TempDir(), "gtruth")
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", out}, m.args...), "./gtruth")...)
	cmd.Dir = "../testprog/targets"
	// goindex=0: go1.19's package index fails on a GOROOT in the module cache.
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+toolchain, "GOFLAGS=-mod=mod", "GOWORK=off", "GODEBUG=goindex=0", cgo)
	cmd.Env = append(cmd.Env, env...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(msg), "toolchain not available") {
			needs.Missing(t, "toolchain", toolchain)
		}
		t.Fatalf("build gtruth with %s: %v\n%s", toolchain, err, msg)
	}
	return out
}

// dwarfTruth reads the layout from the DWARF of an unstripped twin.
func dwarfTruth(t *testing.T, path string) Offsets {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	off, err := OffsetsFromDWARF(d)
	if err != nil {
		t.Fatal(err)
	}
	return off
}

// symbols gives code by ELF symbol: an oracle for names that owes nothing to gopclntab.
type symbols struct {
	f    *elf.File
	syms map[string]elf.Symbol
}

func openSymbols(t *testing.T, path string) symbols {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	list, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	s := symbols{f, make(map[string]elf.Symbol)}
	for _, sym := range list {
		s.syms[sym.Name] = sym
	}
	return s
}

// source is the code of the assembly function name.
func (s symbols) source(t *testing.T, name string) source {
	t.Helper()
	sym, ok := s.syms[name+".abi0"]
	if !ok {
		if sym, ok = s.syms[name]; !ok {
			t.Fatalf("no symbol %s", name)
		}
	}
	for _, p := range s.f.Progs {
		if p.Type == elf.PT_LOAD && sym.Value >= p.Vaddr && sym.Value+sym.Size <= p.Vaddr+p.Filesz {
			b := make([]byte, sym.Size)
			if _, err := p.ReadAt(b, int64(sym.Value-p.Vaddr)); err != nil {
				t.Fatal(err)
			}
			return source{b, sym.Value}
		}
	}
	t.Fatalf("%s lies in no segment", name)
	return source{}
}
