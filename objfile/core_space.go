package objfile

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/procfs"
)

// maxCoreImages bounds the files that are opened of those that a core file names.
const maxCoreImages = 256

// noProc is where there is no process: that of a core file is not one that runs, whatever its PID is now.
const noProc = "/dev/null"

// coreMemory is the memory of a core file, and, where that has not all of it, of the files that were mapped.
type coreMemory struct {
	*Core
	images map[string]*Image // by path
}

// OpenCoreSpace returns the address space that a process had, as its core file has it, which the space takes over, also where this
// fails. What was mapped of files and not changed is read from the files, which have to be the same still. exe is the program's, in
// place of the path that the process had; "": that.
func OpenCoreSpace(images *Images, c *Core, exe string) (*Space, error) {
	s := &Space{
		images: images, proc: procfs.New(noProc).Proc(c.PID), owned: make(map[mapKey]*Image),
		core: &coreMemory{Core: c, images: make(map[string]*Image)},
	}
	main := c.executable()
	for i := range c.files {
		f := &c.files[i]
		seg, _ := c.segment(f.start)
		if seg != nil && seg.Flags&elf.PF_X == 0 && f.path != main {
			continue
		}
		im := s.coreImage(f.path, exe, f.path == main)
		if len(s.maps) < maxMappings && im != nil && (seg != nil && seg.Flags&elf.PF_X != 0 || seg == nil && im.executes(f.off)) {
			s.maps = append(s.maps, coreMap(f, im))
		}
	}
	s.addUnnamed()
	s.dropChanged()
	if len(s.maps) == 0 {
		return nil, errors.Join(fmt.Errorf("%w: nothing is mapped executable", ErrCore), s.Close())
	}
	return s, nil
}

func coreMap(f *coreMapping, im *Image) Mapping {
	m := Mapping{Start: f.start, End: f.end, FileOff: f.off, Image: im, Bias: f.start - f.off}
	if im.File != nil {
		m.Bias = im.File.bias(f.start, f.off)
	}
	return m
}

// executes says whether a part of a file is meant to be executed.
func (im *Image) executes(off uint64) bool {
	return im.File != nil && slices.ContainsFunc(im.File.loads, func(p elf.ProgHeader) bool {
		return p.Flags&elf.PF_X != 0 && off >= p.Off&^(coreAlign-1) && off < p.Off+p.Filesz
	})
}

// coreAlign is how segments of files are mapped: at pages of up to 64 KiB, of which linkers leave none to be both.
const coreAlign = 4096

// coreImage opens a file that was mapped; nil: there are too many.
func (s *Space) coreImage(path, exe string, isMain bool) *Image {
	if im := s.core.images[path]; im != nil || len(s.core.images) >= maxCoreImages {
		return im
	}
	from := path
	if isMain && exe != "" {
		from = exe
	}
	start := time.Now()
	mf, err := within(maxStall, func() (*mappedFile, error) { return openCoreFile(from, s.images.AllowFUSE) }, func(mf *mappedFile) { _ = mf.r.Close() })
	s.spent += time.Since(start)
	var im *Image
	if err != nil {
		im = s.images.add(&Image{Path: path, Err: fmt.Errorf("open %s: %w", from, err)})
	} else {
		im = s.images.file(path, mf)
	}
	s.core.images[path] = im
	s.own(mapKey{path: path}, im)
	if isMain {
		s.exe = im
	}
	return im
}

// addUnnamed adds what is executable and of no file: the vDSO, and what was compiled at run time.
func (s *Space) addUnnamed() {
	c := s.core
	for i := range c.segs {
		p := &c.segs[i]
		if p.Flags&elf.PF_X == 0 || p.Vaddr+p.Memsz > kernelSpace || c.mapping(p.Vaddr) != nil || len(s.maps) >= maxMappings {
			continue
		}
		m := Mapping{Start: p.Vaddr, End: p.Vaddr + p.Memsz}
		if p.Vaddr == c.aux[auxVDSO] {
			m.Image = s.coreVDSO(p)
		} else {
			m.Image = s.anonImage("")
		}
		if m.Image.File != nil {
			m.Bias = m.Image.File.bias(m.Start, 0)
		}
		s.maps = append(s.maps, m)
	}
	slices.SortFunc(s.maps, func(a, b Mapping) int { return cmp.Compare(a.Start, b.Start) })
	sound := s.maps[:0]
	for _, m := range s.maps {
		if len(sound) == 0 || sound[len(sound)-1].End <= m.Start {
			sound = append(sound, m)
		}
	}
	s.maps = sound
}

