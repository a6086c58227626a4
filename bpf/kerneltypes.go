package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// vmlinuxBTF is where the kernel describes its types.
const vmlinuxBTF = "/sys/kernel/btf/vmlinux"

// rootType is the kernel type that all fields which the programs read are found from.
const rootType = "task_struct"

// kernelTypes is what relocating the programs of spec needs of the kernel's types: the few structs that kernel.h declares,
// with the running kernel's offsets. The library would decode all that task_struct leads to, which takes longer than all
// else of loading together. Nil: let it; on kernels whose types are elsewhere it knows where to look.
func kernelTypes(spec *ebpf.CollectionSpec) *btf.Spec {
	f, err := os.Open(vmlinuxBTF)
	if err != nil {
		return nil
	}
	defer f.Close()
	var local *btf.Struct
	if err := spec.Types.TypeByName(rootType, &local); err != nil {
		return nil
	}
	var r io.ReaderAt = f
	if m, err := mapBTF(f); err == nil {
		r = m
		defer m.close()
	}
	types, err := readBTF(r)
	if err != nil {
		return nil
	}
	reduced, err := types.reduce(local, flavors(spec.Types))
	if err != nil {
		return nil
	}
	return reduced
}

var errNoType = errors.New("not in the kernel's types")

// flavors are members that a struct has on some kernels only, by the struct's name: those of kernel.h's "struct NAME___ANYTHING".
func flavors(types *btf.Spec) map[string][]btf.Member {
	found := make(map[string][]btf.Member)
	for t, err := range types.All() {
		if s, ok := t.(*btf.Struct); ok && err == nil {
			if name, _, flavor := strings.Cut(s.Name, "___"); flavor {
				found[name] = append(found[name], s.Members...)
			}
		}
	}
	return found
}

// reduce makes types like local, and those that it leads to, with the offsets of t's types of these names; optional are members
// that need not be there.
func (t *btfTypes) reduce(local *btf.Struct, optional map[string][]btf.Member) (*btf.Spec, error) {
	r := reducer{kernel: t, optional: optional, done: map[*btf.Struct]*btf.Struct{}}
	root, err := r.named(local)
	if err != nil {
		return nil, err
	}
	b, err := btf.NewBuilder([]btf.Type{root}, nil)
	if err != nil {
		return nil, fmt.Errorf("build reduced kernel types: %w", err)
	}
	return b.Spec()
}

type reducer struct {
	kernel   *btfTypes
	optional map[string][]btf.Member
	done     map[*btf.Struct]*btf.Struct // by local type: they lead to one another
}

// named reduces a struct that has a name in the kernel, too.
func (r *reducer) named(local *btf.Struct) (*btf.Struct, error) {
	if s := r.done[local]; s != nil {
		return s, nil
	}
	for _, id := range r.kernel.structs[local.Name] {
		s, err := r.fields(local, id)
		if errors.Is(err, errNoType) {
			continue // another of the same name may have the fields
		}
		return s, err
	}
	return nil, fmt.Errorf("struct %s: %w", local.Name, errNoType)
}

// fields gives the members of local the offsets that they have in the kernel's struct id.
func (r *reducer) fields(local *btf.Struct, id uint32) (*btf.Struct, error) {
	s := &btf.Struct{Name: local.Name, Size: local.Size}
	r.done[local] = s
	for _, m := range local.Members {
		if err := r.field(s, m, id); err != nil {
			delete(r.done, local)
			return nil, err
		}
	}
	for _, m := range r.optional[local.Name] {
		if err := r.field(s, m, id); err != nil && !errors.Is(err, errNoType) {
			delete(r.done, local)
			return nil, err
		}
	}
	return s, nil
}

// field adds m to s as it is in the kernel's struct id.
func (r *reducer) field(s *btf.Struct, m btf.Member, id uint32) error {
	bits, memberType, err := r.kernel.member(id, m.Name)
	if err != nil {
		return fmt.Errorf("struct %s: %w", s.Name, err)
	}
	m.Offset = btf.Bits(bits)
	if m.Type, err = r.typ(m.Type, memberType); err != nil {
		return err
	}
	if size, err := btf.Sizeof(m.Type); err == nil {
		s.Size = max(s.Size, bits/8+uint32(size))
	}
	s.Members = append(s.Members, m)
	return nil
}

// typ reduces the type of a member, which is id in the kernel.
func (r *reducer) typ(local btf.Type, id uint32) (btf.Type, error) {
	switch t := btf.UnderlyingType(local).(type) {
	case *btf.Struct:
		if t.Name != "" {
			return r.named(t)
		}
		return r.fields(t, id)
	case *btf.Pointer:
		to, err := r.typ(t.Target, 0)
		return &btf.Pointer{Target: to}, err
	default:
		return t, nil
	}
}
