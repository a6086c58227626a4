package profiler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

const oomLimit = 128 << 20

// TestOOM: the heap of a program that the kernel kills for lack of memory is what it was then, or shortly before; the
// profile says which of the two.
func TestOOM(t *testing.T) {
	needs.BPF(t)
	for _, version := range testprog.Versions() {
		for name, mbps := range map[string]int{"slowly": 100, "fast": 500} {
			t.Run("go"+version+" "+name, func(t *testing.T) {
				begin := filepath.Join(t.TempDir(), "begin")
				proc := testprog.StartLimited(t, oomLimit, testprog.Build(t, "leak", testprog.Options{Go: version, Strip: true}), "-begin", begin, "-mbps", fmt.Sprint(mbps))
				k := &keep{}
				m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}, Exporter: k})
				defer m.Close()
				if err := m.Add(proc.PID); err != nil {
					t.Fatal(err)
				}
				w, err := m.WatchOOM()
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				if err := os.WriteFile(begin, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if n, err := w.Await(ctx); n != 1 || err != nil {
					t.Fatal(n, err, m.Notes())
				}
				t.Logf("%d copied by the kernel side", w.copied)
				p := only(t, k)
				checkLeak(t, p, m.Notes())
				if told := strings.Join(p.Comments, "\n"); w.heaps != nil && !strings.Contains(told, "read after the kernel had chosen") {
					t.Errorf("where the kernel copies heaps none is missed: %s", told)
				}
			})
		}
	}
}

// checkLeak accepts what was read after the kill and what was read before; either must be true of the program.
func checkLeak(t *testing.T, p *profile.Profile, notes []string) {
	t.Helper()
	told := strings.Join(p.Comments, "\n")
	least, from, to := int64(0), 0.45, 0.97 // of a reading from before: how old it is depends on how busy the machine is
	switch {
	case strings.Contains(told, "read after the kernel had chosen"):
		least, from, to = oomLimit*3/5, 0.62, 0.88 // with some 250 samples; what the runtime itself uses is part of the limit
	case !strings.Contains(told, "before the kernel chose"):
		t.Errorf("the profile does not say what it holds: %s", told)
	}
	if !strings.Contains(strings.Join(notes, "\n"), "killed for lack of memory") || !strings.Contains(told, "of 128 MiB") {
		t.Errorf("notes %q, comments %q", notes, told)
	}
	large, small, all := inUse(p, "main.large"), inUse(p, "main.small"), inUse(p, "")
	t.Logf("%d MB large, %d MB small, %d MB in all; %s", large>>20, small>>20, all>>20, told)
	if all < least || all > oomLimit*13/10 {
		t.Errorf("%d MB in use, want %d to %d", all>>20, least>>20, oomLimit>>20)
	}
	if all < 16<<20 {
		return // too few samples for more
	}
	if share := float64(large) / float64(large+small); share < from || share > to {
		t.Errorf("%.0f %% in main.large, want 75 %%", 100*share)
	}
	if large+small < all*8/10 {
		t.Errorf("%d of %d bytes are in the program's functions", large+small, all)
	}
}

// inUse adds up inuse_space of the samples with a function, "" of all.
func inUse(p *profile.Profile, function string) (sum int64) {
	for _, s := range p.Sample {
		found := function == ""
		for _, l := range s.Location {
			for _, line := range l.Line {
				found = found || line.Function.Name == function
			}
		}
		if found {
			sum += s.Value[3]
		}
	}
	return sum
}