func (s *Space) coreVDSO(p *elf.ProgHeader) *Image {
	b := make([]byte, min(p.Memsz, maxVDSO))
	var im *Image
	if _, err := s.core.ReadAt(b, int64(p.Vaddr)); err != nil {
		im = s.images.add(&Image{Path: pathVDSO, Err: err})
	} else {
		im = s.images.copied(pathVDSO, b)
	}
	s.own(mapKey{path: pathVDSO}, im)
	return im
}

// dropChanged takes files away that are not those that were mapped: the core file has their first page mostly, by which that is seen.
func (s *Space) dropChanged() {
	for i := range s.core.files {
		f := &s.core.files[i]
		im := s.core.images[f.path]
		if f.off != 0 || im == nil || im.File == nil || s.core.unchanged(f, im) {
			continue
		}
		err := fmt.Errorf("%s is another file than the one that the process had mapped, which has been replaced", im.Path)
		changed := s.images.add(&Image{Path: im.Path, Err: err})
		for path, known := range s.core.images {
			if known == im {
				s.core.images[path] = changed
			}
		}
		for key, owned := range s.owned {
			if owned == im {
				s.owned[key] = changed
			}
		}
		for j := range s.maps {
			if s.maps[j].Image == im {
				s.maps[j].Image = changed
			}
		}
		if s.exe == im {
			s.exe = changed
		}
		_ = s.images.Release(im.ID) // read only: nothing to lose
	}
}

// unchanged compares the beginning of a file with what was mapped of it.
func (c *coreMemory) unchanged(f *coreMapping, im *Image) bool {
	was := make([]byte, min(f.end-f.start, coreAlign))
	n, _, err := c.dumped(was, f.start)
	if err != nil || n == 0 {
		return true // who knows
	}
	is := make([]byte, n)
	m, _ := im.File.src.ReadAt(is, 0)
	return bytes.Equal(was[:m], is[:m]) && !slices.ContainsFunc(was[m:n], func(b byte) bool { return b != 0 })
}

// ReadAt implements io.ReaderAt by run-time address.
func (c *coreMemory) ReadAt(p []byte, addr int64) (n int, err error) {
	if addr < 0 {
		return 0, io.EOF
	}
	for n < len(p) && err == nil {
		var m int
		m, err = c.readSome(p[n:], uint64(addr)+uint64(n))
		n += m
	}
	return n, err
}

// readSome reads something, from the core file or from a file that was mapped.
func (c *coreMemory) readSome(p []byte, addr uint64) (int, error) {
	n, next, err := c.dumped(p, addr)
	if n > 0 || err != nil {
		return n, err
	}
	f := c.mapping(addr)
	if f == nil {
		return 0, errNotInCore
	}
	im := c.images[f.path]
	switch {
	case im == nil:
		return 0, fmt.Errorf("it was mapped from %s: %w", f.path, errNotInCore)
	case im.File == nil:
		return 0, fmt.Errorf("it was mapped from %s: %w: %w", f.path, errNotInCore, im.Err)
	}
	p = p[:min(uint64(len(p)), f.end-addr, max(next, addr+1)-addr)]
	if n, err = im.File.src.ReadAt(p, int64(f.off+addr-f.start)); n > 0 {
		return n, nil
	}
	if errors.Is(err, io.EOF) { // the rest of the last page
		clear(p)
		return len(p), nil
	}
	return 0, err
}

// readPieces reads what it can.
func (c *coreMemory) readPieces(pieces []Piece) error {
	for i := range pieces {
		n, _ := c.ReadAt(pieces[i].Data, int64(pieces[i].Addr)) // what is not there is not there
		pieces[i].OK = n == len(pieces[i].Data)
	}
	return nil
}

// Core is the core file that the space is of; nil: it is of a process.
func (s *Space) Core() *Core {
	if s.core == nil {
		return nil
	}
	return s.core.Core
}

// Absent says which files of a core file's process cannot be read, and why: what was mapped of them is missing.
func (s *Space) Absent() (why []string) {
	if s.core == nil {
		return nil
	}
	for path, im := range s.core.images {
		if im.Err != nil && !errors.Is(im.Err, ErrUnsupported) {
			why = append(why, strings.TrimPrefix(im.Err.Error(), "open "+path+": "))
		}
	}
	slices.Sort(why)
	return why
}
