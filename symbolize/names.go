package symbolize

import (
	"strings"
	"unicode/utf8"

	"github.com/ianlancetaylor/demangle"
)

const (
	maxName    = 4096
	maxMangled = 1024 // longer names are shown as they are: demangling can take time beyond proportion
)

// clean makes a string of a foreign file fit for a protobuf string: valid UTF-8, of bounded length.
func clean(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s[:min(len(s), maxName)], "\uFFFD") // of up to three times the length
	}
	if len(s) <= maxName {
		return s
	}
	end := maxName - len("...")
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}

// demangled is the C++ or Rust name in the short form that pprof shows (no parameters, no template
// arguments); other names stay as they are.
func demangled(symbol string) string {
	if len(symbol) > maxMangled || !strings.HasPrefix(symbol, "_Z") && !strings.HasPrefix(symbol, "_R") {
		return symbol
	}
	name, err := demangle.ToString(symbol, demangle.NoParams, demangle.NoEnclosingParams,
		demangle.NoTemplateParams, demangle.MaxLength(12))
	if err != nil || name == "" {
		return symbol
	}
	return clean(name)
}
