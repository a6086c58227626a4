package profiler

import (
	"maps"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/objfile"
)

// layouts remembers what was found in executables: processes of one program need not search it again.
type layouts map[objfile.ImageID]foundLayout

type foundLayout struct {
	goruntime.Layout
	version string // of Go, "" where it is not known
	err     error
	proven  bool // it is that of a live process of this program
}

// maxLayouts is as many as there can be open images.
const maxLayouts = 1024

// of returns the layout of an image that is a Go program. Its slices and maps are shared: they are for reading.
func (l layouts) of(im *objfile.Image) foundLayout {
	if found, ok := l[im.ID]; ok {
		return found
	}
	if len(l) >= maxLayouts {
		clear(l)
	}
	found := findLayout(im.File)
	l[im.ID] = found
	im.File.Trim()
	return found
}

// prove: a live process of the program has what the layout says, and so has each of that program.
func (l layouts) prove(im objfile.ImageID) {
	if found, ok := l[im]; ok {
		found.proven, found.Unproven = true, false
		l[im] = found
	}
}

// forget drops the layouts of images that the table holds no more.
func (l layouts) forget(images *objfile.Images) {
	maps.DeleteFunc(l, func(id objfile.ImageID, _ foundLayout) bool { return images.Get(id) == nil })
}

func findLayout(f *objfile.File) (found foundLayout) {
	if info, err := f.BuildInfo(); err == nil {
		found.version = info.GoVersion
	}
	found.Layout, found.err = goruntime.Find(f, found.version)
	return found
}
