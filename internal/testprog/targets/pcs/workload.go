package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
	"text/template"
)

// workload uses what makes interesting tables: embedded interfaces and method values (wrappers),
// closures, defers, panics, inlining in depth, assembly, and much of the standard library.
func workload() string {
	var out bytes.Buffer
	w := embedded{Writer: &out}
	write := w.Write // a method value
	write([]byte(regexp.MustCompile("b+").ReplaceAllString("abbbc", "x")))
	var s fmt.Stringer = &wrapped{value: value{n: 3}}
	template.Must(template.New("t").Parse("{{.}}")).Execute(w, s.String())
	b, err := json.Marshal(map[string]int{"a": depth0(len(b0)), "b": recovered()})
	fmt.Fprint(w, string(b), err, sorted([]string{"z", "y"}), generic())
	return out.String()
}

type embedded struct{ io.Writer }

type value struct{ n int }

func (v value) String() string { return strings.Repeat("v", v.n) }

type wrapped struct{ value }

var b0 = []byte("depth")

func depth0(n int) int { return depth1(n+1) + depth1(n) }
func depth1(n int) int { return depth2(n*2) - depth2(n) }
func depth2(n int) int { return depth3(n) + depth3(n/2) }
func depth3(n int) int {
	if n > 1000 {
		panic("depth")
	}
	return n ^ len(b0)
}

func recovered() (n int) {
	defer func() {
		if r := recover(); r != nil {
			n = len(fmt.Sprint(r))
		}
	}()
	for i := 0; i < n+2; i++ {
		i := i
		defer func() { n += i }()
	}
	return depth0(1 << 20)
}

func sorted(s []string) []string {
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	return s
}
