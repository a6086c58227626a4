package discover

import "testing"

func TestGoLang(t *testing.T) {
	for in, want := range map[string]string{
		"go1.26.8": "go1.26", "go1.18": "go1.18", "go1.26.8 X:loopvar": "go1.26", "devel go1.27-0123abcd Mon Nov 2": "go1.27",
		"go1.27rc1": "go1.27", "": "", "mine": "",
	} {
		if got := goLang(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestPrintableIsSafeForTerminals(t *testing.T) {
	for in, want := range map[string]string{"a b é": "a b é", "a\x1b[2Jb": `a\x1b[2Jb`, "tab\tnew\n": `tab\tnew\n`, "\xff": `\xff`} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
