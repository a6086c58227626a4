package discover

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Selector is an expression that processes match or do not: terms, all of which have to be true.
//
//	exe=/srv/*/bin/* user!=root
//	namespace=shop,label.app.kubernetes.io/name=web
//	unit=nginx*.service
//	comm="my server"
//
// A term is KEY=PATTERN or KEY!=PATTERN; terms are separated by spaces or commas. The pattern has to match the whole value;
// in it "*" stands for any text (slashes too, in all keys), "?" for a character, [a-z] and [^a-z] for one of, and out of,
// ranges; a backslash takes their meaning from these characters. A pattern with spaces, commas or quotes stands in double
// quotes; in these a backslash is written before a quote. The keys:
//
//	exe        path of the executable, as the process sees it
//	comm       name of the process, at most 15 bytes
//	pid        number of the process; no pattern
//	cgroup     path of the control group
//	unit       systemd service; ".service" may be left out
//	container  name or ID of the container, or the beginning of the ID (12 digits at least)
//	pod        name of the pod
//	namespace  of the pod
//	label.KEY  Kubernetes label KEY of the pod
//	module     path of the Go module
//	user       name or number of the effective user
//
// What a process does not have matches no pattern: "pod=*" is each process in a pod, "pod!=*" each that is in none.
type Selector struct {
	text  string
	terms []term
}

type term struct {
	key, label string // label: of "label.KEY"
	pattern    string
	not        bool
}

// Keys of a selector.
const (
	keyExe       = "exe"
	keyComm      = "comm"
	keyPID       = "pid"
	keyCgroup    = "cgroup"
	keyUnit      = "unit"
	keyContainer = "container"
	keyPod       = "pod"
	keyNamespace = "namespace"
	keyModule    = "module"
	keyUser      = "user"
	labelPrefix  = "label."
)

func selectorKeys() []string {
	return []string{keyExe, keyComm, keyPID, keyCgroup, keyUnit, keyContainer, keyPod, keyNamespace, keyModule, keyUser}
}

// SelectorError says what is wrong with an expression.
type SelectorError struct {
	Expr string
	Pos  int // in bytes
	Msg  string
}

func (e *SelectorError) Error() string {
	return fmt.Sprintf("selection %q, at %q: %s", e.Expr, e.Expr[e.Pos:], e.Msg)
}

const (
	maxSelector = 16 << 10
	maxTerms    = 64
)

// ParseSelector parses an expression. Errors are *SelectorError.
func ParseSelector(expr string) (Selector, error) {
	p := selectorParser{expr: expr}
	if len(expr) > maxSelector {
		return Selector{}, &SelectorError{expr[:32], 0, fmt.Sprintf("the expression is longer than %d bytes", maxSelector)}
	}
	s := Selector{text: expr}
	for p.skip(); p.pos < len(expr); p.skip() {
		t, err := p.term()
		if err != nil {
			return Selector{}, err
		}
		if s.terms = append(s.terms, t); len(s.terms) > maxTerms {
			return Selector{}, p.fail(p.pos, "there are more than %d terms", maxTerms)
		}
	}
	if len(s.terms) == 0 {
		return Selector{}, p.fail(0, "it is empty: give KEY=PATTERN, as in exe=/srv/*")
	}
	return s, nil
}

// String is the expression as it was written.
func (s Selector) String() string { return s.text }

// UnmarshalText implements encoding.TextUnmarshaler, by which YAML and flags are decoded.
func (s *Selector) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSelector(string(b))
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.text), nil }

type selectorParser struct {
	expr string
	pos  int
}

func (p *selectorParser) fail(pos int, format string, args ...any) error {
	return &SelectorError{p.expr, min(pos, len(p.expr)), fmt.Sprintf(format, args...)}
}

const separators = " \t\n,"

func (p *selectorParser) skip() {
	for p.pos < len(p.expr) && strings.IndexByte(separators, p.expr[p.pos]) >= 0 {
		p.pos++
	}
}

