package objfile

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// truth is what the symbols of an unstripped program say, read by debug/elf.
type truth struct {
	moduleData, text, etext, goFunc, data, edata, noptrbss uint64
	mainMain                                               uint64
}

func readTruth(t testing.TB, path string) truth {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	by := make(map[string]uint64)
	for _, s := range symbols {
		by[s.Name] = s.Value
	}
	tr := truth{
		moduleData: by["runtime.firstmoduledata"], text: by["runtime.text"], etext: by["runtime.etext"],
		goFunc: max(by["go:func.*"], by["go.func.*"]), data: by["runtime.data"], edata: by["runtime.edata"], noptrbss: by["runtime.noptrbss"],
		mainMain: by["main.main"],
	}
	if tr.moduleData == 0 || tr.text == 0 || tr.noptrbss == 0 {
		t.Fatalf("%s: symbols are missing: %+v", path, tr)
	}
	return tr
}

func TestGoModuleIsWhatTheSymbolsSay(t *testing.T) {
	for _, version := range goVersions() {
		for _, v := range variants() {
			t.Run("go"+version+" "+v.name, func(t *testing.T) {
				path := v.build(t, version)
				want := readTruth(t, v.twin().build(t, version))
				t.Run("sections", func(t *testing.T) { checkModule(t, openFile(t, path), want, version) })
				t.Run("no sections", func(t *testing.T) { checkModule(t, openFile(t, withoutSections(t, path)), want, version) })
			})
		}
	}
}

func checkModule(t *testing.T, f *File, want truth, version string) {
	t.Helper()
	m, err := f.GoModule()
	if err != nil {
		t.Fatal(err)
	}
	got := truth{m.ModuleData, m.Text, m.EText, m.GoFunc, m.Data, m.EData, m.NoPtrBSS, want.mainMain}
	if strings.HasPrefix(version, "1.16") || strings.HasPrefix(version, "1.17") {
		got.goFunc = want.goFunc // moduledata has no such field
	}
	if want.goFunc == 0 { // the linker keeps no symbol
		if m.GoFunc == 0 {
			t.Error("gofunc not found")
		}
		got.goFunc = 0
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(truth{})); diff != "" {
		t.Errorf("module (want -, got +):\n%s", diff)
	}
	if m.NextAddr == 0 || m.Next != 0 {
		t.Errorf("next: %#x at %#x", m.Next, m.NextAddr)
	}
}

func TestIdentityAgreesWithTheGoCommand(t *testing.T) {
	for _, version := range goVersions() {
		for _, v := range variants() {
			t.Run("go"+version+" "+v.name, func(t *testing.T) {
				path := v.build(t, version)
				bare := openFile(t, withoutSections(t, path))
				for _, f := range []*File{openFile(t, path), bare} {
					checkIdentity(t, f, path, v)
				}
				if got, want := bare.BuildID(), openFile(t, path).BuildID(); got != want {
					t.Errorf("without sections the build ID is %s, with them %s", got, want)
				}
			})
		}
	}
}

func checkIdentity(t *testing.T, f *File, path string, v variant) {
	t.Helper()
	want, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.BuildInfo()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	id, err := exec.CommandContext(t.Context(), "go", "tool", "buildid", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	if s := strings.TrimSpace(string(id)); f.GoBuildID() != s {
		t.Errorf("Go build ID %q, want %q", f.GoBuildID(), s)
	}
	if f.PIE() != v.o.PIE || f.Cgo() != v.o.Cgo {
		t.Errorf("PIE %v, cgo %v", f.PIE(), f.Cgo())
	}
	if f.sections != nil && f.Stripped() != v.o.Strip {
		t.Errorf("stripped %v", f.Stripped())
	}
}

func TestBuildIDAgreesWithReadelf(t *testing.T) {
	readelf := needs.Tool(t, "readelf")
	paths := []string{variants()[5].build(t, "")}
	for _, lib := range []string{"/bin/sh", "/lib64/ld-linux-x86-64.so.2"} {
		if _, err := os.Stat(lib); err == nil {
			paths = append(paths, lib)
		}
	}
	for _, path := range paths {
		out, err := exec.CommandContext(t.Context(), readelf, "-n", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		_, after, ok := strings.Cut(string(out), "Build ID: ")
		if !ok {
			continue
		}
		want, _, _ := strings.Cut(after, "\n")
		if got := openFile(t, path).BuildID(); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestWhatIsNoGoProgram(t *testing.T) {
	f := openFile(t, "/bin/sh")
	if _, err := f.GoModule(); !errors.Is(err, ErrNotGo) {
		t.Errorf("module: %v", err)
	}
	if _, err := f.BuildInfo(); !errors.Is(err, ErrNotGo) {
		t.Errorf("build info: %v", err)
	}
	bare := openFile(t, withoutSections(t, "/bin/sh"))
	if _, err := bare.GoModule(); !errors.Is(err, ErrNotGo) {
		t.Errorf("module without sections: %v", err)
	}
	if f.Cgo() || bare.Cgo() {
		t.Error("cgo")
	}
}
