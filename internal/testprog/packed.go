package testprog

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// Loader compiles what packed programs begin with (targets/loader): without section headers, it copies the static x86-64 program
// that its first argument names into anonymous memory and runs it there with the further arguments.
func Loader(t testing.TB) string {
	t.Helper()
	dir, err := targetsDir()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "loader")
	gcc := exec.CommandContext(t.Context(), needs.Tool(t, "gcc"), "-O1", "-pie", "-fPIE", "-s", "-o", out, filepath.Join(dir, "loader", "loader.c"))
	if msg, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", gcc.Args, err, msg)
	}
	DropSections(t, out)
	return out
}

// DropSections makes the header of an ELF file say that it has no sections, as packers do.
func DropSections(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[0x28:0x30]) // e_shoff
	clear(data[0x3c:0x40]) // e_shnum, e_shstrndx
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
}
