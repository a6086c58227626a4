// Package objfile opens executables and follows the address spaces that they are mapped into.
//
// What it reads may have been crafted by anyone: no number of a file is trusted, every search has a
// budget of bytes, and nothing is mapped into our own memory (a file that its owner truncates would
// be a SIGBUS).
package objfile

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/pprofd/pprofd/gopclntab"
)

// ErrNotGo is wrapped by errors that say that a file is no Go program.
var ErrNotGo = errors.New("not a Go program")

// File is an opened ELF file, or an image in a process's memory. It is read through ReadAt and a
// bounded page cache, never mapped. It is not safe for concurrent use.
type File struct {
	header
	src    *pageCache
	closer io.Closer
	size   int64
	memory bool // an image that runs: relocated already, without headers of its own

	symbols *symbolTable
	info    once[*buildinfo.BuildInfo]
	module  once[Module]
	table   once[*gopclntab.Table]
	pages   *gopclntab.Pool // of table; nil: it has its own
	ids     once[buildIDs]
	cgo     once[bool]
	rela    once[relaTable]
}

// once holds a result that is computed at first use.
type once[T any] struct {
	done  bool
	value T
	err   error
}

func (o *once[T]) get(f func() (T, error)) (T, error) {
	if !o.done {
		o.value, o.err = f()
		o.done = true
	}
	return o.value, o.err
}

// Open reads the headers of the ELF file r of the given size. File takes ownership of r, also where
// Open fails. Errors wrap ErrUnsupported where r is no ELF file that can be profiled.
func Open(r interface {
	io.ReaderAt
	io.Closer
}, size int64) (*File, error) {
	src := newPageCache(newMeter(r))
	h, err := readHeader(src, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open object file: %w", err), r.Close())
	}
	return &File{header: *h, src: src, closer: r, size: size}, nil
}

// OpenMemory returns the image that lies in the process memory mem, which is addressed by run-time
// address; segs are its mapped ranges: Vaddr, Memsz and Flags are used. It serves programs that were
// unpacked into anonymous memory. Link-time addresses of such a File are run-time addresses.
// mem stays the caller's.
func OpenMemory(mem io.ReaderAt, segs []elf.ProgHeader, machine elf.Machine) (*File, error) {
	segs = slices.Clone(segs)
	for i := range segs {
		segs[i].Type, segs[i].Off, segs[i].Filesz = elf.PT_LOAD, segs[i].Vaddr, segs[i].Memsz
	}
	loads := soundLoads(segs)
	if len(loads) == 0 || len(loads) > maxProgs {
		return nil, fmt.Errorf("open memory image: %d ranges: %w", len(loads), ErrUnsupported)
	}
	h := header{machine: machine, typ: elf.ET_EXEC, progs: loads, loads: loads}
	return &File{header: h, src: newPageCache(newMeter(mem)), size: 1 << 62, memory: true}, nil
}

// ReadAt reads the image's initial memory at a link-time virtual address; beyond the file's data it
// reads zeros up to memsz. Relocations are not applied. At the end of what is mapped it returns io.EOF.
func (f *File) ReadAt(p []byte, addr int64) (int, error) {
	if addr < 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) {
		seg := f.segmentAt(uint64(addr) + uint64(n))
		if seg == nil {
			return n, io.EOF
		}
		m, err := f.readSegment(p[n:], seg, uint64(addr)+uint64(n)-seg.Vaddr)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readSegment reads from offset off of a segment until its end.
func (f *File) readSegment(p []byte, seg *elf.ProgHeader, off uint64) (int, error) {
	p = p[:min(uint64(len(p)), seg.Memsz-off)]
	data := p[:0]
	if off < seg.Filesz {
		data = p[:min(uint64(len(p)), seg.Filesz-off)]
		if n, err := f.src.ReadAt(data, int64(seg.Off+off)); err != nil {
			return n, noEOF(err)
		}
	}
	clear(p[len(data):])
	return len(p), nil
}

// segmentAt returns the PT_LOAD that covers addr, or nil.
func (f *File) segmentAt(addr uint64) *elf.ProgHeader {
	i := sort.Search(len(f.loads), func(i int) bool { return f.loads[i].Vaddr+f.loads[i].Memsz > addr })
	if i == len(f.loads) || f.loads[i].Vaddr > addr {
		return nil
	}
	return &f.loads[i]
}

// executable says whether addr lies in an executable segment.
func (f *File) executable(addr uint64) bool {
	seg := f.segmentAt(addr)
	return seg != nil && seg.Flags&elf.PF_X != 0
}

// Refused says why something could not be read that would have been without limits on what one image may cost; nil where
// nothing was refused. It wraps ErrTooCostly.
func (f *File) Refused() error { return f.src.r.refused }

// Trim frees what was cached of the file; it is read again where it is needed.
func (f *File) Trim() { f.src.drop() }

// Machine is EM_X86_64 or EM_AARCH64.
func (f *File) Machine() elf.Machine { return f.machine }

// InMemory says that the image is read from a process (OpenMemory): reads fail once it has exited.
func (f *File) InMemory() bool { return f.memory }

// Entry is the link-time address where execution starts; 0 for memory images.
func (f *File) Entry() uint64 { return f.entry }

// PIE says whether the file is loaded at an address of the kernel's choice (also true for shared libraries).
func (f *File) PIE() bool { return f.typ == elf.ET_DYN }

// Stripped says that there is no symbol table (.symtab).
func (f *File) Stripped() bool {
	return !slices.ContainsFunc(f.sections, func(s section) bool { return s.typ == elf.SHT_SYMTAB && s.size > 0 })
}

// Segments are the PT_LOAD program headers, by address. The slice is the File's.
func (f *File) Segments() []elf.ProgHeader { return f.loads }

// Pclntab is the opened table of GoModule; it is opened once.
func (f *File) Pclntab() (*gopclntab.Table, error) {
	return f.table.get(func() (*gopclntab.Table, error) {
		m, err := f.GoModule()
		if err != nil {
			return nil, err
		}
		t, err := gopclntab.Open(f, m.Image)
		if err == nil && f.pages != nil {
			t.Share(f.pages)
		}
		return t, err
	})
}

// Close closes the file.
func (f *File) Close() error {
	if t := f.table.value; t != nil {
		t.Close()
	}
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}
