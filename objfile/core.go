package objfile

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
)

// Limits on what a core file may claim.
const (
	maxCoreSegments = 1 << 18  // of the file; a process may have 65,530 mappings, unless vm.max_map_count was raised
	maxCoreNotes    = 1 << 28  // bytes of all notes: those of 10,000 threads are 40 MB
	maxCoreNote     = 16 << 20 // bytes of one that is read
	maxCoreFiles    = 1 << 16  // mappings of files
	maxCoreThreads  = 1 << 16
)

// Types of notes in core files (include/uapi/linux/elf.h).
const (
	noteStatus  = 1 // NT_PRSTATUS, of each thread
	noteProcess = 3 // NT_PRPSINFO
	noteAuxv    = 6
	noteFile    = 0x46494c45
)

// Entries of the auxiliary vector (include/uapi/linux/auxvec.h).
const (
	auxPhdr = 3
	auxVDSO = 33 // AT_SYSINFO_EHDR
)

// ErrCore is wrapped by errors about files that are no core files, or are damaged.
var ErrCore = errors.New("no core file that can be read")

// errNotInCore says that the process had memory there, or had not, but the core file has not.
var errNotInCore = errors.New("that is not in the core file")

// Core is a core file: the memory that a process had when the kernel or gcore wrote it. One goroutine at a time.
type Core struct {
	PID     int
	Comm    string       // its beginning: 15 bytes at most
	Threads []CoreThread // the one that the core was written for first
	Signal  CoreSignal   // by which the process ended

	r       corefile
	size    int64
	machine elf.Machine
	segs    []elf.ProgHeader // memory, by address, without overlap
	files   []coreMapping    // by address, without overlap
	aux     map[uint64]uint64
}

type corefile interface {
	io.ReaderAt
	io.Closer
}

// coreMapping is where the process had mapped a file.
type coreMapping struct {
	start, end, off uint64
	path            string
}

// NewCore reads the headers and notes of the core file r of a size, which it takes over, also where it fails. Errors wrap ErrCore, or
// are those of reading.
func NewCore(r corefile, size int64) (*Core, error) {
	c := &Core{r: r, size: size, aux: make(map[uint64]uint64)}
	if err := c.read(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return c, nil
}

func (c *Core) read() error {
	var b [ehdrSize]byte
	if _, err := c.r.ReadAt(b[:], 0); err != nil {
		return fmt.Errorf("read the core file's header: %w", ended(err))
	}
	if err := checkIdent(b[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrCore, err)
	}
	if typ := elf.Type(le.Uint16(b[16:])); typ != elf.ET_CORE {
		return fmt.Errorf("%w: it is an ELF file of type %v", ErrCore, typ)
	}
	if c.machine = elf.Machine(le.Uint16(b[18:])); c.machine != elf.EM_X86_64 && c.machine != elf.EM_AARCH64 {
		return fmt.Errorf("%w: it is of %v, need x86-64 or aarch64", ErrCore, c.machine)
	}
	n, err := c.countSegments(b[:])
	if err != nil {
		return err
	}
	progs, err := c.readSegments(le.Uint64(b[32:]), n)
	if err != nil {
		return err
	}
	c.segs = soundLoads(progs)
	for _, p := range progs {
		if p.Type == elf.PT_NOTE {
			if err := c.readNotes(&p); err != nil {
				return err
			}
		}
	}
	return c.check()
}

// check finds out whether there is what makes memory understood.
func (c *Core) check() error {
	switch {
	case len(c.segs) == 0:
		return fmt.Errorf("%w: it has no memory", ErrCore)
	case len(c.files) == 0:
		return fmt.Errorf("%w: it does not say which files the process had mapped (NT_FILE)", ErrCore)
	}
	slices.SortFunc(c.files, func(a, b coreMapping) int { return cmp.Compare(a.start, b.start) })
	sound := c.files[:0]
	for _, f := range c.files {
		if f.start < f.end && f.end <= kernelSpace && (len(sound) == 0 || sound[len(sound)-1].end <= f.start) {
			sound = append(sound, f)
		}
	}
	c.files = sound
	return nil
}

// countSegments reads how many there are: where there are more than 65,534 the first section header says so (elf(5): PN_XNUM).
func (c *Core) countSegments(head []byte) (n uint64, err error) {
	const extended = 0xffff
	if n = uint64(le.Uint16(head[56:])); n == extended {
		var sec [shdrSize]byte
		off := le.Uint64(head[40:])
		if off > 1<<62 {
			return 0, fmt.Errorf("%w: its first section header is at %#x", ErrCore, off)
		}
		if _, err := c.r.ReadAt(sec[:], int64(off)); err != nil {
			return 0, fmt.Errorf("read the core file's number of segments: %w", ended(err))
		}
		n = uint64(le.Uint32(sec[44:]))
	}
	if size := le.Uint16(head[54:]); size != phdrSize || n == 0 || n > maxCoreSegments {
		return 0, fmt.Errorf("%w: it has %d segments, described in %d bytes each", ErrCore, n, size)
	}
	return n, nil
}

func (c *Core) readSegments(off, n uint64) ([]elf.ProgHeader, error) {
	if off > 1<<62 || int64(off+n*phdrSize) > c.size {
		return nil, fmt.Errorf("%w: its segments are described behind its end: it is cut off", ErrCore)
	}
	b := make([]byte, n*phdrSize)
	if _, err := c.r.ReadAt(b, int64(off)); err != nil {
		return nil, fmt.Errorf("read the core file's segments: %w", ended(err))
	}
	progs := make([]elf.ProgHeader, n)
	for i := range progs {
		p := b[i*phdrSize:]
		progs[i] = elf.ProgHeader{
			Type: elf.ProgType(le.Uint32(p)), Flags: elf.ProgFlag(le.Uint32(p[4:])), Off: le.Uint64(p[8:]), Vaddr: le.Uint64(p[16:]),
			Filesz: le.Uint64(p[32:]), Memsz: le.Uint64(p[40:]),
		}
	}
	return progs, nil
}

// readNotes goes through the notes of a segment. Lengths are what they say; names and data are padded to 4 bytes.
func (c *Core) readNotes(p *elf.ProgHeader) error {
	if p.Off > 1<<62 || p.Filesz > maxCoreNotes {
		return fmt.Errorf("%w: it has %d bytes of notes, at %#x", ErrCore, p.Filesz, p.Off)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(c.r, int64(p.Off), int64(p.Filesz)), 64<<10)
	for {
		var h [12]byte
		switch _, err := io.ReadFull(r, h[:]); {
		case errors.Is(err, io.EOF) && int64(p.Off+p.Filesz) <= c.size:
			return nil
		case err != nil:
			return fmt.Errorf("read the core file's notes: %w", ended(err))
		}
		name, size, typ := padded(le.Uint32(h[:])), le.Uint32(h[4:]), le.Uint32(h[8:])
		wanted := typ == noteStatus || typ == noteProcess || typ == noteAuxv || typ == noteFile || typ == noteSignal
		skip := name
		if !wanted || size > maxCoreNote {
			skip += padded(size)
		}
		if err := discard(r, skip); err != nil {
			return fmt.Errorf("read the core file's notes: %w", ended(err))
		}
		if !wanted || size > maxCoreNote {
			continue
		}
		b := make([]byte, padded(size))
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("read the core file's notes: %w", ended(err))
		}
		c.note(typ, b[:size])
	}
}

