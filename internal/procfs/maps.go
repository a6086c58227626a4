package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Perm are the permissions of a mapping.
type Perm uint8

// Permission bits.
const (
	PermRead Perm = 1 << iota
	PermWrite
	PermExec
	PermShared
)

// Dev is a device number as maps prints it.
type Dev struct{ Major, Minor uint32 }

// FileID names a file for as long as it is executed by somebody. The change time tells a file from one that was
// written over it.
type FileID struct {
	Dev         Dev
	Inode, Size uint64
	Changed     int64 // nanoseconds since 1970
}

// Map is one line of /proc/PID/maps (fs/proc/task_mmu.c, show_map_vma).
type Map struct {
	Start, End uint64
	Perm       Perm
	Offset     uint64 // in the file, in bytes
	Dev        Dev
	Inode      uint64 // 0: no file, and Path is one of the kernel's names ("[vdso]", "[heap]", "[anon:x]") or empty
	Path       string // in the process's mount namespace, without the kernel's " (deleted)"
	Deleted    bool   // the line ended in " (deleted)"
}

// IsFile says whether a file is mapped, rather than memory with or without a name.
func (m *Map) IsFile() bool { return m.Inode != 0 && strings.HasPrefix(m.Path, "/") }

const (
	// maxMapsLine is above a line with a path of PATH_MAX bytes, each escaped with four.
	maxMapsLine = 32 << 10
	// maxMapsLines is the largest vm.max_map_count that distributions set.
	maxMapsLines  = 1 << 20
	deletedSuffix = " (deleted)"
)

// Maps yields the mappings of the process in ascending order, as the file is read: memory does not
// grow with their number. The iteration ends after the first error. It yields nothing for kernel threads and zombies.
func (p Proc) Maps() iter.Seq2[Map, error] {
	return func(yield func(Map, error) bool) {
		f, err := p.open("maps")
		if err != nil {
			yield(Map{}, fmt.Errorf("read mappings of process %d: %w", p.PID, err))
			return
		}
		defer f.Close()
		for m, err := range ParseMaps(f) {
			if !yield(m, gone(err)) {
				return
			}
		}
	}
}

// gone gives the kernel's word for a process that ends while it is read, ESRCH, the meaning of its word for one that has
// ended: fs.ErrNotExist.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

// mapsReaders have room for the longest line.
var mapsReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxMapsLine) }}

// ParseMaps parses a maps file as it is read. Lines longer than any the kernel writes are an error.
func ParseMaps(r io.Reader) iter.Seq2[Map, error] {
	return func(yield func(Map, error) bool) {
		br := mapsReaders.Get().(*bufio.Reader)
		br.Reset(r)
		defer func() {
			br.Reset(nil)
			mapsReaders.Put(br)
		}()
		for range maxMapsLines {
			line, err := br.ReadSlice('\n')
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return
			}
			if err != nil && !errors.Is(err, io.EOF) {
				yield(Map{}, fmt.Errorf("read mappings: %w", err))
				return
			}
			m, err := parseMap(bytes.TrimSuffix(line, []byte("\n")))
			if !yield(m, err) || err != nil {
				return
			}
		}
		yield(Map{}, fmt.Errorf("read mappings: more than %d lines: %w", maxMapsLines, ErrFormat))
	}
}

// parseMap parses "start-end perm offset major:minor inode   path".
func parseMap(line []byte) (Map, error) {
	var f [5]string
	rest := line
	for i := range f {
		word, after, _ := bytes.Cut(rest, []byte(" "))
		f[i], rest = string(word), after
	}
	var m Map
	start, end, ok1 := strings.Cut(f[0], "-")
	major, minor, ok2 := strings.Cut(f[3], ":")
	var p numParser
	m.Start, m.End = p.uint(start, 16, 64), p.uint(end, 16, 64)
	m.Offset = p.uint(f[2], 16, 64)
	m.Dev = Dev{uint32(p.uint(major, 16, 32)), uint32(p.uint(minor, 16, 32))}
	m.Inode = p.uint(f[4], 10, 64)
	perm, ok3 := parsePerm(f[1])
	if !ok1 || !ok2 || !ok3 || p.err != nil || m.End <= m.Start {
		return Map{}, fmt.Errorf("parse mapping %.80q: %w", line, ErrFormat)
	}
	m.Perm = perm
	m.setPath(string(bytes.TrimLeft(rest, " ")))
	return m, nil
}

// setPath undoes the kernel's only escape, \012 for a newline, and splits off " (deleted)".
// Both are ambiguous by design: a file may be called "a\012" or "a (deleted)" in truth.
func (m *Map) setPath(s string) {
	if strings.HasPrefix(s, "/") {
		s, m.Deleted = strings.CutSuffix(s, deletedSuffix)
		s = strings.ReplaceAll(s, `\012`, "\n")
	}
	m.Path = s
}

func parsePerm(s string) (Perm, bool) {
	if len(s) != 4 {
		return 0, false
	}
	var p Perm
	for i, c := range []byte("rwxs") {
		switch s[i] {
		case c:
			p |= 1 << i
		case '-', 'p':
		default:
			return 0, false
		}
	}
	return p, true
}

// numParser keeps the first error of several numbers.
type numParser struct{ err error }

func (p *numParser) uint(s string, base, bits int) uint64 {
	n, err := strconv.ParseUint(s, base, bits)
	if err != nil {
		p.err = err
	}
	return n
}
