package objfile

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// fullMatrix says that all Go versions are to be tested, not the newest and two others.
func fullMatrix() bool { return os.Getenv("PPROFD_FULL") == "1" }

func goVersions() []string {
	if fullMatrix() {
		return []string{"1.16.15", "1.17.13", "1.18.10", "1.19.13", "1.20.14", "1.21.13", "1.22.12", "1.23.12", "1.24.13", "1.25.7", "", "1.27.4"}
	}
	return []string{"1.18.10", "1.25.7", "1.27.4"}
}

// variant is a way to build a program. Strip and pie also decide what the tests expect.
type variant struct {
	name, prog string
	o          testprog.Options
}

func variants() []variant {
	external := "-linkmode=external"
	return []variant{
		{"default", "hello", testprog.Options{}},
		{"stripped", "hello", testprog.Options{Strip: true}},
		{"pie", "hello", testprog.Options{PIE: true}},
		{"pie stripped", "hello", testprog.Options{PIE: true, Strip: true}},
		{"trimpath", "hello", testprog.Options{Flags: []string{"-trimpath"}}},
		{"cgo", "hellocgo", testprog.Options{Cgo: true}},
		{"cgo stripped", "hellocgo", testprog.Options{Cgo: true, Strip: true}},
		{"cgo pie", "hellocgo", testprog.Options{Cgo: true, PIE: true}},
		{"cgo pie stripped", "hellocgo", testprog.Options{Cgo: true, PIE: true, Strip: true}},
		{"external static", "hellocgo", testprog.Options{Cgo: true, LDFlags: external + " -extldflags=-static"}},
	}
}

// twin is the same build with symbols. Its linker flags, which the program's build information holds,
// are as long as "-s -w", so that all is at the same address (-v=00 changes nothing).
func (v variant) twin() variant {
	if v.o.Strip && !v.o.Cgo {
		v.o.LDFlags = "-v=00"
	}
	v.o.Strip = false
	return v
}

// build returns the path of the program built by a version of Go.
func (v variant) build(t testing.TB, version string) string {
	t.Helper()
	if v.o.Cgo && v.o.Strip { // the C linker places things differently with -s: strip the twin instead
		return stripped(t, v.twin().build(t, version))
	}
	v.o.Go = version
	if !strings.HasPrefix(version, "1.16") && !strings.HasPrefix(version, "1.17") {
		return testprog.Build(t, v.prog, v.o)
	}
	// testprog's flags are those of Go 1.18 and newer.
	out := filepath.Join(t.TempDir(), v.prog)
	args := []string{"build", "-o", out}
	if v.o.PIE {
		args = append(args, "-buildmode=pie")
	}
	ld := v.o.LDFlags
	if v.o.Strip {
		ld += " -s -w"
	}
	args = append(append(args, "-ldflags="+strings.TrimSpace(ld)), append(slices.Clone(v.o.Flags), "./"+v.prog)...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = "../internal/testprog/targets"
	cgo := "CGO_ENABLED=0"
	if v.o.Cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=go"+version, "GOFLAGS=-mod=mod", "GOOS=linux", cgo)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go%s: %v\n%s", version, err, b)
	}
	return out
}

func stripped(t testing.TB, path string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(path))
	if b, err := exec.CommandContext(t.Context(), needs.Tool(t, "strip"), "-o", out, path).CombinedOutput(); err != nil {
		t.Fatalf("strip: %v\n%s", err, b)
	}
	return out
}

// openFile opens a program; the test closes it.
func openFile(t testing.TB, path string) *File {
	t.Helper()
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := r.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(r, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// withoutSections copies a program and removes what the ELF header says about section headers.
func withoutSections(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shoff := le.Uint64(b[40:])
	clear(b[shoff:min(uint64(len(b)), shoff+64*uint64(le.Uint16(b[60:])))])
	clear(b[40:48])
	clear(b[58:64])
	out := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(out, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}
