// Package objfile opens executables and follows the address spaces that they are mapped into.
package objfile

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"io"

	"github.com/pprofd/pprofd/gopclntab"
)

// ErrNotGo is wrapped by errors that say that a file is no Go program.
var ErrNotGo = errors.New("not a Go program")

// File is an opened ELF file. It is read through ReadAt and a bounded page cache, never mapped.
// It is not safe for concurrent use.
type File struct{}

// Open reads the headers of the ELF file r of the given size. File takes ownership of r.
func Open(r interface {
	io.ReaderAt
	io.Closer
}, size int64) (*File, error) {
	return nil, errors.New("objfile: not built")
}

// ReadAt reads the image's initial memory at a link-time virtual address; beyond the file's data it reads zeros up to memsz.
func (f *File) ReadAt(p []byte, addr int64) (int, error) { return 0, io.EOF }

// Machine is EM_X86_64 or EM_AARCH64.
func (f *File) Machine() elf.Machine { return 0 }

// BuildID is the GNU build ID in hex, else the hash (hex) of Go's own build ID, else "".
func (f *File) BuildID() string { return "" }

// BuildInfo is Go's build information; the error wraps ErrNotGo where there is none.
func (f *File) BuildInfo() (*buildinfo.BuildInfo, error) { return nil, ErrNotGo }

// PIE, Stripped (no .symtab), Cgo (Go program with C code linked externally).
func (f *File) PIE() bool      { return false }
func (f *File) Stripped() bool { return false }
func (f *File) Cgo() bool      { return false }

// Segments are the PT_LOAD program headers.
func (f *File) Segments() []elf.ProgHeader { return nil }

// Symbol finds the ELF function symbol (.symtab, .dynsym, .gnu_debugdata) that covers addr.
func (f *File) Symbol(addr uint64) (name string, start uint64, ok bool) { return "", 0, false }

// SymbolAddr is the value of a named symbol of .symtab.
func (f *File) SymbolAddr(name string) (uint64, bool) { return 0, false }

// DWARF returns the file's debug sections by name suffix ("info", "abbrev", ...), decompressed, within limits.
func (f *File) DWARFSection(name string) ([]byte, error) { return nil, errors.New("none") }

// Module is a Go module (in the linker's sense) inside an image.
type Module struct {
	gopclntab.Image
	ModuleData                                                         uint64 // address of runtime.firstmoduledata
	Data, EData, BSS, EBSS, NoPtrData, ENoPtrData, NoPtrBSS, ENoPtrBSS uint64
	Next                                                               uint64 // moduledata.next
}

// GoModule finds the tables: by section and symbol, else by scan. The error wraps ErrNotGo.
func (f *File) GoModule() (Module, error) { return Module{}, ErrNotGo }

// Pclntab is the opened table of GoModule; it is opened once.
func (f *File) Pclntab() (*gopclntab.Table, error) { return nil, ErrNotGo }

// Close closes the file.
func (f *File) Close() error { return nil }