func padded(n uint32) int64 { return (int64(n) + 3) &^ 3 }

func discard(r *bufio.Reader, n int64) error {
	_, err := io.CopyN(io.Discard, r, n)
	return err
}

// ended says of a file that ends too early that it was cut off.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early: it is cut off", ErrCore)
	}
	return err
}

// note takes what a note says. The structures are those of 64-bit machines (include/linux/elfcore.h).
func (c *Core) note(typ uint32, b []byte) {
	switch {
	case typ == noteStatus && len(b) >= 36 && len(c.Threads) < maxCoreThreads:
		c.noteThread(b)
	case typ == noteSignal:
		c.noteSiginfo(b)
	case typ == noteProcess && len(b) >= 56:
		c.PID = int(int32(le.Uint32(b[24:])))
		name, _, _ := bytes.Cut(b[40:56], []byte{0})
		c.Comm = string(name)
	case typ == noteAuxv:
		for ; len(b) >= 16 && len(c.aux) < 256; b = b[16:] {
			c.aux[le.Uint64(b)] = le.Uint64(b[8:])
		}
	case typ == noteFile:
		c.noteFiles(b)
	}
}

// noteFiles: a count, the size of a page, as many times start, end and page, and then as many paths (fs/binfmt_elf.c: fill_files_note).
func (c *Core) noteFiles(b []byte) {
	if len(b) < 16 {
		return
	}
	n, page := le.Uint64(b), le.Uint64(b[8:])
	if n > maxCoreFiles || n > uint64(len(b)-16)/24 || page == 0 || page > 1<<30 {
		return
	}
	paths := b[16+24*n:]
	for i := range n {
		e := b[16+24*i:]
		path, rest, ok := bytes.Cut(paths, []byte{0})
		if !ok {
			return
		}
		paths = rest
		if off := le.Uint64(e[16:]); off < 1<<62/page {
			c.files = append(c.files, coreMapping{le.Uint64(e), le.Uint64(e[8:]), off * page, string(path)})
		}
	}
}

// Close closes the file.
func (c *Core) Close() error { return c.r.Close() }

// CutOff reports that the file ends before the memory that it should have does.
func (c *Core) CutOff() bool {
	return slices.ContainsFunc(c.segs, func(p elf.ProgHeader) bool { return p.Filesz > 0 && p.Off+p.Filesz > uint64(c.size) })
}

// executable is the path of the program that the process ran: of the file that its program headers are in; "": not known.
func (c *Core) executable() string {
	if f := c.mapping(c.aux[auxPhdr]); f != nil {
		return f.path
	}
	return ""
}

// segment is the one that covers addr, or nil; next is where the next one begins.
func (c *Core) segment(addr uint64) (seg *elf.ProgHeader, next uint64) {
	i := sort.Search(len(c.segs), func(i int) bool { return c.segs[i].Vaddr+c.segs[i].Memsz > addr })
	switch {
	case i == len(c.segs):
		return nil, kernelSpace
	case c.segs[i].Vaddr > addr:
		return nil, c.segs[i].Vaddr
	}
	return &c.segs[i], c.segs[i].Vaddr + c.segs[i].Memsz
}

// mapping is what file was mapped at addr, or nil.
func (c *Core) mapping(addr uint64) *coreMapping {
	i := sort.Search(len(c.files), func(i int) bool { return c.files[i].end > addr })
	if i == len(c.files) || c.files[i].start > addr {
		return nil
	}
	return &c.files[i]
}

// dumped reads what the core file has itself from addr on, to the end of p or of that. 0: nothing; then it is not known up to next.
func (c *Core) dumped(p []byte, addr uint64) (n int, next uint64, err error) {
	seg, next := c.segment(addr)
	if seg == nil || addr-seg.Vaddr >= seg.Filesz {
		return 0, next, nil
	}
	off := addr - seg.Vaddr
	p = p[:min(uint64(len(p)), seg.Filesz-off)]
	if n, err = c.r.ReadAt(p, int64(seg.Off+off)); n == len(p) {
		return n, next, nil
	}
	return 0, next, ended(err)
}
