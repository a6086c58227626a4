package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/cavaliergopher/cpio"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func writeTree(t *testing.T) string {
	t.Helper()
	host := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(host, []byte("\x7fELF"), 0o700); err != nil {
		t.Fatal(err)
	}
	tr := &tree{}
	tr.addFile("/tests/deep/a.test", host)
	tr.addData("/list.json", []byte("[]"))
	tr.addFile("/tests/deep/a.test", host) // twice: once in the archive
	if err := os.Symlink("gone (deleted)", filepath.Join(filepath.Dir(host), "exe")); err != nil {
		t.Fatal(err)
	}
	if err := tr.addTree("/src", filepath.Dir(host)); err != nil {
		t.Fatal(err)
	}
	if err := tr.addTree("/src", "no-such-directory"); err != nil {
		t.Errorf("a package without testdata: %v", err)
	}
	name, err := tr.write(filepath.Join(t.TempDir(), "initramfs.cpio"))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDirectoriesComeBeforeTheirFiles(t *testing.T) {
	f, err := os.Open(writeTree(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for r := cpio.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"tests", "tests/deep", "tests/deep/a.test", "list.json", "src", "src/exe", "src/program"}; !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
}

// TestCPIOReadsIt asks an independent reader.
func TestCPIOReadsIt(t *testing.T) {
	tool := needs.Tool(t, "cpio")
	f, err := os.Open(writeTree(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), tool, "-tv")
	cmd.Stdin = f
	out, err := cmd.CombinedOutput()
	for _, want := range []string{
		`drwxr-xr-x .* tests/deep\n`, `-rwxr-xr-x .* tests/deep/a.test\n`, `-rw-r--r-- .* list.json\n`, `src/exe -> gone \(deleted\)\n`,
	} {
		if err != nil || !regexp.MustCompile(want).Match(out) {
			t.Errorf("cpio -tv: %v, want a line with %q:\n%s", err, want, out)
		}
	}
}
