package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Error is one thing that is wrong.
type Error struct {
	File string // "": the command line
	Line int
	Key  string // or flag
	Msg  string
}

func (e Error) Error() string {
	s := e.Msg
	if e.Key != "" {
		s = e.Key + ": " + s
	}
	if e.File != "" {
		s = e.File + ":" + strconv.Itoa(e.Line) + ": " + s
	}
	return s
}

// Errors is all that is wrong, in the order of lines.
type Errors []Error

// Error has a line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

const maxFile = 1 << 20 // bytes

// Load reads the file path, "" for none, and sets flags, which are by the names in Flags and win over the file. What is
// wrong with the configuration is returned as Errors, all of it.
func Load(path string, flags map[string][]string) (*Config, error) {
	if path == "" {
		return Parse("", nil, flags)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("configuration %s: it is longer than %d bytes", path, maxFile)
	}
	return Parse(path, b, flags)
}

// Parse is Load for a file's text; name is for its errors.
func Parse(name string, text []byte, flags map[string][]string) (*Config, error) {
	c := new(Config)
	d := &decoder{file: name, fields: c.fields(), lines: make(map[string]int), flags: make(map[string]string)}
	d.defaults()
	d.text(text)
	d.setFlags(flags)
	c.Allocs.Enabled = c.Allocs.When == "true" || c.Allocs.When == "auto" && c.Servers()
	if len(d.errs) == 0 { // what two values say to each other is of no interest while one of them is wrong
		c.check(d)
	}
	if len(d.errs) > 0 {
		slices.SortStableFunc(d.errs, func(a, b Error) int { return cmp.Compare(a.Line, b.Line) })
		return nil, d.errs
	}
	return c, nil
}

// decoder collects errors.
type decoder struct {
	file   string
	fields []field
	lines  map[string]int    // where the file has a key
	flags  map[string]string // keys that were set by flags, and these
	errs   Errors
}

func (d *decoder) failf(line int, key, format string, args ...any) {
	d.errs = append(d.errs, Error{File: d.file, Line: line, Key: key, Msg: fmt.Sprintf(format, args...)})
}

// conflict reports what is wrong with the first of the keys that is not a default.
func (d *decoder) conflict(msg string, keys ...string) {
	for _, key := range keys {
		if flag, ok := d.flags[key]; ok {
			d.errs = append(d.errs, Error{Key: "--" + flag, Msg: msg})
			return
		}
		if line, ok := d.lines[key]; ok {
			d.failf(line, key, "%s", msg)
			return
		}
	}
	d.errs = append(d.errs, Error{Key: keys[0], Msg: msg})
}

func (d *decoder) defaults() {
	for _, f := range d.fields {
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(f.def), &n); err != nil {
			d.failf(0, f.key, "default: %v", err)
			continue
		}
		f.value.decode(n.Content[0], func(_ *yaml.Node, format string, args ...any) {
			d.failf(0, f.key, "default: "+format, args...)
		})
	}
}

var yamlLine = regexp.MustCompile(`^yaml: line ([0-9]+): `)

func (d *decoder) text(text []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return
	case err != nil:
		d.syntax(err)
		return
	}
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		d.failf(max(next.Line, 1), "", "there is a second document: one is wanted")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" { // comments only
		return
	}
	if n := alias(root); n != nil {
		d.failf(n.Line, "", "aliases (*%s) are not supported: write it out", n.Value)
		return
	}
	d.section("", root)
}

func (d *decoder) syntax(err error) {
	msg, line := err.Error(), 1
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = msg[len(m[0]):]
	}
	d.failf(line, "", "not YAML: %s", strings.TrimPrefix(msg, "yaml: "))
}

// alias finds the first one below n.
func alias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n
	}
	for _, c := range n.Content {
		if a := alias(c); a != nil {
			return a
		}
	}
	return nil
}

// pairs yields the keys and values of a section, but for keys that were there before.
func pairs(n *yaml.Node, report report) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(k, v *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			report(n, "a section is wanted: lines of KEY: VALUE")
			return
		}
		seen := make(map[string]int)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			line, again := seen[k.Value]
			switch {
			case k.Kind != yaml.ScalarNode:
				report(k, "a key is one word")
				continue
			case again:
				report(k, "%s is there already, in line %d", k.Value, line)
				continue
			}
			seen[k.Value] = k.Line
			if !yield(k, n.Content[i+1]) {
				return
			}
		}
	}
}

func (d *decoder) section(prefix string, n *yaml.Node) {
	report := func(n *yaml.Node, format string, args ...any) {
		d.failf(n.Line, strings.TrimSuffix(prefix, "."), format, args...)
	}
	for k, v := range pairs(n, report) {
		key := prefix + k.Value
		i := slices.IndexFunc(d.fields, func(f field) bool { return f.key == key })
		switch {
		case strings.Contains(k.Value, "."):
			report(k, "unknown key %q; here may be: %s", k.Value, d.below(prefix))
		case i >= 0:
			d.lines[key] = k.Line
			d.fields[i].value.decode(v, func(n *yaml.Node, format string, args ...any) { d.failf(n.Line, key, format, args...) })
		case slices.ContainsFunc(d.fields, func(f field) bool { return strings.HasPrefix(f.key, key+".") }):
			d.section(key+".", v)
		default:
			report(k, "unknown key %q; here may be: %s", k.Value, d.below(prefix))
		}
	}
}

// below lists the keys of a section.
func (d *decoder) below(prefix string) string {
	var keys []string
	for _, f := range d.fields {
		if rest, ok := strings.CutPrefix(f.key, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			if !slices.Contains(keys, name) {
				keys = append(keys, name)
			}
		}
	}
	return strings.Join(keys, ", ")
}

func (d *decoder) setFlags(flags map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		i := slices.IndexFunc(d.fields, func(f field) bool { return f.flag == name && name != "" })
		if i < 0 {
			d.errs = append(d.errs, Error{Key: "--" + name, Msg: "there is no such flag"})
			continue
		}
		d.setFlag(&d.fields[i], flags[name])
	}
}

func (d *decoder) setFlag(f *field, texts []string) {
	fail := func(_ *yaml.Node, format string, args ...any) {
		d.errs = append(d.errs, Error{Key: "--" + f.flag, Msg: fmt.Sprintf(format, args...)})
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, s := range texts {
		if !utf8.ValidString(s) {
			fail(nil, "%q is not UTF-8", s)
			return
		}
		list.Content = append(list.Content, f.value.element(s))
	}
	d.flags[f.key] = f.flag
	switch {
	case f.value.list:
		f.value.decode(list, fail)
	case len(list.Content) > 0: // the last one counts
		f.value.decode(list.Content[len(list.Content)-1], fail)
	}
}

// element is what a word of a flag stands for in the file.
func (v *value) element(s string) *yaml.Node {
	if v.more == nil {
		return textNode(s)
	}
	n := short(v.keys[0].key, textNode(s))
	more := v.more(s)
	for _, key := range slices.Sorted(maps.Keys(more)) {
		n.Content = append(n.Content, textNode(key), &yaml.Node{Kind: yaml.ScalarNode, Value: more[key]})
	}
	return n
}
