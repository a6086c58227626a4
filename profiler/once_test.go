package profiler

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

// addresses are those of the program's Go code, with the names of the functions, innermost first.
func addresses(p *profile.Profile) map[uint64][]string {
	all := make(map[uint64][]string)
	for _, l := range p.Location {
		if l.Mapping != p.Mapping[0] {
			continue
		}
		var list []string
		for _, line := range l.Line {
			list = append(list, line.Function.Name)
		}
		all[l.Address] = list
	}
	return all
}

// TestReadOnce: heap and allocs are what the process writes of itself, at its own addresses if that is asked for, and these have the
// names that it gives them; wherever it was loaded to.
func TestReadOnce(t *testing.T) {
	for name, o := range map[string]testprog.Options{"plain": {}, "stripped": {Strip: true}, "PIE": {PIE: true}} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "heap")
			proc := processOf(t, testprog.Start(t, testprog.Build(t, "heap", o), "-profile", file).PID)
			want := readProfile(t, file)
			m := NewMemory(MemoryConfig{})
			defer m.Close()
			for _, kind := range []string{KindHeap, KindAllocs} {
				got, err := m.Read(proc, kind, true)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(flatten(want), flatten(got.Data)); d != "" {
					t.Errorf("%s: %.3000s", kind, d)
				}
				if (kind == KindAllocs) != (got.Data.DefaultSampleType == "alloc_space") || got.Data.DurationNanos != 0 || got.StartTicks != proc.Start {
					t.Errorf("%s: default %q, duration %d", kind, got.Data.DefaultSampleType, got.Data.DurationNanos)
				}
				own := addresses(want)
				for addr, names := range addresses(got.Data) {
					if !slices.Equal(own[addr], names) {
						t.Errorf("%s: %#x is %q, to the process itself %q", kind, addr, names, own[addr])
					}
				}
			}
			var pcs []uint64
			var names []string
			for addr, list := range addresses(want) {
				pcs, names = append(pcs, addr), append(names, list[0])
			}
			got, err := m.Names(proc, append(pcs, 8, 0))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(append(names, "", ""), got); d != "" || len(pcs) < 30 {
				t.Errorf("%d addresses: %s", len(pcs), d)
			}
		})
	}
}

// TestReadOnceFails: errors say what kind of failure it is.
func TestReadOnceFails(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	defer m.Close()
	spin := processOf(t, testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60").PID)
	if _, err := m.Read(spin, KindHeap, false); !errors.Is(err, ErrNoMemoryProfile) {
		t.Errorf("a program without a memory profile: %v", err)
	}
	other := Process{PID: spin.PID, Start: spin.Start - 1}
	if _, err := m.Read(other, KindHeap, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that had the PID before: %v", err)
	}
	if _, err := m.Names(other, []uint64{1}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("names in a process that had the PID before: %v", err)
	}
	if _, err := m.Read(Process{PID: 1 << 30}, KindHeap, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}
