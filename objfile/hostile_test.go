package objfile

import (
	"bytes"
	"debug/elf"
	"errors"
	"testing"
)

// hostile is a program of maxProgs segments that all show the same megabyte, full of patterns that searches stop at.
func hostile(pattern []byte) []byte {
	const body = 1 << 20
	head := ehdrSize + maxProgs*phdrSize
	b := make([]byte, head, head+body)
	copy(b, synthetic()[:ehdrSize])
	le.PutUint16(b[56:], maxProgs)
	for i := range maxProgs {
		p := b[ehdrSize+i*phdrSize:]
		le.PutUint32(p, uint32(elf.PT_LOAD))
		le.PutUint32(p[4:], 7)
		for j, v := range []uint64{0, uint64(i+1) << 40, 0, uint64(head + body), 1 << 40, 4096} {
			le.PutUint64(p[8+8*j:], v)
		}
	}
	return append(b, bytes.Repeat(pattern, body/len(pattern))...)
}

// The budget of a search counts what it looks at, so that it ends however often the same bytes are
// shown and however many of them look right. (It takes seconds; without a budget, hours.)
func TestSearchesEndOnHostileFiles(t *testing.T) {
	for name, pattern := range map[string][]byte{
		"function tables":   []byte("\xf1\xff\xff\xff\x00\x00\x01\x08"),
		"build information": []byte(buildInfoMagic + "\x08\x00"),
		"zeros":             make([]byte, 8),
	} {
		b := hostile(pattern)
		f, err := Open(nopCloser{bytes.NewReader(b)}, int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		s := newSearch(f)
		for range s.headers() {
		}
		if name == "function tables" && s.left > 0 {
			t.Errorf("%s: the search ended with %d bytes of its budget left: the file is not hostile enough", name, s.left)
		}
		if s.left < -2*scanChunk {
			t.Errorf("%s: the search read %d bytes too many", name, -s.left)
		}
		if _, err := f.GoModule(); !errors.Is(err, ErrNotGo) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := f.BuildInfo(); !errors.Is(err, ErrNotGo) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
