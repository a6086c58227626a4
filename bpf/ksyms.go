package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// KernelNamer asks the kernel for the names of its addresses.
type KernelNamer struct{ objs ksymsObjects }

// NewKernelNamer loads what asks. Errors are those of Load.
func NewKernelNamer() (*KernelNamer, error) {
	spec, err := loadKsyms()
	if err != nil {
		return nil, fmt.Errorf("read embedded BPF programs: %w", err)
	}
	n := new(KernelNamer)
	if err := spec.LoadAndAssign(&n.objs, nil); err != nil {
		return nil, explain("load the BPF program that names kernel functions", err)
	}
	return n, nil
}

// Names returns for each address what the kernel prints for %pS: "name+0xoffset/0xsize", then " [module]" in one, or the
// address in hex where it has no symbol (Documentation/core-api/printk-formats.rst). Very long texts are cut.
func (n *KernelNamer) Names(addrs []uint64) ([]string, error) {
	var names []string
	var q ksymsNameQuery
	for part := range slices.Chunk(addrs, len(q.Addr)) {
		q = ksymsNameQuery{}
		copy(q.Addr[:], part)
		err := n.objs.Ksyms.Put(uint32(0), &q)
		if err == nil {
			_, err = n.objs.NameKsyms.Run(&ebpf.RunOptions{})
		}
		if err == nil {
			err = n.objs.Ksyms.Lookup(uint32(0), &q)
		}
		if err != nil {
			return nil, fmt.Errorf("ask the kernel for names: %w", err)
		}
		for i := range part {
			names = append(names, text(q.Text[i][:]))
		}
	}
	return names, nil
}

// text is a string of C.
func text(chars []int8) string {
	b := make([]byte, 0, len(chars))
	for _, c := range chars {
		b = append(b, byte(c))
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// Close frees everything.
func (n *KernelNamer) Close() error { return errors.Join(n.objs.Close()) }
