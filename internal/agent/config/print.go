package config

import (
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

const heading = "What `pprofd agent` does with these settings; the defaults are in brackets. Load it again by --config."

// Print writes the configuration as a file that says the same, with the meaning and the default of each key. There are no
// secrets in it: of these the configuration has the names of files.
func (c *Config) Print(w io.Writer) error {
	fields := c.fields()
	docs := make(map[string]string)
	for _, s := range sections() {
		docs[s.key] = "# " + s.doc
	}
	for i := range fields {
		docs[fields[i].key] = fields[i].comment()
	}
	root, err := tree(fields, func(key string) string { return docs[key] })
	if err != nil {
		return err
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	doc := &yaml.Node{Kind: yaml.DocumentNode, HeadComment: "# " + heading + "\n", Content: []*yaml.Node{root}}
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	return enc.Close()
}

// comment says what a key means; of a list of sections, what the keys of these mean.
func (f *field) comment() string {
	s := "# " + f.doc + " [" + f.def + "]"
	if f.flag != "" {
		s += "; flag --" + f.flag
	}
	for i, k := range f.value.keys {
		if i == 0 {
			s += "\n# One, or a list of them, of:"
		}
		s += "\n#   " + k.key + ": " + k.doc + " [" + k.def + "]"
	}
	return s
}

// tree writes fields as a section; comment is asked for each key and section.
func tree(fields []field, comment func(key string) string) (*yaml.Node, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	nodes := map[string]*yaml.Node{"": root}
	add := func(key string, v *yaml.Node) {
		prefix, name := split(key)
		k := textNode(name)
		k.HeadComment = comment(key)
		nodes[prefix].Content = append(nodes[prefix].Content, k, v)
	}
	for _, f := range fields {
		v, err := f.value.encode()
		if err != nil {
			return nil, fmt.Errorf("print %s: %w", f.key, err)
		}
		for i, c := range f.key { // sections that have not begun yet
			if section := f.key[:i]; c == '.' && nodes[section] == nil {
				n := &yaml.Node{Kind: yaml.MappingNode}
				add(section, n)
				nodes[section] = n
			}
		}
		add(f.key, v)
	}
	return root, nil
}

// split cuts the name off a key.
func split(key string) (prefix, name string) {
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		return key[:i], key[i+1:]
	}
	return "", key
}
