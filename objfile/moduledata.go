package objfile

import (
	"strconv"
	"strings"

	"github.com/pprofd/pprofd/gopclntab"
)

// Words of runtime.moduledata that have not moved since Go 1.16 (runtime/symtab.go, type moduledata).
const (
	mdPCHeader    = 0
	mdFuncNameTab = 1
	mdFtab        = 16
	mdFtabLen     = 17
	mdMinPC       = 20
	mdText        = 22
	mdEText       = 23
	mdNoPtrData   = 24
	mdData        = 26
	mdBSS         = 28
	mdNoPtrBSS    = 30

	// moduleWords covers the largest moduledata so far (Go 1.26: 74 words).
	moduleWords = 80
)

type moduleData [moduleWords]uint64

// moduleAt reads and checks the moduledata at addr: as it stands in the file (executables, memory,
// Go's own linker for PIE, RELR), else with relocations applied (GNU ld leaves zeros in a PIE).
func (s *search) moduleAt(addr uint64, h pcHeader) (Module, bool) {
	var raw [8 * moduleWords]byte
	if _, err := s.f.ReadAt(raw[:8*(mdNoPtrBSS+2)], int64(addr)); err != nil {
		return Module{}, false
	}
	_, _ = s.f.ReadAt(raw[:], int64(addr)) // what is behind the end of the segment stays zero
	for _, relocate := range []func(uint64, []byte){func(uint64, []byte) {}, s.relocateSorted, s.relocate} {
		relocate(addr, raw[:])
		var md moduleData
		for i := range md {
			md[i] = le.Uint64(raw[8*i:])
		}
		if s.f.soundModule(&md, h) {
			return s.f.newModule(addr, &md, h), true
		}
	}
	return Module{}, false
}

func (f *File) soundModule(md *moduleData, h pcHeader) bool {
	text, etext, minpc := md[mdText], md[mdEText], md[mdMinPC]
	return md[mdPCHeader] == h.addr && md[mdFuncNameTab] == h.addr+h.offs[0] &&
		md[mdFtab] == h.addr+h.offs[4] && md[mdFtabLen] == h.nfunc+1 &&
		text <= minpc && minpc < etext && f.executable(text)
}

func (f *File) newModule(addr uint64, md *moduleData, h pcHeader) Module {
	m := Module{
		Image:      gopclntab.Image{PCHeader: h.addr, Text: md[mdText], EText: md[mdEText]},
		ModuleData: addr,
		NoPtrData:  md[mdNoPtrData], ENoPtrData: md[mdNoPtrData+1],
		Data: md[mdData], EData: md[mdData+1],
		BSS: md[mdBSS], EBSS: md[mdBSS+1],
		NoPtrBSS: md[mdNoPtrBSS], ENoPtrBSS: md[mdNoPtrBSS+1],
	}
	sects := f.textSectMap(md, h)
	m.GoFunc = goFunc(md, h, sects)
	if next := f.nextWord(sects); next > 0 {
		m.Next, m.NextAddr = md[next], addr+8*uint64(next)
	}
	return m
}

// textSectMap finds the word where the slice moduledata.textsectmap begins: it tells the layouts
// apart. Go 1.16: 37, 1.18: 39, 1.20: 41, 1.26: 42, 1.27: 45. Its first element is {0, length of the text, text}. 0: not found.
func (f *File) textSectMap(md *moduleData, h pcHeader) int {
	for _, i := range textSectWords(h) {
		ptr, n := md[i], md[i+1]
		if n == 0 || n != md[i+2] || n > 1024 {
			continue
		}
		var b [16]byte
		if _, err := f.ReadAt(b[:], int64(ptr)); err != nil {
			continue
		}
		if start, end := le.Uint64(b[:]), le.Uint64(b[8:]); start == 0 && end > 0 && end <= md[mdEText]-md[mdText]+1<<20 {
			return i
		}
	}
	return 0
}

// textSectWords are the words to try: those of known versions first, for the newest magic all up to where a later one may have moved it.
func textSectWords(h pcHeader) []int {
	switch h.magic {
	case magic116:
		return []int{37}
	case magic118:
		return []int{39}
	}
	words := []int{41, 42, 45}
	for i := 43; i < 60; i++ {
		words = append(words, i)
	}
	return words
}

// goFunc is moduledata.gofunc, before the textsectmap until Go 1.25; since 1.26 epclntab is between
// them, and gofunc points into the pclntab.
func goFunc(md *moduleData, h pcHeader, sects int) uint64 {
	switch {
	case sects == 0 || h.magic == magic116:
		return 0
	case sects <= 41:
		return md[sects-1]
	}
	if gofunc, epclntab := md[sects-2], md[sects-1]; h.addr < gofunc && gofunc <= epclntab {
		return gofunc
	}
	return 0
}

// nextWord is the word of moduledata.next, the last one: 29 words behind textsectmap until Go 1.20,
// then inittasks came (1.21), bad moved (1.23), typelinks and itablinks went (1.27). 0: unknown.
func (f *File) nextWord(sects int) int {
	switch sects {
	case 37, 39:
		return sects + 29
	case 42:
		return 73
	case 45:
		return 70
	case 41:
		switch minor := f.goMinor(); {
		case minor == 20:
			return 70
		case minor == 21 || minor == 22:
			return 73
		case minor > 22:
			return 72
		}
	}
	return 0
}

// goMinor is 21 for a program built by Go 1.21.x; 0 where that is not known.
func (f *File) goMinor() int {
	info, err := f.BuildInfo()
	if err != nil {
		return 0
	}
	return minorVersion(info.GoVersion)
}

// minorVersion is 21 for "go1.21.3 X:nocoverageredesign"; 0 for what is no release ("devel ...").
func minorVersion(version string) int {
	v, ok := strings.CutPrefix(version, "go1.")
	if !ok {
		return 0
	}
	end := strings.IndexFunc(v, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(v)
	}
	n, err := strconv.Atoi(v[:end])
	if err != nil {
		return 0
	}
	return n
}
