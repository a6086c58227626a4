package goruntime

import (
	"bufio"
	"bytes"
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pprofd/pprofd/objfile"
)

// maxDWARFEntries bounds the search for runtime.g in one unit: a sixth of a second. Siblings may lead back.
const maxDWARFEntries = 250_000

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

// HeapFromDWARF reads the layouts of runtime.p, runtime.mcache and runtime.mspan.
func HeapFromDWARF(d *dwarf.Data) (HeapOffsets, error) {
	structs, err := findStructs(d, map[string]bool{"runtime.p": true, "runtime.mcache": true, "runtime.mspan": true})
	if err != nil {
		return HeapOffsets{}, err
	}
	p, c, s := structs["runtime.p"], structs["runtime.mcache"], structs["runtime.mspan"]
	o := HeapOffsets{
		PMcache: p["mcache"], McacheAlloc: c["alloc"], SpanNelems: s["nelems"], SpanCount: s["allocCount"],
		SpanClass: s["spanclass"], SpanSize: s["elemsize"], SpanBefore: s["allocCountBeforeCache"], NelemsBytes: 8,
	}
	if s["freeIndexForScan"]-s["nelems"] == 2 || s["freeindex"]+2 == s["nelems"] { // both have 2 bytes since Go 1.22
		o.NelemsBytes = 2
	}
	if o.PMcache == 0 || o.McacheAlloc == 0 || o.SpanNelems == 0 || o.SpanCount == 0 || o.SpanClass == 0 || o.SpanSize == 0 {
		return HeapOffsets{}, errors.New("DWARF: runtime.p, runtime.mcache or runtime.mspan lacks expected members")
	}
	return o, nil
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

// Bounds on what is read of .debug_info, which may have been crafted to fill memory when it is parsed.
const (
	maxUnit       = 4 << 20  // of the runtime's unit: the linker puts its types at the unit's beginning
	maxFirstEntry = 4 << 10  // of the first entry of any unit, which holds its name
	maxAbbrev     = 8 << 10  // of the table of abbreviations of one unit; Go's has 614 bytes
	maxAbbrevs    = 64 << 20 // of all such tables that are parsed

	maxRuntimeUnits = 16 // Go writes some six: assembly has its own
)

// units reads .debug_info as a stream, unit by unit (DWARF 5 section 7.5.1): debug/dwarf, given a whole section, keeps
// something of every unit, and parses each one's table of abbreviations.
type units struct {
	info         *bufio.Reader
	abbrev, addr []byte
	abbrevs      int // bytes of tables of abbreviations that were parsed
	found        int // units of package runtime
}

// openUnits begins to read f's debug information.
func openUnits(f *objfile.File) (*units, error) {
	info, _, err := f.OpenDWARF("info")
	if err != nil {
		return nil, fmt.Errorf("no DWARF: %w", err)
	}
	abbrev, err := f.DWARFSection("abbrev")
	if err != nil {
		return nil, fmt.Errorf("no DWARF: %w", err)
	}
	addr, err := f.DWARFSection("addr") // DWARF 5, Go 1.25 and newer
	if err != nil {
		addr = nil
	}
	return newUnits(info, abbrev, addr), nil
}

func newUnits(info io.Reader, abbrev, addr []byte) *units {
	return &units{info: bufio.NewReaderSize(info, 2*maxFirstEntry), abbrev: abbrev, addr: addr}
}

// unitHead is the beginning of a unit's header.
type unitHead struct {
	size      int64 // of the unit, with the length itself
	abbrevOff uint32
	at        int  // where abbrevOff stands
	plain     bool // 32-bit DWARF of a version that debug/dwarf reads
}

// head looks at the next unit's header. The error is io.EOF behind the last unit.
func (u *units) head() (unitHead, error) {
	b, err := u.info.Peek(12)
	if len(b) < 12 {
		if len(b) == 0 && errors.Is(err, io.EOF) {
			return unitHead{}, io.EOF
		}
		return unitHead{}, fmt.Errorf("DWARF unit: %w", io.ErrUnexpectedEOF)
	}
	le := binary.LittleEndian
	length, version := le.Uint32(b), le.Uint16(b[4:])
	if length >= 0xfffffff0 { // 64-bit DWARF, which Go does not write
		return unitHead{size: 12 + int64(min(le.Uint64(b[4:]), 1<<62))}, nil
	}
	h := unitHead{size: 4 + int64(length), at: 6, plain: length >= 8 && version >= 2 && version <= 5}
	if version == 5 {
		h.at = 8
	}
	h.abbrevOff = le.Uint32(b[h.at:])
	return h, nil
}

// next returns the next unit of package runtime: there are several, and the types are in one. Errors are io.EOF behind
// the last unit, and others where nothing can be read any more.
func (u *units) next() (*dwarf.Data, error) {
	for {
		h, err := u.head()
		if err != nil {
			return nil, err
		}
		data, used := u.runtimeUnit(h)
		if u.abbrevs > maxAbbrevs || u.found > maxRuntimeUnits {
			return nil, fmt.Errorf("DWARF: more than %d units of package runtime or %d MiB of abbreviations", maxRuntimeUnits, maxAbbrevs>>20)
		}
		if err := u.skip(h.size - used); err != nil || data != nil {
			return data, err
		}
	}
}

func (u *units) skip(n int64) error {
	for n > 0 {
		m, err := u.info.Discard(int(min(n, 1<<30)))
		if err != nil {
			return fmt.Errorf("DWARF unit: %w", io.ErrUnexpectedEOF)
		}
		n -= int64(m)
	}
	return nil
}

// runtimeUnit reads the unit with header h if it is one of package runtime, and says how many of its bytes it has taken.
// data is nil for all other units.
func (u *units) runtimeUnit(h unitHead) (data *dwarf.Data, used int64) {
	if !h.plain || uint64(h.abbrevOff) >= uint64(len(u.abbrev)) {
		return nil, 0
	}
	first, _ := u.info.Peek(int(min(h.size, maxFirstEntry)))
	if !isRuntime(u.parse(h, bytes.Clone(first))) {
		return nil, 0
	}
	u.found++
	b := make([]byte, min(h.size, maxUnit))
	n, _ := io.ReadFull(u.info, b) // a unit that is cut may still hold what is looked for
	return u.parse(h, b[:n]), int64(n)
}

// parse gives debug/dwarf the beginning of a unit as all that there is. It changes b. The result is nil where it makes no sense.
func (u *units) parse(h unitHead, b []byte) *dwarf.Data {
	if len(b) < 12 {
		return nil
	}
	abbrev := u.abbrev[h.abbrevOff:]
	abbrev = abbrev[:min(len(abbrev), maxAbbrev)]
	u.abbrevs += len(abbrev)
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	binary.LittleEndian.PutUint32(b[h.at:], 0)
	d, err := dwarf.New(abbrev, nil, nil, b, nil, nil, nil, nil)
	if err != nil || u.addr != nil && d.AddSection(".debug_addr", u.addr) != nil {
		return nil
	}
	return d
}

// isRuntime says whether d is a unit of package runtime.
func isRuntime(d *dwarf.Data) bool {
	if d == nil {
		return false
	}
	e, err := d.Reader().Next()
	if err != nil || e == nil || e.Tag != dwarf.TagCompileUnit {
		return false
	}
	name, _ := e.Val(dwarf.AttrName).(string)
	return name == "runtime"
}

// offsets looks for the runtime's types in one unit after the other.
func (u *units) offsets() (Offsets, error) { return inUnits(u, OffsetsFromDWARF) }

// inUnits is what read finds in the first unit of package runtime that has it.
func inUnits[T any](u *units, read func(*dwarf.Data) (T, error)) (T, error) {
	var none T
	missing := errors.New("DWARF: no unit of package runtime")
	for {
		d, err := u.next()
		if errors.Is(err, io.EOF) {
			return none, missing
		}
		if err != nil {
			return none, err
		}
		found, err := read(d)
		if err == nil {
			return found, nil
		}
		missing = err
	}
}

// heapFromFile is HeapFromDWARF for a file.
func heapFromFile(f *objfile.File) (HeapOffsets, error) {
	u, err := openUnits(f)
	if err != nil {
		return HeapOffsets{}, err
	}
	return inUnits(u, HeapFromDWARF)
}

// offsetsFromFile is OffsetsFromDWARF for a file.
func offsetsFromFile(f *objfile.File) (Offsets, error) {
	u, err := openUnits(f)
	if err != nil {
		return Offsets{}, err
	}
	return u.offsets()
}
