package bpf

import "testing"

// BenchmarkLoad is what a start costs: parse, relocate against the kernel's BTF, verify, attach.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		p, err := Load(Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
