package file

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func TestElement(t *testing.T) {
	long := strings.Repeat("x", 200)
	for name, want := range map[string]string{
		"":         "unknown",
		"api-v1.2": "api-v1.2",
		".":        "%2E",
		"..":       "%2E.",
		"a/b":      "a%2Fb",
		"100%":     "100%25",
		"größe":    "gr%C3%B6%C3%9Fe",
		"a\x00b":   "a%00b",
		"~":        "%7E",
		long[:100]: long[:100],
		long[:101]: long[:83] + "~",
		"☃" + long: "%E2%98%83" + long[:74] + "~",
	} {
		got := element(name, maxElement)
		if i := strings.IndexByte(want, '~'); i > 0 {
			got, want = got[:i+1], want[:i+1] // the digits are those of SHA-256: FuzzElement looks at them
		}
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if element(long+"1", maxElement) == element(long+"2", maxElement) {
		t.Error("two long names are one")
	}
}

func FuzzElement(f *testing.F) {
	for _, s := range []string{"", "api", "../..", "a/b", strings.Repeat("ü", 100), "~", "%41"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := element(s, maxElement)
		if len(e) > maxElement || e == "" || e == "." || e == ".." || strings.ContainsAny(e, "/\x00") || e[0] == '.' {
			t.Fatalf("%q: %q", s, e)
		}
		back, ok := fromElement(e)
		if !ok {
			t.Fatalf("%q: %q is not one of ours", s, e)
		}
		if head, _, cut := strings.Cut(e, "~"); cut {
			decoded, _ := fromElement(head)
			if !strings.HasPrefix(s, decoded) || len(e) < maxElement-2 {
				t.Fatalf("%q: cut to %q, %q", s, e, back)
			}
		} else if back != cmp.Or(s, "unknown") {
			t.Fatalf("%q became %q and then %q", s, e, back)
		}
		if d, ok := fromElement(s); ok && !strings.Contains(s, "~") && element(d, maxElement) != s {
			t.Fatalf("%q is taken for %q, which is written %q", s, d, element(d, maxElement))
		}
	})
}

func FuzzStoredName(f *testing.F) {
	for _, s := range []string{"cpu-20260102T030405.678Z.pb.gz", "a-b-20260102T030405.678Z-12.pb.gz", "-20260102T030405.678Z.pb.gz", "cpu-20260102T030405.678Z-1.pb.gz"} {
		f.Add(s, "12-34")
	}
	f.Fuzz(func(t *testing.T, name, process string) {
		if got, ok := parseStored(name); ok {
			e := newEntry(place{}, got, 0, 7, 0)
			if got.name() != name || e.milli() != got.milli || e.twin() != got.twin || e.kind() != 7 {
				t.Fatalf("%q: %+v, %+v", name, got, e)
			}
		}
		if p, ok := parseProcess("s", process); ok {
			e := newEntry(p, stored{}, 0, 0, 0)
			if p.dir() != "s/"+process || e.pid() != p.pid || e.start() != p.start {
				t.Fatalf("%q: %+v, %+v", process, p, e)
			}
		}
	})
}

func FuzzCountStrings(f *testing.F) {
	var b bytes.Buffer
	if err := randomProfile(1).WriteUncompressed(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := appendComments(nil, b, []string{"one", "two"})
		p, parse := profile.ParseUncompressed(b)
		if parse != nil || err != nil {
			return
		}
		q, err := profile.ParseUncompressed(slices.Concat(b, out))
		if err != nil || !slices.Equal(q.Comments, append(p.Comments, "one", "two")) {
			t.Fatalf("%v: %q", err, q.Comments)
		}
	})
}