func (p *selectorParser) term() (term, error) {
	start := p.pos
	word := p.expr[start:]
	if i := strings.IndexAny(word, separators+`"`); i >= 0 {
		word = word[:i]
	}
	key, _, ok := strings.Cut(word, "=")
	if !ok {
		return term{}, p.fail(start, "%q is no KEY=PATTERN or KEY!=PATTERN", word)
	}
	p.pos += len(key) + 1
	t := term{key: key}
	t.key, t.not = strings.CutSuffix(key, "!")
	if label, ok := strings.CutPrefix(t.key, labelPrefix); ok && label != "" {
		t.key, t.label = labelPrefix, label
	} else if !slices.Contains(selectorKeys(), t.key) {
		return term{}, p.fail(start, "%q is no key; there are %s, label.KEY", t.key, strings.Join(selectorKeys(), ", "))
	}
	return t, p.pattern(&t)
}

// pattern reads what is behind "=".
func (p *selectorParser) pattern(t *term) error {
	start := p.pos
	var err error
	if strings.HasPrefix(p.expr[start:], `"`) {
		t.pattern, err = p.quoted()
	} else {
		t.pattern = p.expr[start:]
		if i := strings.IndexAny(t.pattern, separators); i >= 0 {
			t.pattern = t.pattern[:i]
		}
		p.pos += len(t.pattern)
	}
	if err != nil {
		return err
	}
	return p.check(t, start)
}

func (p *selectorParser) check(t *term, start int) error {
	if t.pattern == "" {
		return p.fail(start, "the pattern is empty: * is anything, %s!=* is nothing at all", t.key)
	}
	if t.key == keyPID {
		pid, err := strconv.ParseUint(t.pattern, 10, 31)
		if err != nil {
			return p.fail(start, "%q is no process number", t.pattern)
		}
		t.pattern = strconv.FormatUint(pid, 10)
		return nil
	}
	if pos, err := checkGlob(t.pattern); err != nil {
		return p.fail(start+pos, "%v", err)
	}
	return nil
}

// quoted reads a pattern in double quotes. Backslashes stay, for the pattern, but for those before a quote.
func (p *selectorParser) quoted() (string, error) {
	start := p.pos
	var b strings.Builder
	for i := start + 1; i < len(p.expr); i++ {
		switch c := p.expr[i]; {
		case c == '"':
			p.pos = i + 1
			if p.pos < len(p.expr) && strings.IndexByte(separators, p.expr[p.pos]) < 0 {
				return "", p.fail(p.pos, "a space or comma is missing behind the quotes")
			}
			return b.String(), nil
		case c == '\\' && i+1 < len(p.expr):
			i++
			if p.expr[i] != '"' {
				b.WriteByte(c)
			}
			b.WriteByte(p.expr[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail(start, "the quotes do not end")
}

// answer is what is known of a question.
type answer int8

const (
	no answer = iota
	unknown
	yes
)

func answerOf(b bool) answer {
	if b {
		return yes
	}
	return no
}

// matches says whether all terms are true. It is no as soon as one is false, whatever the others are.
func (s *Selector) matches(k *known) answer {
	all := yes
	for i := range s.terms {
		all = min(all, s.terms[i].matches(k))
	}
	return all
}

func (t *term) matches(k *known) answer {
	has, complete := k.values(t)
	if slices.ContainsFunc(has, t.matchesValue) {
		return answerOf(!t.not)
	}
	if !complete {
		return unknown
	}
	return answerOf(t.not)
}

func (t *term) matchesValue(s string) bool {
	switch t.key {
	case keyPID:
		return s == t.pattern
	case keyContainer:
		const shortID = 12 // as runtimes print it
		if len(s) == containerIDLen && isContainerID(s) && len(t.pattern) >= shortID && strings.HasPrefix(s, t.pattern) {
			return true
		}
	case keyUnit:
		if glob(t.pattern, strings.TrimSuffix(s, ".service")) {
			return true
		}
	}
	return glob(t.pattern, s)
}

// anyMatches says whether one of the expressions is true.
func anyMatches(s []Selector, k *known) answer {
	found := no
	for i := range s {
		found = max(found, s[i].matches(k))
	}
	return found
}
