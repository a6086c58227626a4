package goruntime

import (
	"debug/dwarf"
	"errors"
	"fmt"

	"github.com/pprofd/pprofd/objfile"
)

// maxDWARFEntries bounds the search for runtime.g: about a second. The linker puts package runtime early.
const maxDWARFEntries = 5_000_000

// wantedStructs are the types whose members make up Offsets.
func wantedStructs() map[string]bool {
	return map[string]bool{"runtime.g": true, "runtime.m": true, "runtime.gobuf": true}
}

// members are a struct's member offsets by name.
type members map[string]uint32

// OffsetsFromDWARF reads the layouts of runtime.g, runtime.m and runtime.gobuf.
// It walks entries until it has found them and leaves everything else unread.
func OffsetsFromDWARF(d *dwarf.Data) (Offsets, error) {
	structs, err := findStructs(d, wantedStructs())
	if err != nil {
		return Offsets{}, err
	}
	g, m, gobuf := structs["runtime.g"], structs["runtime.m"], structs["runtime.gobuf"]
	sched, ok := g["sched"]
	if !ok || g["m"] == 0 || gobuf == nil || m["curg"] == 0 {
		return Offsets{}, errors.New("DWARF: runtime.g, runtime.m or runtime.gobuf lacks expected members")
	}
	return Offsets{
		GM: g["m"], GAtomicStatus: g["atomicstatus"], GGoid: g["goid"], GLabels: g["labels"],
		GSchedSP: sched + gobuf["sp"], GSchedPC: sched + gobuf["pc"], GSchedBP: sched + gobuf["bp"],
		GSyscallSP: g["syscallsp"], GSyscallPC: g["syscallpc"],
		MG0: m["g0"], MProcid: m["procid"], MGsignal: m["gsignal"], MCurg: m["curg"],
		MVDSOSP: m["vdsoSP"], MVDSOPC: m["vdsoPC"],
	}, nil
}

// findStructs collects the members of the wanted structs.
func findStructs(d *dwarf.Data, want map[string]bool) (map[string]members, error) {
	found := make(map[string]members, len(want))
	r := d.Reader()
	for range maxDWARFEntries {
		e, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("DWARF: %w", err)
		}
		if e == nil {
			break
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		if e.Tag != dwarf.TagStructType || !want[name] || !e.Children {
			continue
		}
		if found[name], err = readMembers(r); err != nil {
			return nil, err
		}
		if len(found) == len(want) {
			return found, nil
		}
	}
	return nil, fmt.Errorf("DWARF: %d of %d runtime types found", len(found), len(want))
}

// readMembers reads the children of the struct entry that r has just returned.
func readMembers(r *dwarf.Reader) (members, error) {
	const maxMembers = 1000 // runtime.m has about 100
	ms := make(members)
	for range maxMembers {
		e, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("DWARF members: %w", err)
		}
		if e == nil || e.Tag == 0 {
			return ms, nil
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		off, ok := e.Val(dwarf.AttrDataMemberLoc).(int64)
		if ok && off >= 0 && off < maxOffset {
			ms[name] = uint32(off)
		}
		if e.Children {
			r.SkipChildren()
		}
	}
	return nil, errors.New("DWARF: a runtime type has too many members")
}

// openDWARF opens what the search needs of f's debug sections.
func openDWARF(f *objfile.File) (*dwarf.Data, error) {
	section := func(name string) []byte {
		b, err := f.DWARFSection(name)
		if err != nil {
			return nil
		}
		return b
	}
	info, err := f.DWARFSection("info")
	if err != nil {
		return nil, fmt.Errorf("no DWARF: %w", err)
	}
	d, err := dwarf.New(section("abbrev"), nil, nil, info, section("line"), nil, nil, section("str"))
	if err != nil {
		return nil, fmt.Errorf("DWARF: %w", err)
	}
	for _, name := range []string{"addr", "line_str", "str_offsets", "rnglists"} { // DWARF 5, Go 1.25 and newer
		if b := section(name); b != nil {
			if err := d.AddSection(".debug_"+name, b); err != nil {
				return nil, fmt.Errorf("DWARF: %w", err)
			}
		}
	}
	return d, nil
}

// offsetsFromFile is OffsetsFromDWARF for a file.
func offsetsFromFile(f *objfile.File) (Offsets, error) {
	d, err := openDWARF(f)
	if err != nil {
		return Offsets{}, err
	}
	return OffsetsFromDWARF(d)
}
