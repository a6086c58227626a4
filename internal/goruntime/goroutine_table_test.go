package goruntime

import (
	"debug/elf"
	"testing"
)

// TestGoroutineTableMatchesDWARF compares each row with programs built by that version, on both architectures.
func TestGoroutineTableMatchesDWARF(t *testing.T) {
	for _, tc := range toolchains() {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(tc+"/"+arch, func(t *testing.T) {
				t.Parallel()
				f, err := elf.Open(buildTruth(t, tc, mode{}, "GOARCH="+arch))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				d, err := f.DWARF()
				if err != nil {
					t.Fatal(err)
				}
				want, err := GoroutineFromDWARF(d)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range goroutineTable() {
					if r.minor == parseVersion(tc).minor && r.off != want {
						t.Errorf("row %+v, DWARF says %+v", r.off, want)
					}
				}
			})
		}
	}
}

func TestGoroutineTableIsComplete(t *testing.T) {
	rows, others := goroutineTable(), offsetsTable()
	if len(rows) != len(others) {
		t.Fatalf("%d rows beside %d: run go generate", len(rows), len(others))
	}
	for i, r := range rows {
		if r.minor != others[i].minor {
			t.Errorf("row %d is of Go 1.%d, that of the other table of Go 1.%d", i, r.minor, others[i].minor)
		}
	}
}

// TestUnknownGoroutineLayout: of a version that no table has, its DWARF says the same; without, the newest row is borrowed, and
// has to be proven.
func TestUnknownGoroutineLayout(t *testing.T) {
	path := buildTruth(t, newest, mode{})
	f, version := openFile(t, path)
	want, err := FindGoroutines(f, version)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args   []string
		source string
		proven bool
	}{
		"DWARF":    {nil, sourceDWARF, true},
		"borrowed": {[]string{"-ldflags", "-s -w"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := openFile(t, buildTruth(t, newest, mode{args: tc.args}))
			got, err := FindGoroutines(f, "go1.99.1")
			if err != nil {
				t.Fatal(err)
			}
			if got.GoroutineOffsets != want.GoroutineOffsets || got.Unproven == tc.proven || tc.source != "" && got.Source != tc.source {
				t.Errorf("%+v from %s, unproven %v, want %+v", got.GoroutineOffsets, got.Source, got.Unproven, want.GoroutineOffsets)
			}
		})
	}
}
