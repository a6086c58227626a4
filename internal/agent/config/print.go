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
	root := &yaml.Node{Kind: yaml.MappingNode}
	nodes := map[string]*yaml.Node{"": root}
	for _, f := range c.fields() {
		v, err := f.value.encode()
		if err != nil {
			return fmt.Errorf("print %s: %w", f.key, err)
		}
		prefix, name := "", f.key
		if i := strings.LastIndexByte(f.key, '.'); i >= 0 {
			prefix, name = f.key[:i], f.key[i+1:]
		}
		k := textNode(name)
		k.HeadComment = f.comment()
		parent := mapping(nodes, prefix)
		parent.Content = append(parent.Content, k, v)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	doc := &yaml.Node{Kind: yaml.DocumentNode, HeadComment: "# " + heading + "\n", Content: []*yaml.Node{root}}
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	return enc.Close()
}

func (f *field) comment() string {
	s := "# " + f.doc + " [" + f.def + "]"
	if f.flag != "" {
		s += "; flag --" + f.flag
	}
	return s
}

// mapping finds or makes the node of a section.
func mapping(nodes map[string]*yaml.Node, key string) *yaml.Node {
	if n := nodes[key]; n != nil {
		return n
	}
	prefix, name := "", key
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		prefix, name = key[:i], key[i+1:]
	}
	k, n := textNode(name), &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range sections() {
		if s.key == key {
			k.HeadComment = "# " + s.doc
		}
	}
	parent := mapping(nodes, prefix)
	parent.Content = append(parent.Content, k, n)
	nodes[key] = n
	return n
}
