package objfile

import "io"

// ImageID names an image for the life of an Images table. 0 is no image: Addr.Off is then a PseudoXxx or an absolute address.
type ImageID uint32

// Addr is a place in an image: Off is a link-time virtual address, free of ASLR. Comparable, no pointers.
type Addr struct {
	Image ImageID
	Off   uint64
}

// KernelImage is the image of all kernel addresses; Off is the absolute kernel address.
const KernelImage ImageID = 1

// Image is one file (or copied memory) that address spaces map. It keeps its file open, so that
// a process that has exited still symbolizes.
type Image struct {
	ID      ImageID
	Path    string // as the process sees it; "[vdso]", "[kernel.kallsyms]"
	BuildID string
	File    *File // nil where it could not be opened; then Err says why
	Err     error
}

// Images is the reference-counted table of images, shared by all spaces. One goroutine at a time.
type Images struct{}

// NewImages returns a table that holds the kernel image only.
func NewImages() *Images { return nil }

// Get returns the image, or nil.
func (t *Images) Get(id ImageID) *Image { return nil }

// Mapping is an executable mapping of a process.
type Mapping struct {
	Start, End, FileOff uint64
	Image               *Image
	Bias                uint64 // run-time address - link-time address
}

// Space is the address space of one process at one exec.
type Space struct{}

// OpenSpace reads /proc/PID/maps below procRoot ("/proc") and opens what is mapped executable.
func OpenSpace(images *Images, procRoot string, pid int) (*Space, error) { return nil, io.EOF }

// Resolve translates a run-time address. ok is false where nothing executable is mapped; it does no I/O and does not allocate.
func (s *Space) Resolve(addr uint64) (Addr, bool) { return Addr{}, false }

// Mapping returns the mapping that covers addr, or nil. The result is valid until the next Reload.
func (s *Space) Mapping(addr uint64) *Mapping { return nil }

// Main is the mapping of the Go program's text (the one that holds Go's tables), or nil.
func (s *Space) Main() *Mapping { return nil }

// Mappings are all executable mappings, by address.
func (s *Space) Mappings() []Mapping { return nil }

// Reload reads the maps again: after a look-up failed (dlopen). Known mappings stay known after they are gone.
func (s *Space) Reload() error { return nil }

// Close gives the images back.
func (s *Space) Close() error { return nil }
