package objfile

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
)

type buildIDs struct{ gnu, golang string }

const (
	maxNotes    = 64 << 10
	noteGNU     = 3 // NT_GNU_BUILD_ID (elf.h)
	noteGo      = 4 // ELF_NOTE_GOBUILDID_TAG (cmd/link/internal/ld/elf.go)
	maxGNUID    = 64
	maxGoID     = 1024
	hashedIDLen = 20 // bytes of the hash that stands for Go's build ID: as long as a GNU one
	// noteSlack is read behind a PT_NOTE: since Go 1.24 the linker writes a GNU note that only section headers tell of right behind its own.
	noteSlack = 256
)

// BuildID is the GNU build ID in hex, else the hash (hex) of Go's own build ID, else "".
func (f *File) BuildID() string {
	ids := f.notes()
	if ids.gnu == "" && ids.golang != "" {
		sum := sha256.Sum256([]byte(ids.golang))
		return hex.EncodeToString(sum[:hashedIDLen])
	}
	return ids.gnu
}

// GoBuildID is Go's build ID ("action/.../content", as go tool buildid prints it), or "".
func (f *File) GoBuildID() string { return f.notes().golang }

// notes reads PT_NOTE and, for what it lacks, note sections.
func (f *File) notes() buildIDs {
	ids, _ := f.ids.get(func() (buildIDs, error) {
		var ids buildIDs
		for _, p := range f.progs {
			if p.Type == elf.PT_NOTE {
				ids.add(f.noteBytes(p.Off, p.Filesz+noteSlack), p.Align)
			}
		}
		for _, s := range f.sections {
			if s.typ == elf.SHT_NOTE {
				ids.add(f.noteBytes(s.off, s.size), s.align)
			}
		}
		return ids, nil
	})
	return ids
}

func (f *File) noteBytes(off, size uint64) []byte {
	if off > 1<<62 || size > maxNotes {
		return nil
	}
	b := make([]byte, size)
	n, _ := f.src.ReadAt(b, int64(off))
	return b[:n]
}

// add takes what it knows from a sequence of notes; it stops at the first that is cut or no note.
func (ids *buildIDs) add(b []byte, align uint64) {
	if align != 8 {
		align = 4
	}
	for len(b) >= 12 {
		nameSize, descSize := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
		typ := le.Uint32(b[8:])
		descOff := (12 + nameSize + align - 1) &^ (align - 1)
		end := descOff + descSize
		if nameSize > 64 || end > uint64(len(b)) {
			return
		}
		name, desc := string(bytes.TrimRight(b[12:12+nameSize], "\x00")), b[descOff:end]
		switch {
		case name == "GNU" && typ == noteGNU && ids.gnu == "" && 0 < descSize && descSize <= maxGNUID:
			ids.gnu = hex.EncodeToString(desc)
		case name == "Go" && typ == noteGo && ids.golang == "" && descSize <= maxGoID:
			ids.golang = string(bytes.TrimRight(desc, "\x00"))
		}
		b = b[min((end+align-1)&^(align-1), uint64(len(b))):]
	}
}
