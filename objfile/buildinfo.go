package objfile

import (
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"runtime/debug"
)

const (
	buildInfoMagic  = "\xff Go buildinf:"
	buildInfoHeader = 32
	buildInfoInline = 2 // flag: the strings follow, Go 1.18 and newer
	maxGoVersion    = 256
	maxModInfo      = 1 << 20
	modInfoFraming  = 16 // bytes before and after the text (cmd/go/internal/modload, infoStart, infoEnd)
	maxInfoTries    = 64
)

// BuildInfo is Go's build information; the error wraps ErrNotGo where there is none. It is read here
// rather than by debug/buildinfo, which trusts section headers, and works on memory images too.
// (The format is described in Go 1.26 debug/buildinfo/buildinfo.go, readRawBuildInfo.)
func (f *File) BuildInfo() (*buildinfo.BuildInfo, error) {
	return f.info.get(func() (*buildinfo.BuildInfo, error) {
		if f.plainlyNotGo() {
			return nil, fmt.Errorf("no section is the Go linker's: %w", ErrNotGo)
		}
		s := newSearch(f)
		if sec, ok := f.section(".go.buildinfo"); ok {
			if info := s.infoAt(sec.addr); info != nil {
				return info, nil
			}
		}
		tries := 0
		for addr := range s.findInSegments([]byte(buildInfoMagic), elf.PF_W, elf.PF_X) {
			if tries++; tries > maxInfoTries {
				break
			}
			if info := s.infoAt(addr); info != nil {
				return info, nil
			}
		}
		return nil, fmt.Errorf("no Go build information: %w", ErrNotGo)
	})
}

// infoAt reads the build information at addr; nil where there is none.
func (s *search) infoAt(addr uint64) *buildinfo.BuildInfo {
	var b [buildInfoHeader]byte
	if _, err := s.f.ReadAt(b[:], int64(addr)); err != nil || addr%16 != 0 || string(b[:len(buildInfoMagic)]) != buildInfoMagic {
		return nil
	}
	var version, mod string
	if b[15]&buildInfoInline != 0 {
		var next uint64
		version, next = s.f.inlineString(addr+buildInfoHeader, maxGoVersion)
		mod, _ = s.f.inlineString(next, maxModInfo)
	} else {
		s.relocate(addr, b[:])
		version = s.goString(le.Uint64(b[16:]), maxGoVersion)
		mod = s.goString(le.Uint64(b[24:]), maxModInfo)
	}
	if version == "" {
		return nil
	}
	info, err := debug.ParseBuildInfo(unframe(mod))
	if err != nil {
		info = new(buildinfo.BuildInfo)
	}
	info.GoVersion = version
	return info
}

// inlineString reads a string with its length in front as a varint, and says what follows it.
func (f *File) inlineString(addr, limit uint64) (s string, next uint64) {
	var b [binary.MaxVarintLen64]byte
	n, _ := f.ReadAt(b[:], int64(addr))
	size, n := binary.Uvarint(b[:n])
	if n <= 0 || size > limit {
		return "", 0
	}
	addr += uint64(n)
	return f.stringAt(addr, size), addr + size
}

// goString reads the string whose header {data, length} is at addr.
func (s *search) goString(addr, limit uint64) string {
	var b [16]byte
	if _, err := s.f.ReadAt(b[:], int64(addr)); err != nil {
		return ""
	}
	s.relocate(addr, b[:])
	if size := le.Uint64(b[8:]); size <= limit {
		return s.f.stringAt(le.Uint64(b[:]), size)
	}
	return ""
}

func (f *File) stringAt(addr, size uint64) string {
	b := make([]byte, size)
	if _, err := f.ReadAt(b, int64(addr)); err != nil {
		return ""
	}
	return string(b)
}

// unframe strips the sentinels around the module information.
func unframe(mod string) string {
	if len(mod) >= 2*modInfoFraming+1 && mod[len(mod)-modInfoFraming-1] == '\n' {
		return mod[modInfoFraming : len(mod)-modInfoFraming]
	}
	return ""
}
