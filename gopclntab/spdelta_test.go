package gopclntab

import (
	"encoding/binary"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestSPDelta compares with the canonical frame addresses that the linker writes for debuggers,
// at every pc. (That they are true is shown by the unwinder's tests, which step real programs.)
func TestSPDelta(t *testing.T) {
	builds := []testprog.Options{{Arch: "amd64"}, {Arch: "arm64"}}
	if everything() {
		for _, version := range []string{"1.18.10", "1.20.14", "1.21.13", "1.22.12", "1.23.12", "1.24.13", "1.25.7", "1.27.4"} {
			builds = append(builds, testprog.Options{Go: version, Arch: "amd64"}, testprog.Options{Go: version, Arch: "arm64"})
		}
	}
	for _, o := range builds {
		o.LDFlags = "-compressdwarf=false"
		t.Run(o.String(), func(t *testing.T) { testSPDelta(t, o) })
	}
}

func testSPDelta(t *testing.T, o testprog.Options) {
	p := buildPCs(t, o)
	tab := p.table(t)
	section := p.elf.Section(".debug_frame")
	if section == nil {
		t.Fatal("no .debug_frame")
	}
	data, err := section.Data()
	if err != nil {
		t.Fatal(err)
	}
	pushed := int64(0) // amd64: the return address lies between SP+delta and the CFA
	if o.Arch == "amd64" {
		pushed = 8
	}
	funcs, pcs, failed := 0, 0, 0
	for e := range frameEntries(t, data) {
		funcs++
		f, ok := tab.Find(e.start)
		if !ok || f.Entry != e.start {
			t.Fatalf("%#x: found %v, entry %#x", e.start, ok, f.Entry)
		}
		for _, row := range e.rows {
			want, start, end, _ := f.SPRange(row.pc)
			first, _ := f.SPDelta(start)
			last, _ := f.SPDelta(end - tab.minLC)
			if row.pc < row.end && (start > row.pc || end < row.end || first != want || last != want) {
				t.Errorf("%s: %d at %#x is said to be that of [%#x, %#x), should be of [%#x, %#x)", f.Name(), want, row.pc, start, end, row.pc, row.end)
			}
			for pc := row.pc; pc < row.end; pc += tab.minLC {
				pcs++
				if d, ok := f.SPDelta(pc); !ok || int64(d)+pushed != row.cfa {
					if failed++; failed < 10 {
						t.Errorf("%s %#x: SP delta %d, %v, want %d", f.Name(), pc, d, ok, row.cfa-pushed)
					}
				}
			}
		}
	}
	t.Logf("%d functions, %d pcs", funcs, pcs)
	if funcs < 2000 || pcs < 200_000 {
		t.Error("too few")
	}
}

// A frameEntry is an FDE of .debug_frame: the CFA's offset from SP, by pc.
type frameEntry struct {
	start uint64
	rows  []frameRow
}

type frameRow struct {
	pc, end uint64
	cfa     int64
}

// frameEntries decodes what cmd/link writes (cmd/link/internal/ld/dwarf.go, writeframes): 32-bit DWARF, one CIE.
func frameEntries(t *testing.T, data []byte) func(func(frameEntry) bool) {
	return func(yield func(frameEntry) bool) {
		le := binary.LittleEndian
		for len(data) > 4 {
			size := le.Uint32(data)
			body := data[4 : 4+size]
			data = data[4+size:]
			if le.Uint32(body) == ^uint32(0) {
				continue // the CIE; alignment factors are 1 and -4 on both architectures
			}
			start, length := le.Uint64(body[4:]), le.Uint64(body[12:])
			if !yield(frameEntry{start, frameRows(t, body[20:], start, start+length)}) {
				return
			}
		}
	}
}

// frameRows runs the instructions of an FDE.
func frameRows(t *testing.T, code []byte, pc, end uint64) []frameRow {
	var rows []frameRow
	cfa := int64(-1)
	advance := func(n uint64) {
		rows = append(rows, frameRow{pc, min(pc+n, end), cfa})
		pc += n
	}
	for len(code) > 0 {
		op := code[0]
		code = code[1:]
		switch {
		case op == 0: // nop: padding
		case op>>6 == 1: // advance_loc
			advance(uint64(op & 0x3f))
		case op == 0x02: // advance_loc1
			advance(uint64(code[0]))
			code = code[1:]
		case op == 0x03: // advance_loc2
			advance(uint64(binary.LittleEndian.Uint16(code)))
			code = code[2:]
		case op == 0x04: // advance_loc4
			advance(uint64(binary.LittleEndian.Uint32(code)))
			code = code[4:]
		case op == 0x13: // def_cfa_offset_sf
			var n int64
			n, code = sleb128(code)
			cfa = n * -4
		case op == 0x11: // offset_extended_sf: where the link register is
			_, code = sleb128(code)
			_, code = sleb128(code)
		case op == 0x07, op == 0x08: // undefined, same_value: of the link register
			_, code = sleb128(code)
		default:
			t.Fatalf("instruction %#x", op)
		}
	}
	return rows
}

func sleb128(b []byte) (n int64, rest []byte) {
	for i, c := range b {
		n |= int64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n << (64 - 7*(i+1)) >> (64 - 7*(i+1)), b[i+1:]
		}
	}
	return 0, nil
}
