//go:build linux && amd64

package objfile

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// buildLoader compiles the stub of a packed program, without section headers as packers make it.
func buildLoader(t *testing.T) string {
	t.Helper()
	gcc := needs.Tool(t, "gcc")
	out := filepath.Join(t.TempDir(), "loader")
	if b, err := exec.CommandContext(t.Context(), gcc, "-O1", "-pie", "-fPIE", "-o", out, "testdata/loader.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return withoutSections(t, out)
}

func TestProgramUnpackedIntoAnonymousMemory(t *testing.T) {
	loader := buildLoader(t)
	for _, version := range goVersions() {
		for name, o := range map[string]testprog.Options{"default": {}, "stripped": {Strip: true}} {
			t.Run("go"+version+" "+name, func(t *testing.T) {
				v := variant{prog: "hello", o: o}
				want := readTruth(t, v.twin().build(t, version))
				p := run(t, exec.Command(loader, v.build(t, version)))
				s, _ := openSpace(t, p.pid)
				checkMain(t, s, want)
				m := s.Main()
				if m.Image.Path != pathAnon || !m.Image.File.InMemory() {
					t.Errorf("image %+v", m.Image)
				}
				if info, err := m.Image.File.BuildInfo(); err != nil || info.Path != "targets/hello" {
					t.Errorf("build info %+v, %v", info, err)
				}
			})
		}
	}
}
