package goruntime

import (
	"strconv"
	"strings"
)

// release is what a Go version string says. minor is 0 where it says nothing usable.
type release struct{ minor, patch int }

// parseVersion reads runtime.Version() strings: "go1.22.12", "go1.26.8 X:jsonv2", "go1.28rc1",
// "devel go1.28-abcdef Mon ...", "go1.21-custom". Go's own order: cmd/go/internal/gover.
func parseVersion(s string) release {
	for word := range strings.FieldsSeq(s) {
		if rest, ok := strings.CutPrefix(word, "go1."); ok {
			return parseMinor(rest)
		}
	}
	return release{}
}

// parseMinor reads "22.12", "28rc1", "28-abcdef", "21".
func parseMinor(s string) release {
	minor, rest := leadingInt(s)
	var r release
	r.minor = minor
	if rest, ok := strings.CutPrefix(rest, "."); ok {
		r.patch, _ = leadingInt(rest)
	}
	return r
}

// leadingInt reads up to four leading digits.
func leadingInt(s string) (n int, rest string) {
	i := 0
	for i < len(s) && i < 4 && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	n, _ = strconv.Atoi(s[:i]) // an empty string gives 0
	return n, s[i:]
}

// labelKind: runtime/pprof/label.go stored a map until Go 1.23 and has stored a sorted slice since Go 1.24.
func (r release) labelKind() LabelKind {
	switch {
	case r.minor >= 24:
		return LabelsSlice
	case r.minor >= 9: // labels came with Go 1.9
		return LabelsMap
	}
	return LabelsNone
}
