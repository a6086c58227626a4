package discover

import (
	"errors"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

func example() *known {
	return &known{
		facts: &facts{
			key: Proc{42, 7}, comm: "my server", exe: "/srv/shop/bin/web", user: "www-data", uid: 33,
			group:   group{path: "/system.slice/web@1.service", unit: "web@1.service", containerID: id1},
			program: &Program{Module: "github.com/acme/shop"},
		},
		container: Container{Name: "web"},
		pod:       Pod{Name: "web-0", Namespace: "shop", Labels: map[string]string{"app": "web", "app.kubernetes.io/name": "x y", "canary": ""}},
	}
}

func TestSelectors(t *testing.T) {
	bare := &known{facts: &facts{key: Proc{42, 7}, comm: "x", exe: "/x", user: "root", program: &Program{}}}
	waiting := &known{facts: example().facts, waiting: true}
	for expr, want := range map[string]struct{ example, bare, waiting answer }{
		"exe=/srv/*/bin/*":                     {yes, no, yes},
		"exe=/srv/*":                           {yes, no, yes},
		"exe!=/srv/*":                          {no, yes, no},
		"exe=/x":                               {no, yes, no},
		"exe=*":                                {yes, yes, yes},
		`comm="my server"`:                     {yes, no, yes},
		"comm=my?server":                       {yes, no, yes},
		"comm=server":                          {no, no, no},
		"pid=42":                               {yes, yes, yes},
		"pid=042":                              {yes, yes, yes},
		"pid=4":                                {no, no, no},
		"cgroup=/system.slice/*":               {yes, no, yes},
		"cgroup!=*":                            {no, yes, no},
		"unit=web*.service":                    {yes, no, yes},
		"unit=web@1":                           {yes, no, yes},
		"unit=web@2":                           {no, no, no},
		"unit!=*":                              {no, yes, no},
		"container=web":                        {yes, no, unknown},
		"container!=web":                       {no, yes, unknown},
		"container=" + id1:                     {yes, no, yes},
		"container!=" + id1:                    {no, yes, no},
		"container=" + id1[:12]:                {yes, no, yes},
		"container=" + id1[:11]:                {no, no, unknown},
		"pod=web-[0-9]":                        {yes, no, unknown},
		"pod=web-[^0-9]":                       {no, no, unknown},
		"pod=*":                                {yes, no, unknown},
		"pod!=*":                               {no, yes, unknown},
		"namespace=shop,pod=web-*":             {yes, no, unknown},
		"namespace=shop pod=db-*":              {no, no, unknown},
		"namespace=shop exe=/x":                {no, no, no},
		"label.app=web":                        {yes, no, unknown},
		"label.app.kubernetes.io/name=\"x y\"": {yes, no, unknown},
		"label.app!=web":                       {no, yes, unknown},
		"label.canary=*":                       {yes, no, unknown},
		"label.none=*":                         {no, no, unknown},
		"module=github.com/acme/*":             {yes, no, yes},
		"user=www-data":                        {yes, no, yes},
		"user=33":                              {yes, no, yes},
		"user!=root":                           {yes, no, yes},
		" ,user=33 , exe=*,, ":                 {yes, no, yes},
		`comm="my \"server"`:                   {no, no, no},
		`exe="/srv/shop/bin/\w*"`:              {yes, no, yes},
	} {
		s, err := ParseSelector(expr)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for name, c := range map[string]struct {
			k    *known
			want answer
		}{"example": {example(), want.example}, "bare": {bare, want.bare}, "waiting": {waiting, want.waiting}} {
			if got := s.matches(c.k); got != c.want {
				t.Errorf("%s, %s: %d, want %d", expr, name, got, c.want)
			}
		}
		if s.String() != expr {
			t.Errorf("%q prints as %q", expr, s)
		}
	}
}

func TestExpressionsAreOr(t *testing.T) {
	a, _ := ParseSelector("pid=1")
	b, _ := ParseSelector("pod=x")
	c, _ := ParseSelector("pid=42")
	waiting := &known{facts: example().facts, waiting: true}
	for i, s := range []struct {
		exprs []Selector
		want  answer
	}{{nil, no}, {[]Selector{a}, no}, {[]Selector{a, b}, unknown}, {[]Selector{a, b, c}, yes}} {
		if got := anyMatches(s.exprs, waiting); got != s.want {
			t.Errorf("%d: %d, want %d", i, got, s.want)
		}
	}
}

// Errors point at the place.
func TestSelectorErrors(t *testing.T) {
	for expr, want := range map[string]string{
		"":                         "",
		" , ":                      " , ",
		"exe":                      "exe",
		"exe=/a pod":               "pod",
		"exe=/a pods=x":            "pods=x",
		"exe=":                     "",
		"exe= pod=x":               " pod=x",
		"exe!pod=x":                "exe!pod=x",
		"=x":                       "=x",
		"label.=x":                 "label.=x",
		"pid=me":                   "me",
		"pid=-1":                   "-1",
		"pid=99999999999":          "99999999999",
		"exe=/a[b":                 "[b",
		"exe=/[]":                  "[]",
		"exe=/[b-a]x":              "[b-a]x",
		`exe=/a\`:                  `\`,
		`comm="a b`:                `"a b`,
		`comm="a"b`:                "b",
		`comm=""`:                  `""`,
		"comm=x exe=/a\x00 \xff=b": "\xff=b",
	} {
		_, err := ParseSelector(expr)
		var e *SelectorError
		if !errors.As(err, &e) || e.Expr[e.Pos:] != want || e.Msg == "" {
			t.Errorf("%q: %v, want %q", expr, err, want)
		}
	}
	if _, err := ParseSelector(strings.Repeat("pid=1 ", maxTerms+1)); err == nil {
		t.Error("too many terms")
	}
	if _, err := ParseSelector("exe=" + strings.Repeat("x", maxSelector)); err == nil {
		t.Error("too long an expression")
	}
	if _, err := ParseSelector("exe=" + strings.Repeat("x", maxGlob+1)); err == nil {
		t.Error("too long a pattern")
	}
	var s Selector
	if err := s.UnmarshalText([]byte("pod")); err == nil {
		t.Error("UnmarshalText takes anything")
	}
}

// TestGlobTakesWholeCharacters: for path.Match an asterisk may end within a character, so that the rest of it is two.
func TestGlobTakesWholeCharacters(t *testing.T) {
	for pattern, want := range map[string]bool{"*?": true, "**??": false, "?": true, "??": false, "*": true} {
		if glob(pattern, "㦦") != want {
			t.Errorf("%q and one character of three bytes: %v", pattern, !want)
		}
	}
}

// FuzzGlob: the oracle is path.Match, for which a slash is no character like others, and an asterisk may stand for parts of them.
func FuzzGlob(f *testing.F) {
	for _, p := range []string{"*a*b", "a?c", "[a-c]x", "[^a]", `\*`, `[\]]`, "a[b", "**", "[]a]", "[a-]", "é?"} {
		f.Add(p, "abc")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		_, bad := checkGlob(pattern)
		if strings.Contains(pattern+s, "/") || strings.Contains(pattern, "[!") || strings.Contains(pattern, "*") && len(s) != utf8.RuneCountInString(s) {
			return
		}
		want, err := path.Match(pattern, s)
		if bad != nil {
			return // it is stricter than path.Match, which does not look behind the first mismatch
		}
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		if got := glob(pattern, s); got != want {
			t.Errorf("glob(%q, %q) is %v", pattern, s, got)
		}
	})
}

func FuzzSelector(f *testing.F) {
	f.Add(`exe=/srv/*/bin/* comm="a \"b" label.app!=[a-z],pid=1`)
	f.Fuzz(func(t *testing.T, expr string) {
		s, err := ParseSelector(expr)
		var e *SelectorError
		switch {
		case err != nil && !errors.As(err, &e):
			t.Fatal(err)
		case err != nil && (e.Pos > len(e.Expr) || e.Pos < 0):
			t.Fatalf("%+v", e)
		case err == nil && len(s.terms) == 0:
			t.Fatal("no terms")
		}
		s.matches(example())
	})
}
