package goruntime

import (
	"bytes"
	"debug/dwarf"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/pprofd/pprofd/objfile"
)

var updateSeeds = flag.Bool("update-seeds", false, "write testdata/fuzz anew")

// FuzzDWARF reads crafted debug information. Seeds are pieces of real programs' (testdata/fuzz, see TestDWARFSeeds).
func FuzzDWARF(f *testing.F) {
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, info, abbrev, addr []byte) {
		u := newUnits(bytes.NewReader(info), abbrev, addr)
		off, err := u.offsets()
		if err != nil {
			return
		}
		for _, fl := range fields() {
			if v := *fl.ptr(&off); v >= 2*maxOffset {
				t.Errorf("%s = %#x", fl.name, v)
			}
		}
	})
}

// dwarfPiece is what FuzzDWARF takes: the runtime's unit with the three types alone, and what it refers to.
type dwarfPiece struct{ info, abbrev, addr []byte }

// cutDWARF cuts the piece out of a program.
func cutDWARF(t *testing.T, f *objfile.File) dwarfPiece {
	t.Helper()
	u, err := openUnits(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		h, err := u.head()
		if err != nil {
			t.Fatalf("no types of the runtime: %v", err)
		}
		unit := make([]byte, h.size)
		if _, err := io.ReadFull(u.info, unit); err != nil {
			t.Fatal(err)
		}
		d := u.parse(h, unit)
		if !isRuntime(d) {
			continue
		}
		if piece, ok := cutUnit(d, unit); ok {
			return dwarfPiece{piece, u.abbrev[h.abbrevOff:], u.addr[:min(len(u.addr), 64)]}
		}
	}
}

// cutUnit keeps a unit's header, its first entry, and the entries of the wanted types.
func cutUnit(d *dwarf.Data, unit []byte) ([]byte, bool) {
	var offs []dwarf.Offset // of entries on the first level
	var keep [][2]dwarf.Offset
	r := d.Reader()
	if _, err := r.Next(); err != nil {
		return nil, false
	}
	start := dwarf.Offset(0)
	open := false
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			break
		}
		offs = append(offs, e.Offset)
		if open {
			keep, open = append(keep, [2]dwarf.Offset{start, e.Offset}), false
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		if e.Tag == dwarf.TagStructType && wantedStructs()[name] {
			start, open = e.Offset, true
		}
		if e.Children {
			r.SkipChildren()
		}
	}
	if len(keep) != len(wantedStructs()) {
		return nil, false
	}
	out := bytes.Clone(unit[:offs[0]])
	for _, k := range keep {
		out = append(out, unit[k[0]:k[1]]...)
	}
	out = append(out, 0)
	binary.LittleEndian.PutUint32(out, uint32(len(out)-4))
	return out, true
}

// TestDWARFSeeds keeps the seeds of FuzzDWARF alive: pieces of real debug information of each version of DWARF that Go
// has written, which say what the whole says. With -update-seeds it writes them anew.
func TestDWARFSeeds(t *testing.T) {
	for _, tc := range []string{"go1.18.10", "go1.21.13", newest} {
		path := buildTruth(t, tc, mode{args: []string{"-trimpath"}})
		f, _ := openFile(t, path)
		want, err := offsetsFromFile(f)
		if whole := dwarfTruth(t, path); err != nil || want != whole {
			t.Errorf("%s: %+v, %v; the whole says %+v", tc, want, err, whole)
		}
		p := cutDWARF(t, f)
		got, err := newUnits(bytes.NewReader(p.info), p.abbrev, p.addr).offsets()
		if err != nil || got != want {
			t.Errorf("%s: the piece says %+v, %v; want %+v", tc, got, err, want)
		}
		name := filepath.Join("testdata/fuzz/FuzzDWARF", tc)
		if *updateSeeds {
			text := fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n[]byte(%q)\n[]byte(%q)\n", p.info, p.abbrev, p.addr)
			if err := os.WriteFile(name, text, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// What debug/dwarf keeps of each unit, and of each unit's abbreviations, was once hundreds of times what the file has.
func TestDWARFOfManyUnits(t *testing.T) {
	unit := binary.LittleEndian.AppendUint32(nil, 11)
	unit = append(unit, 4, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0) // version 4, abbreviations at 0, addresses of 8 bytes, an entry
	abbrev := []byte{1, 0x11, 0}
	abbrev = append(abbrev, bytes.Repeat([]byte{0x50, 0x19}, 4000)...) // attributes without data
	abbrev = append(abbrev, 0, 0, 0)
	u := newUnits(bytes.NewReader(bytes.Repeat(unit, 1<<20)), abbrev, nil)
	if _, err := u.offsets(); err == nil || u.abbrevs > maxAbbrevs+maxAbbrev {
		t.Errorf("%v after %d bytes of abbreviations", err, u.abbrevs)
	}
}
