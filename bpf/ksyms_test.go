package bpf

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestKernelNames compares with /proc/kallsyms, where some names are of no function: ends of sections, trampolines.
func TestKernelNames(t *testing.T) {
	needs.BPF(t)
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var addrs []uint64
	mark := regexp.MustCompile("^_e|_(start|end)$|^(__pi_)?_text$") // arm64's _text is the image's header, before the code
	names := map[uint64]map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var addr uint64
		var typ, name string
		n, _ := fmt.Sscanf(lines.Text(), "%x %s %s", &addr, &typ, &name)
		if n < 3 || addr == 0 || !strings.ContainsAny(typ, "tT") {
			continue
		}
		if names[addr] == nil {
			names[addr] = map[string]bool{}
		}
		names[addr][name] = true
		if !mark.MatchString(name) && !strings.Contains(lines.Text(), "[__builtin__") {
			addrs = append(addrs, addr)
		}
	}
	n, err := NewKernelNamer()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	got, err := n.Names(addrs)
	if err != nil || len(got) != len(addrs) {
		t.Fatal(len(got), len(addrs), err)
	}
	wrong := 0
	for i, s := range got {
		if name, rest, ok := strings.Cut(s, "+0x0/0x"); !ok || !names[addrs[i]][name] {
			if wrong++; wrong < 10 {
				t.Errorf("%#x is %v, got %q %q", addrs[i], names[addrs[i]], s, rest)
			}
		}
	}
	t.Logf("%d of %d functions have another name", wrong, len(got))
	if got, err := n.Names([]uint64{addrs[0] + 1, 4096}); err != nil || !strings.Contains(got[0], "+0x1/") || got[1] != "0x1000" {
		t.Errorf("%q, %v", got, err)
	}
}

func BenchmarkKernelNamer(b *testing.B) {
	for b.Loop() {
		n, err := NewKernelNamer()
		if err != nil {
			b.Fatal(err)
		}
		_ = n.Close()
	}
}
