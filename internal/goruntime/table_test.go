package goruntime

import (
	"slices"
	"testing"
)

// TestTableMatchesDWARF compares each row with programs built by that version, on both architectures.
// A toolchain that is missing is skipped by name.
func TestTableMatchesDWARF(t *testing.T) {
	for _, tc := range toolchains() {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(tc+"/"+arch, func(t *testing.T) {
				t.Parallel()
				want := dwarfTruth(t, buildTruth(t, tc, mode{}, "GOARCH="+arch))
				want.MVDSOSP, want.MVDSOPC = 0, 0 // never from the table
				got, ok := rowFor(parseVersion(tc).minor)
				if !ok || got != want {
					t.Errorf("row %+v, DWARF says %+v", got, want)
				}
			})
		}
	}
}

func TestTableIsComplete(t *testing.T) {
	rows := offsetsTable()
	if !slices.IsSortedFunc(rows, func(a, b row) int { return a.minor - b.minor }) {
		t.Error("rows are not in order")
	}
	for i, r := range rows {
		if i > 0 && r.minor != rows[i-1].minor+1 {
			t.Errorf("no row for Go 1.%d", rows[i-1].minor+1)
		}
		if missing := r.off.missing(); !slices.Equal(missing, []string{"m.vdsoSP", "m.vdsoPC"}) {
			t.Errorf("Go 1.%d lacks %v", r.minor, missing)
		}
	}
	if want := parseVersion(newest).minor; newestRow().minor != want {
		t.Errorf("newest row is Go 1.%d, newest toolchain 1.%d: run go generate", newestRow().minor, want)
	}
}

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]release{
		"go1.22.12":                    {22, 12},
		"go1.26.8 X:jsonv2,greenteagc": {26, 8},
		"go1.21":                       {21, 0},
		"go1.28rc1":                    {28, 0},
		"go1.21-custom":                {21, 0},
		"go1.21.3-custom+fips":         {21, 3},
		"devel go1.28-abcdef Thu Nov":  {28, 0},
		"devel +0123abcd Thu Nov":      {},
		"":                             {},
		"go1.":                         {},
		"go1.999999999999999999999":    {9999, 0},
		"go2.1":                        {},
	} {
		if got := parseVersion(s); got != want {
			t.Errorf("%q: %+v, want %+v", s, got, want)
		}
	}
}

func TestLabelKind(t *testing.T) {
	for s, want := range map[string]LabelKind{
		"go1.18.10": LabelsMap, "go1.23.12": LabelsMap, "go1.24.0": LabelsSlice, "go1.27.4": LabelsSlice, "devel": LabelsNone,
	} {
		if got := parseVersion(s).labelKind(); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
