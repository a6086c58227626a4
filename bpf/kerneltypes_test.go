package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func needBTF(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(vmlinuxBTF); err != nil {
		needs.Missing(t, "btf", "a kernel that describes its types: "+err.Error())
	}
}

// fieldOffset is where cilium/ebpf's own decoder has a field; path goes through structs and pointers.
func fieldOffset(t *testing.T, typ btf.Type, name string) (uint32, btf.Type) {
	t.Helper()
	var members []btf.Member
	switch s := btf.UnderlyingType(typ).(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	}
	for _, m := range members {
		if m.Name == name {
			return uint32(m.Offset), m.Type
		}
		if m.Name == "" {
			if off, typ := fieldOffset(t, m.Type, name); typ != nil {
				return uint32(m.Offset) + off, typ
			}
		}
	}
	return 0, nil
}

// TestKernelTypes holds every field of the reduced types against the library's decoding of all of the kernel's.
func TestKernelTypes(t *testing.T) {
	needBTF(t)
	full, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := loadCpu()
	if err != nil {
		t.Fatal(err)
	}
	reduced := kernelTypes(spec)
	if reduced == nil {
		t.Fatal("no reduced types")
	}
	checked := 0
	for _, name := range []string{"task_struct", "signal_struct", "thread_struct", "mm_struct", "file", "inode", "super_block"} {
		var got, want *btf.Struct
		if err := errors.Join(reduced.TypeByName(name, &got), full.TypeByName(name, &want)); err != nil {
			t.Fatal(err)
		}
		checked += compareFields(t, name, got, want)
	}
	if checked < 14 {
		t.Errorf("%d fields compared, want all that kernel.h declares", checked)
	}
}

func compareFields(t *testing.T, path string, got *btf.Struct, want btf.Type) (n int) {
	t.Helper()
	for _, m := range got.Members {
		off, typ := fieldOffset(t, want, m.Name)
		if typ == nil || uint32(m.Offset) != off {
			t.Errorf("%s.%s: at %d bits, want %d", path, m.Name, m.Offset, off)
		}
		n++
		if s, ok := m.Type.(*btf.Struct); ok && s.Name == "" {
			n += compareFields(t, path+"."+m.Name, s, typ)
		}
	}
	return n
}

// TestKernelTypesSuffice: every relocation of the programs finds its field in the reduced types.
func TestKernelTypesSuffice(t *testing.T) {
	needBTF(t)
	spec, err := loadCpu()
	if err != nil {
		t.Fatal(err)
	}
	reduced := kernelTypes(spec)
	for name, prog := range spec.Programs {
		var relos []*btf.CORERelocation
		for i := range prog.Instructions {
			if r := btf.CORERelocationMetadata(&prog.Instructions[i]); r != nil {
				relos = append(relos, r)
			}
		}
		fixups, err := btf.CORERelocate(relos, []*btf.Spec{reduced}, prog.ByteOrder, func(btf.Type) (btf.TypeID, error) { return 0, nil })
		if err != nil {
			t.Fatal(err)
		}
		flavors, poisoned := 0, 0
		for i, f := range fixups {
			poison, flavor := strings.Contains(f.String(), "poison"), strings.Contains(relos[i].String(), "___")
			switch {
			case flavor && poison: // the program asks which of them there is
				poisoned++
			case flavor:
				flavors++
			case poison:
				t.Errorf("%s: %v: %v; does wantedStruct know its struct, and is it reached from %s?", name, relos[i], &f, rootType)
			}
		}
		if poisoned > 0 && flavors < poisoned/2 {
			t.Errorf("%s: %d fields of structs that differ between kernels are there, %d are not", name, flavors, poisoned)
		}
	}
}

// smallBTF is a blob with struct a_struct { int x; struct { int y; }; }, made by the library.
func smallBTF(t testing.TB) []byte {
	t.Helper()
	i := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	inner := &btf.Struct{Size: 4, Members: []btf.Member{{Name: "y", Type: i}}}
	s := &btf.Struct{Name: "a_struct", Size: 8, Members: []btf.Member{{Name: "x", Type: i}, {Type: inner, Offset: 32}}}
	b, err := btf.NewBuilder([]btf.Type{s}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestReadBTF(t *testing.T) {
	raw := smallBTF(t)
	types, err := readBTF(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	ids := types.structs["a_struct"]
	if len(ids) != 1 {
		t.Fatalf("structs %v", types.structs)
	}
	for name, want := range map[string]uint32{"x": 0, "y": 32} {
		if bits, _, err := types.member(ids[0], name); err != nil || bits != want {
			t.Errorf("%s at %d, %v; want %d", name, bits, err, want)
		}
	}
	if _, _, err := types.member(ids[0], "z"); !errors.Is(err, errNoType) {
		t.Errorf("error %v", err)
	}
	for n := range raw {
		if _, err := readBTF(bytes.NewReader(raw[:n])); err == nil {
			t.Errorf("%d of %d bytes were accepted", n, len(raw))
		}
	}
}

// A blob costs time by its size, not by what its structs and names lead to.
func TestHostileBTFEnds(t *testing.T) {
	const members, structs = 1 << 13, 8
	b := binary.LittleEndian.AppendUint16(nil, btfMagic)
	b = append(b, 1, 0)
	size := structs * (btfTypeSize + 12*members)
	for _, n := range []int{btfHeaderSize, 0, size, size, 1 << 20} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for id := range uint32(structs) { // their members have names of 1 MiB, but the last: that is the next struct, without a name
		for _, n := range []uint32{1, btfKindStruct<<24 | members, 8} {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
		for range members - 1 {
			b = append(b, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}
		b = append(b, 0, 0, 0, 0, byte(1+(id+1)%structs), 0, 0, 0, 0, 0, 0, 0)
	}
	b = append(b, bytes.Repeat([]byte("x"), 1<<20)...)
	start := time.Now()
	types, err := readBTF(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := types.member(1, "y"); err == nil {
		t.Error("a member was found that is not there")
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func FuzzReadBTF(f *testing.F) {
	f.Add(smallBTF(f))
	f.Fuzz(func(_ *testing.T, b []byte) {
		types, err := readBTF(bytes.NewReader(b))
		if err != nil {
			return
		}
		for id := range types.offsets[:min(len(types.offsets), 64)] {
			_, _, _ = types.member(uint32(id), "y") // must end
		}
	})
}

func BenchmarkKernelTypes(b *testing.B) {
	needBTF(b)
	spec, err := loadCpu()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if kernelTypes(spec) == nil {
			b.Fatal("no reduced types")
		}
	}
}