// TestNoOOM: a program that ends otherwise was not killed for lack of memory, nor was one that goes on.
func TestNoOOM(t *testing.T) {
	needs.BPF(t)
	k := &keep{}
	m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}, Exporter: k})
	defer m.Close()
	bin := testprog.Build(t, "leak", testprog.Options{})
	ends, stays := testprog.Start(t, bin, "-most", "1"), testprog.Start(t, bin, "-most", "1")
	for _, p := range []*testprog.Proc{ends, stays} {
		if err := m.Add(p.PID); err != nil {
			t.Fatal(err)
		}
	}
	w, err := m.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	go func() { time.Sleep(100 * time.Millisecond); ends.Stop() }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if n, err := w.Await(ctx); n != 0 || err != nil || len(w.targets) != 1 || len(k.profiles) > 0 {
		t.Errorf("%d killed, %v, %d left", n, err, len(w.targets))
	}
	if notes := fmt.Sprint(m.Notes()); !strings.Contains(notes, fmt.Sprintf("process %d (leak) has exited", ends.PID)) {
		t.Errorf("notes %s", notes)
	}
}

// TestOOMFallsBack: where nothing can be read any more, what was read last is told, with its age; without any, an error.
func TestOOMFallsBack(t *testing.T) {
	needs.BPF(t)
	k := &keep{}
	m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}, Exporter: k})
	defer m.Close()
	bin := testprog.Build(t, "leak", testprog.Options{})
	first, second := testprog.Start(t, bin, "-most", "16"), testprog.Start(t, bin)
	time.Sleep(500 * time.Millisecond)
	for _, p := range []*testprog.Proc{first, second} {
		if err := m.Add(p.PID); err != nil {
			t.Fatal(err)
		}
	}
	w, err := m.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	first.Stop()
	second.Stop()
	one, other := w.targets[0], w.targets[1]
	if n, err := w.victim(t.Context(), bpf.Victim{PID: one.pid, Start: one.start + 1}); n != 0 || err != nil {
		t.Errorf("another process with its PID: %d, %v", n, err)
	}
	if n, err := w.victim(t.Context(), bpf.Victim{PID: one.pid, Start: one.start}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	p := only(t, k)
	if told := strings.Join(p.Comments, "\n"); !strings.Contains(told, "before the kernel chose") || inUse(p, "main.large") < 8<<20 {
		t.Errorf("%d bytes; %s", inUse(p, "main.large"), told)
	}
	other.last, other.records = oomRead{}, goruntime.MemRecords{}
	if n, err := w.victim(t.Context(), bpf.Victim{Start: other.start}); n != 1 || err == nil || !strings.Contains(err.Error(), "could not be read") {
		t.Errorf("nothing was ever read: %d, %v", n, err)
	}
}

// TestOOMCopied: what the kernel side copies of a victim as it dies is its whole heap; here nobody reads its memory meanwhile.
func TestOOMCopied(t *testing.T) {
	needs.BPF(t)
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			begin := filepath.Join(t.TempDir(), "begin")
			proc := testprog.StartLimited(t, oomLimit, testprog.Build(t, "leak", testprog.Options{Go: version, Strip: true}), "-begin", begin, "-mbps", "300")
			k := &keep{}
			m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}, Exporter: k})
			defer m.Close()
			if err := m.Add(proc.PID); err != nil {
				t.Fatal(err)
			}
			w, err := m.WatchOOM()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if w.heaps == nil {
				needs.Missing(t, "bpf_loop", "Linux 5.17")
			}
			if err := os.WriteFile(begin, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(30 * time.Second); w.copied == 0 && time.Now().Before(end); {
				w.readCopy(w.targets[0])
			}
			if w.copied == 0 {
				t.Fatal("no heap was copied")
			}
			if err := m.exportKilled(t.Context(), w.targets[0], "copied"); err != nil {
				t.Fatal(err)
			}
			p := only(t, k)
			large, small, all := inUse(p, "main.large"), inUse(p, "main.small"), inUse(p, "")
			if share := float64(large) / float64(large+small); all < oomLimit*3/5 || all > oomLimit*13/10 || share < 0.62 || share > 0.88 {
				t.Errorf("%d MB in use, of which %d MB large and %d MB small", all>>20, large>>20, small>>20)
			}
		})
	}
}
