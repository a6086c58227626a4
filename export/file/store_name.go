package file

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	storeTime   = "20060102T150405.000Z"
	storeSuffix = ".pb.gz"

	maxElement = 100 // bytes of a service's directory name
	maxKind    = 32  // bytes of a kind in a file name

	maxPID   = 1<<22 - 1 // PID_MAX_LIMIT of the kernel's include/linux/threads.h, less one
	maxStart = 1<<42 - 1 // clock ticks: more than a thousand years
	maxMilli = 1<<43 - 1 // after 1970: until 2248
	maxTwin  = 255
)

// place says which directory of a Store a process's files are in.
type place struct {
	service string // as the directory is called
	pid     int
	start   uint64
}

func (p place) dir() string {
	return p.service + "/" + strconv.Itoa(p.pid) + "-" + strconv.FormatUint(p.start, 10)
}

// parseProcess reads <pid>-<start>, in the one form that place.dir writes.
func parseProcess(service, name string) (place, bool) {
	pid, start, _ := strings.Cut(name, "-")
	n, err1 := strconv.ParseUint(pid, 10, 32)
	ticks, err2 := strconv.ParseUint(start, 10, 64)
	p := place{service, int(n), ticks}
	ok := err1 == nil && err2 == nil && n <= maxPID && ticks <= maxStart && p.dir() == service+"/"+name
	return p, ok
}

// stored is what a file's name says.
type stored struct {
	kind  string
	milli int64 // start of the window, ms after 1970
	twin  int   // 2, 3, ... where the name without it was taken; else 1
}

func (f stored) name() string {
	s := f.kind + "-" + time.UnixMilli(f.milli).UTC().Format(storeTime)
	if f.twin > 1 {
		s += "-" + strconv.Itoa(f.twin)
	}
	return s + storeSuffix
}

// parseStored accepts exactly what stored.name makes.
func parseStored(name string) (f stored, ok bool) {
	rest, ok := strings.CutSuffix(name, storeSuffix)
	if !ok {
		return f, false
	}
	f.twin = 1
	if i := strings.LastIndexByte(rest, '-'); i > 0 && rest[len(rest)-1] != 'Z' {
		f.twin, _ = strconv.Atoi(rest[i+1:])
		rest = rest[:i]
	}
	i := len(rest) - len(storeTime) - 1
	if i < 1 || rest[i] != '-' {
		return f, false
	}
	t, err := time.Parse(storeTime, rest[i+1:])
	f.kind, f.milli = rest[:i], t.UnixMilli()
	ok = err == nil && f.milli >= 0 && f.milli <= maxMilli && f.twin >= 1 && f.twin <= maxTwin && f.name() == name
	return f, ok
}

// element makes one path element of at most limit bytes out of s: all but letters, digits, "_", "-" and dots that are not
// the first are percent-encoded. What is too long is cut, and ends in ~ and 16 digits of its SHA-256, so that it remains one
// of its own; no other name has a ~.
func element(s string, limit int) string {
	if s == "" {
		return "unknown"
	}
	var b strings.Builder
	cut := 0 // where the last whole character ends that leaves room for the digits
	const tail = 1 + 16
	for i := range len(s) {
		if plain(s[i]) && (i > 0 || s[i] != '.') {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
		if b.Len() <= limit-tail {
			cut = b.Len()
		}
		if b.Len() > limit {
			sum := sha256.Sum256([]byte(s))
			return b.String()[:cut] + "~" + hex.EncodeToString(sum[:8])
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// fromElement is the inverse of element; of a name that was cut it returns what is left of it, with the ~ and digits.
// ok is false for names that element does not make.
func fromElement(name string) (s string, ok bool) {
	head, tail, cut := strings.Cut(name, "~")
	var b strings.Builder
	for i := 0; i < len(head); i++ {
		c := head[i]
		switch {
		case plain(c) && (i > 0 || c != '.'):
			b.WriteByte(c)
		case c == '%' && i+2 < len(head):
			v, err := hex.DecodeString(head[i+1 : i+3])
			if err != nil {
				return "", false
			}
			b.WriteByte(v[0])
			i += 2
		default:
			return "", false
		}
	}
	if !cut {
		s = b.String()
		return s, s != "" && element(s, maxElement) == name
	}
	digits, err := hex.DecodeString(tail)
	return b.String() + "~" + tail, err == nil && len(digits) == 8 && len(name) <= maxElement
}
