package objfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/pprofd/pprofd/gopclntab"
)

// ImageID names an image for the life of an Images table. 0 is no image: Addr.Off is then a PseudoXxx or an absolute address.
type ImageID uint32

// Addr is a place in an image: Off is a link-time virtual address, free of ASLR. Comparable, no pointers.
// In images without a File, Off is the offset in the file where there is one, and the run-time address in anonymous memory.
type Addr struct {
	Image ImageID
	Off   uint64
}

// KernelImage is the image of all kernel addresses; Off is the absolute kernel address.
const KernelImage ImageID = 1

// Names of images that are no files.
const (
	pathKernel = "[kernel.kallsyms]"
	pathVDSO   = "[vdso]"
	pathAnon   = "[anon]"
)

// defaultMaxFiles bounds the files that an Images table keeps open.
const defaultMaxFiles = 1024

// ErrTooManyFiles is wrapped by Image.Err where the table holds as many open files as it may.
var ErrTooManyFiles = errors.New("too many open images")

// Image is one file (or copied memory) that address spaces map. It keeps its file open, so that
// a process that has exited still symbolizes.
type Image struct {
	ID      ImageID
	Path    string // as the process sees it; "[vdso]", "[kernel.kallsyms]", "[anon]"
	BuildID string
	File    *File // nil where it could not be opened; then Err says why
	Err     error
	// Note says what is unusual about how the file was found; "" mostly.
	Note string

	key  imageKey
	refs int
}

// imageKey is what makes two mapped files the same image. Copied memory has the hash of its content.
type imageKey struct {
	dev, inode          uint64
	size, mtime, ctime  int64 // times in nanoseconds
	content             [sha256.Size]byte
	shared, copiedBytes bool
}

// Images is the reference-counted table of images, shared by all spaces. One goroutine at a time.
type Images struct {
	// MaxFiles bounds the open files; 0 means 1024.
	MaxFiles int
	// AllowFUSE permits reading files on FUSE file systems, whose server may make a read take forever.
	AllowFUSE bool

	byID  map[ImageID]*Image
	byKey map[imageKey]*Image
	last  ImageID
	files int
	pages *gopclntab.Pool
	vdso  *File // this machine's; nil: not asked for yet
}

// tablePages bounds what is cached of the pc tables of all images: 8 MiB.
const tablePages = 8192

// NewImages returns a table that holds the kernel image only.
func NewImages() *Images {
	t := &Images{byID: make(map[ImageID]*Image), byKey: make(map[imageKey]*Image), pages: gopclntab.NewPool(tablePages)}
	t.add(&Image{Path: pathKernel})
	return t
}

// Get returns the image, or nil.
func (t *Images) Get(id ImageID) *Image { return t.byID[id] }

// Len is the number of images, with the kernel's.
func (t *Images) Len() int { return len(t.byID) }

// Retain adds a reference, for who needs an image beyond the life of the Space that it came from.
func (t *Images) Retain(id ImageID) {
	if im := t.byID[id]; im != nil {
		im.refs++
	}
}

// Release gives a reference back; with the last one the image is closed and its ID names nothing any more.
func (t *Images) Release(id ImageID) error {
	im := t.byID[id]
	if im == nil || id == KernelImage {
		return nil
	}
	if im.refs--; im.refs > 0 {
		return nil
	}
	delete(t.byID, id)
	if im.key.shared {
		delete(t.byKey, im.key)
	}
	if im.File == nil {
		return nil
	}
	if im.File.closer != nil {
		t.files--
	}
	return im.File.Close()
}

// add enters an image, with one reference.
func (t *Images) add(im *Image) *Image {
	t.last++
	im.ID, im.refs = t.last, 1
	t.byID[im.ID] = im
	if im.key.shared {
		t.byKey[im.key] = im
	}
	if im.File != nil && im.File.closer != nil {
		t.files++
	}
	return im
}

// known returns the image of key with a reference more, or nil.
func (t *Images) known(key imageKey) *Image {
	im := t.byKey[key]
	if im != nil {
		im.refs++
	}
	return im
}

// mappedFile is an open file that a process maps.
type mappedFile struct {
	r interface {
		io.ReaderAt
		io.Closer
	}
	key  imageKey
	note string
}

// file returns the image of an open file, which the table owns from then on.
func (t *Images) file(path string, mf *mappedFile) *Image {
	if im := t.known(mf.key); im != nil {
		_ = mf.r.Close() // read only: nothing to lose
		return im
	}
	limit := t.MaxFiles
	if limit <= 0 {
		limit = defaultMaxFiles
	}
	im := &Image{Path: path, key: mf.key, Note: mf.note}
	if t.files >= limit {
		_ = mf.r.Close()
		im.key = imageKey{} // another space may succeed later
		im.Err = fmt.Errorf("open %s: %d images are open: %w", path, t.files, ErrTooManyFiles)
		return t.add(im)
	}
	im.File, im.Err = Open(mf.r, mf.key.size)
	if im.File != nil {
		im.BuildID = im.File.BuildID()
		im.File.pages = t.pages
	}
	return t.add(im)
}

// copied returns the image of an ELF file that was copied from memory.
func (t *Images) copied(path string, b []byte) *Image {
	key := imageKey{content: sha256.Sum256(b), shared: true, copiedBytes: true}
	if im := t.known(key); im != nil {
		return im
	}
	im := &Image{Path: path, key: key}
	r := nopCloser{bytes.NewReader(b)}
	if im.File, im.Err = Open(r, int64(len(b))); im.Err == nil {
		im.File.closer = nil // it costs no file descriptor
		im.BuildID = im.File.BuildID()
	}
	return t.add(im)
}

// ownVDSO returns the image of this machine's vDSO, of which b is a copy. All processes have it, and it comes and goes with them: it is opened once.
func (t *Images) ownVDSO(b []byte) *Image {
	key := imageKey{content: ownVDSOSum(), shared: true, copiedBytes: true}
	if im := t.known(key); im != nil {
		return im
	}
	if t.vdso == nil {
		im := t.copied(pathVDSO, b)
		t.vdso = im.File
		return im
	}
	return t.add(&Image{Path: pathVDSO, key: key, File: t.vdso, BuildID: t.vdso.BuildID()})
}

var ownVDSOSum = sync.OnceValue(func() [sha256.Size]byte { return sha256.Sum256(ownVDSO()) })

type nopCloser struct{ io.ReaderAt }

func (nopCloser) Close() error { return nil }
