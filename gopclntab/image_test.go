package gopclntab

import (
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// A program is a built target whose tables are found by its symbols.
type program struct {
	path    string
	elf     *elf.File
	symbols map[string]uint64
	Image
}

// openProgram reads the symbols of the executable at path.
func openProgram(t testing.TB, path string) *program {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	syms, err := f.Symbols()
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	p := &program{path: path, elf: f, symbols: make(map[string]uint64)}
	for _, s := range syms {
		p.symbols[s.Name] = s.Value
	}
	p.Image = Image{
		PCHeader: p.symbols["runtime.pclntab"],
		Text:     p.symbols["runtime.text"],
		EText:    p.symbols["runtime.etext"],
		GoFunc:   max(p.symbols["go:func.*"], p.symbols["go.func.*"]),
	}
	return p
}

// table opens the program's table.
func (p *program) table(t testing.TB) *Table {
	t.Helper()
	tab, err := Open(p, p.Image)
	if err != nil {
		t.Fatalf("%s: %v", p.path, err)
	}
	return tab
}

// ReadAt reads the program's initial memory at a link-time address.
func (p *program) ReadAt(b []byte, addr int64) (int, error) {
	for _, seg := range p.elf.Progs {
		off := uint64(addr) - seg.Vaddr
		if seg.Type == elf.PT_LOAD && uint64(addr) >= seg.Vaddr && off < seg.Filesz {
			return seg.ReadAt(b, int64(off))
		}
	}
	return 0, io.EOF
}

// buildPCs builds target pcs. Toolchains before 1.18 do not know -buildvcs, which testprog uses, and
// 1.16 does not know //go:build. Go 1.19's module index breaks when GOROOT lies in the module
// cache, as GOTOOLCHAIN has it ("import of unknown directory").
func buildPCs(t testing.TB, o testprog.Options) *program {
	t.Helper()
	if !slices.Contains([]string{"1.16.15", "1.17.13", "1.19.13"}, o.Go) {
		return openProgram(t, testprog.Build(t, "pcs", o))
	}
	dir := t.TempDir()
	copyOldSources(t, dir)
	args := []string{"build", "-o", "pcs"}
	if o.PIE {
		args = append(args, "-buildmode=pie")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOENV=off", "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GODEBUG=goindex=0", "GOTOOLCHAIN=go"+o.Go)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return openProgram(t, filepath.Join(dir, "pcs"))
}

// copyOldSources copies those sources of target pcs that Go 1.16 needs, without build constraints.
func copyOldSources(t testing.TB, dir string) {
	t.Helper()
	for _, name := range []string{"main.go", "runtime.go", "stack.go", "fp_amd64.s", "frame.go", "workload.go", "generic_old.go"} {
		b, err := os.ReadFile(filepath.Join("../internal/testprog/targets/pcs", name))
		if err != nil {
			t.Fatal(err)
		}
		if s := string(b); strings.HasPrefix(s, "//go:build") {
			_, s, _ = strings.Cut(s, "\n")
			b = []byte(s)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module targets\n\ngo 1.16\n"), 0o666); err != nil {
		t.Fatal(err)
	}
}
