//go:build linux && amd64

package objfile

import (
	"os/exec"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

func TestProgramUnpackedIntoAnonymousMemory(t *testing.T) {
	loader := testprog.Loader(t)
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
