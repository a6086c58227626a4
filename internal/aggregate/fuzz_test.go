package aggregate

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// craftedImage is what an image says of itself, all of it chosen by whoever made its file.
type craftedImage struct {
	file          []byte
	path, buildID string
}

func (c craftedImage) open() (symbolize.Images, *objfile.Image) {
	im := &objfile.Image{ID: selfImage, Path: c.path, BuildID: c.buildID}
	im.File, im.Err = objfile.Open(nopCloser{bytes.NewReader(c.file)}, int64(len(c.file)))
	kernel := &objfile.Image{ID: objfile.KernelImage, Path: "[kernel.kallsyms]"}
	return func(id objfile.ImageID) *objfile.Image {
		switch id {
		case selfImage:
			return im
		case objfile.KernelImage:
			return kernel
		}
		return nil
	}, im
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

// craftedTable has a sample at each address, with labels of the same making.
func craftedTable(base uint64, label string) *Table {
	table := New(Limits{})
	labels := table.Labels([]Label{{label, label}, {"", label}, {label, ""}}, Numbers{Goid: base, TID: uint32(base)})
	for i, off := range []uint64{base, base + 1, base + 16, base << 12, ^base, 0, 1<<63 | base} {
		stack := Stack{{Image: selfImage, Off: off}, {Image: objfile.ImageID(i % 4), Off: base + uint64(i)}, {Image: objfile.KernelImage, Off: ^uint64(0) - off}}
		table.Add(Key{Target: uint32(i & 1), Labels: labels, Status: Status(i & 3)}, stack, int64(base)>>1)
	}
	return table
}

// profiles builds what the table says of the image, one profile a target and one for all.
func (c craftedImage) profiles(table *Table, label, kallsyms string) (all []*profile.Profile) {
	images, im := c.open()
	if im.File != nil {
		defer im.File.Close()
	}
	for _, merge := range []bool{false, true} {
		o := BuildOptions{
			Merge: merge, Start: time.Unix(0, 1), Targets: []uint32{0, 9},
			Main:         func(uint32) objfile.ImageID { return selfImage },
			TargetLabels: func(uint32) []Label { return []Label{{"comm", label}} },
		}
		sym := symbolize.New(images, &symbolize.Options{Kallsyms: kallsyms})
		for b := range table.Build(images, sym, o) {
			all = append(all, b.Profile)
		}
	}
	return all
}

// FuzzBuild builds profiles of programs, names and labels that were made to break them: what comes out is valid, and
// pprof's parser reads what was written.
func FuzzBuild(f *testing.F) {
	kallsyms := filepath.Join(f.TempDir(), "kallsyms")
	for _, c := range craftedImages() {
		f.Add(c.file, c.path, c.buildID, "label", uint64(0x400100), []byte("ffffffff81000000 T _text\nffffffffff000000 t f\t[m]\n"))
	}
	f.Fuzz(func(t *testing.T, file []byte, path, buildID, label string, base uint64, kernel []byte) {
		if err := os.WriteFile(kallsyms, kernel, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, p := range (craftedImage{file, path, buildID}).profiles(craftedTable(base, label), label, kallsyms) {
			got := roundTrip(t, p)
			for _, fn := range got.Function {
				if fn.Name == "" || !utf8.ValidString(fn.Name+fn.SystemName+fn.Filename) {
					t.Errorf("function %+v", fn)
				}
			}
			for _, m := range got.Mapping {
				if m.Start > m.Limit || !utf8.ValidString(m.File+m.BuildID) {
					t.Errorf("mapping %+v", m)
				}
			}
		}
	})
}

// craftedImages are a small Go program, the same with hostile names, and files that are no programs.
func craftedImages() []craftedImage {
	whole := tinyProgram("main.f", "/src/f.go")
	return []craftedImage{
		{whole, "/bin/app", "0123456789abcdef"},
		{tinyProgram("main.\xff\xfe\n\x1b[2J", "\xc3\x28/f\r\n.go"), "/bin/\xffapp\n", "\xff\xff"},
		{whole[:len(whole)/2], "", ""},
		{nil, "[anon]", ""},
	}
}

// go tool pprof itself reads the profiles of the seeds.
func TestPprofReadsHostileProfiles(t *testing.T) {
	dir := t.TempDir()
	for _, c := range craftedImages() {
		for _, p := range c.profiles(craftedTable(0x400100, "la\xffbel\n"), "co\xffmm", "/none") {
			name := filepath.Join(dir, "profile.pb.gz")
			out, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Write(out); err != nil {
				t.Fatal(err)
			}
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			msg, err := exec.CommandContext(ctx, needs.Tool(t, "go"), "tool", "pprof", "-symbolize=none", "-raw", name).CombinedOutput()
			cancel()
			if err != nil || !bytes.Contains(msg, []byte("Samples:")) {
				t.Errorf("%q: %v\n%.500s", c.path, err, msg)
			}
		}
	}
}

// The program that FuzzBuild starts from is a Go program in the eyes of pprofd.
func TestTinyProgram(t *testing.T) {
	images, im := craftedImages()[0].open()
	if im.Err != nil {
		t.Fatal(im.Err)
	}
	sym := symbolize.New(images, nil)
	want := []symbolize.Frame{
		{Func: "main.inlined", SystemName: "main.inlined", File: "/src/f.go", Line: 10, Kind: symbolize.Go, Inlined: true},
		{Func: "main.f", SystemName: "main.f", File: "/src/f.go", Line: 10, StartLine: 7, Kind: symbolize.Go},
	}
	if d := cmp.Diff(want, sym.Frames(objfile.Addr{Image: selfImage, Off: 0x400150})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want[1:], sym.Frames(objfile.Addr{Image: selfImage, Off: 0x400110})); d != "" {
		t.Error(d)
	}
}
