package discover

import (
	"errors"
	"unicode/utf8"
)

// maxGlob bounds a pattern: matching takes time proportional to its length times that of the text.
const maxGlob = 1024

var errClass = errors.New("[ without ], an empty range, or a hyphen without a backslash")

// glob says whether pattern matches all of s. "*" is any text, "/" and nothing included; "?" is any character; [a-z] and [^a-z]
// are characters of, and out of, ranges; a backslash takes their meaning from these. The pattern has been checked.
func glob(pattern, s string) bool {
	star, again := -1, 0 // where to go on if it does not match: "*" takes a byte more
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, again = p, i
			p++
			continue
		}
		if p < len(pattern) {
			if np, ni, ok := globOne(pattern, p, s, i); ok {
				p, i = np, ni
				continue
			}
		}
		if star < 0 {
			return false
		}
		again++
		p, i = star+1, again
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// globOne matches one character of s at i with what is at p, and says what is behind each.
func globOne(pattern string, p int, s string, i int) (np, ni int, ok bool) {
	r, n := utf8.DecodeRuneInString(s[i:])
	switch pattern[p] {
	case '?':
		return p + 1, i + n, true
	case '[':
		in, end, err := globClass(pattern, p, r)
		return end, i + n, in && err == nil
	case '\\':
		p++
	}
	if p == len(pattern) || pattern[p] != s[i] {
		return 0, 0, false
	}
	return p + 1, i + 1, true
}

// globClass says whether r is of the class that begins at p, and where that ends.
func globClass(pattern string, p int, r rune) (in bool, end int, err error) {
	p++
	not := p < len(pattern) && (pattern[p] == '^' || pattern[p] == '!')
	if not {
		p++
	}
	for n := 0; ; n++ {
		if p < len(pattern) && pattern[p] == ']' && n > 0 {
			return in != not, p + 1, nil
		}
		lo, np, ok := classChar(pattern, p)
		if !ok {
			return false, p, errClass
		}
		hi := lo
		if p = np; p < len(pattern) && pattern[p] == '-' {
			if hi, p, ok = classChar(pattern, p+1); !ok || hi < lo {
				return false, p, errClass
			}
		}
		in = in || lo <= r && r <= hi
	}
}

// classChar is a character of a range. A hyphen or bracket is one behind a backslash only.
func classChar(pattern string, p int) (r rune, next int, ok bool) {
	escaped := p < len(pattern) && pattern[p] == '\\'
	if escaped {
		p++
	}
	if p >= len(pattern) || !escaped && (pattern[p] == ']' || pattern[p] == '-') {
		return 0, p, false
	}
	r, n := utf8.DecodeRuneInString(pattern[p:])
	return r, p + n, true
}

// checkGlob says what is wrong with a pattern, and where.
func checkGlob(pattern string) (pos int, err error) {
	if len(pattern) > maxGlob {
		return maxGlob, errors.New("the pattern is too long")
	}
	if !utf8.ValidString(pattern) {
		return 0, errors.New("it is no UTF-8")
	}
	for p := 0; p < len(pattern); p++ {
		switch pattern[p] {
		case '\\':
			if p++; p == len(pattern) {
				return p - 1, errors.New("nothing behind the backslash")
			}
		case '[':
			_, end, err := globClass(pattern, p, 0)
			if err != nil {
				return p, err
			}
			p = end - 1
		}
	}
	return 0, nil
}
