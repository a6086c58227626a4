package goruntime

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/objfile"
)

// openFile opens a program as pprofd does.
func openFile(t *testing.T, path string) (*objfile.File, string) {
	t.Helper()
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := r.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f, err := objfile.Open(r, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	bi, err := f.BuildInfo()
	if err != nil {
		t.Fatal(err)
	}
	return f, bi.GoVersion
}

func checkLayout(t *testing.T, l Layout, want Offsets) {
	t.Helper()
	if l.Offsets != want {
		t.Errorf("offsets %+v\nwant %+v", l.Offsets, want)
	}
	if len(l.Missing) != 0 || l.Unproven || !strings.HasPrefix(l.Source, TableSource) {
		t.Errorf("missing %v, unproven %v, source %q", l.Missing, l.Unproven, l.Source)
	}
}

// TestFindARM64 has no live part.
func TestFindARM64(t *testing.T) {
	for _, tc := range toolchains() {
		for _, m := range []mode{{name: "exe"}, {name: "pie-stripped", args: []string{"-buildmode=pie", "-ldflags", "-s -w"}}} {
			t.Run(tc+"/"+m.name, func(t *testing.T) {
				t.Parallel()
				f, version := openFile(t, buildTruth(t, tc, m, "GOARCH=arm64"))
				l, err := Find(f, version)
				if err != nil {
					t.Fatal(err)
				}
				checkLayout(t, l, dwarfTruth(t, buildTruth(t, tc, mode{}, "GOARCH=arm64")))
				if l.HasTLS || l.TLSSlot != 0 {
					t.Errorf("TLS %d, slot %#x in a program without cgo", l.TLS, l.TLSSlot)
				}
				if l.SigtrampDelta <= 0 || l.SystemstackDelta <= 0 {
					t.Errorf("deltas %+v", l.Deltas)
				}
			})
		}
	}
}

// TestFindUnknownVersion: a newer Go version whose runtime looks like the newest row.
func TestFindUnknownVersion(t *testing.T) {
	path := buildTruth(t, newest, mode{args: []string{"-ldflags", "-s -w"}})
	want := dwarfTruth(t, buildTruth(t, newest, mode{}))
	f, _ := openFile(t, path)
	for _, version := range []string{"go1.99.1", "devel go1.99-abcdef Thu Jan 1", "devel +0123abcd Thu Jan 1"} {
		l, err := Find(f, version)
		if err != nil {
			t.Fatal(err)
		}
		if l.Offsets != want || !l.Unproven || l.Labels != LabelsSlice || len(l.Missing) != 0 {
			t.Errorf("%s: %+v, want %+v, unproven", version, l, want)
		}
	}
	f, _ = openFile(t, buildTruth(t, newest, mode{}))
	if l, err := Find(f, "go1.99"); err != nil || l.Source != "DWARF" || l.Offsets != want || l.Unproven {
		t.Errorf("with DWARF: %+v, %v", l, err)
	}
}

// TestFindConflict: a program that claims a version whose layout is another one.
func TestFindConflict(t *testing.T) {
	f, _ := openFile(t, buildTruth(t, newest, mode{args: []string{"-ldflags", "-s -w"}}))
	l, err := Find(f, "go1.21.5")
	if err != nil {
		t.Fatal(err)
	}
	missing := []string{"g.syscallsp", "g.syscallpc", "g.atomicstatus", "g.goid", "m.procid"}
	if l.Source != "code" || !slices.Equal(l.Missing, missing) || l.MCurg != 0xb8 {
		t.Errorf("layout %+v, want code's fields only, %v missing", l, missing)
	}
}

// TestFindIsFast: Find reads a bounded part of the file, however large. The Go command stands for a large program.
func TestFindIsFast(t *testing.T) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	const limit = 50 * time.Millisecond
	best := time.Hour
	for range 5 {
		f, version := openFile(t, goCommand) // caches start empty
		start := time.Now()
		if _, err := Find(f, version); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	if best > limit {
		t.Errorf("Find took %v, want at most %v", best, limit)
	}
	t.Logf("Find took %v", best)
}
