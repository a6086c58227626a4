package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/spend"
)

// value is how a field is read and written. decode reports what is wrong, and where; then the field's value has no meaning.
type value struct {
	decode     func(n *yaml.Node, report report)
	encode     func() (*yaml.Node, error)
	bool, list bool
	keys       []field                        // of each element, where these are sections
	more       func(string) map[string]string // what an element has besides its first key if that comes from a flag; may be nil
}

// report takes a problem of a node.
type report func(n *yaml.Node, format string, args ...any)

// scalar is a value that is one word.
func scalar(parse func(string) error, format func() string) value {
	return value{
		decode: func(n *yaml.Node, report report) {
			s, err := word(n)
			if err == nil {
				err = parse(s)
			}
			if err != nil {
				report(n, "%v", err)
			}
		},
		encode: func() (*yaml.Node, error) { return &yaml.Node{Kind: yaml.ScalarNode, Value: format()}, nil },
	}
}

func word(n *yaml.Node) (string, error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		return "", errors.New("one value is wanted, not a list or a section")
	case n.Tag == "!!null":
		return "", errors.New(`there is no value: remove the key, or write "" for an empty one`)
	}
	return n.Value, nil
}

func textNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

// between refuses what is out of bounds; text writes a bound.
func between[T cmp.Ordered](v, low, high T, text func(T) string) error {
	if v < low || v > high {
		return fmt.Errorf("%s is not within %s and %s", text(v), text(low), text(high))
	}
	return nil
}

func durationValue(p *time.Duration, low, high time.Duration) value {
	return scalar(func(s string) (err error) {
		if *p, err = time.ParseDuration(s); err != nil {
			return fmt.Errorf("%q is no duration: write it as 10s, 5m or 168h", s)
		}
		return between(*p, low, high, formatDuration)
	}, func() string { return formatDuration(*p) })
}

// formatDuration writes 168h, not 168h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

type sizeUnit struct {
	name string
	size int64
}

// sizeUnits: an ending comes before those that end like it.
func sizeUnits() []sizeUnit {
	return []sizeUnit{
		{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
	}
}

func parseSize(s string) (int64, error) {
	bad := fmt.Errorf("%q is no size: write it in bytes, or as 512KiB, 100MiB or 1GiB", s)
	number, unit := s, int64(1)
	for _, u := range sizeUnits() {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = strings.TrimRight(rest, " "), u.size
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/unit {
			return 0, bad
		}
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if v := f * float64(unit); err == nil && v >= 0 && v < 1<<62 {
		return int64(v), nil
	}
	return 0, bad
}

func formatSize(n int64) string {
	for _, u := range sizeUnits() {
		if n > 0 && u.size > 1 && u.size&(u.size-1) == 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func sizeValue(p *int64, low, high int64) value {
	return scalar(func(s string) (err error) {
		if *p, err = parseSize(s); err != nil {
			return err
		}
		return between(*p, low, high, formatSize)
	}, func() string { return formatSize(*p) })
}

// intValue is a number of things, of which there is one at least.
func intValue(p *int, high int) value { return wholeValue(p, 1, high) }

// countValue is one of which there may be none.
func countValue(p *int, high int) value { return wholeValue(p, 0, high) }

func wholeValue(p *int, low, high int) value {
	return scalar(func(s string) (err error) {
		if *p, err = strconv.Atoi(s); err != nil {
			return fmt.Errorf("%q is no whole number", s)
		}
		return between(*p, low, high, strconv.Itoa)
	}, func() string { return strconv.Itoa(*p) })
}

// percentValue is a share of something, written as 1% or 1.
func percentValue(p *float64) value {
	return scalar(func(s string) (err error) {
		*p, err = spend.ParsePercent(s)
		return err
	}, func() string { return spend.FormatPercent(*p) })
}

func floatValue(p *float64, low, high float64) value {
	format := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	return scalar(func(s string) (err error) {
		if *p, err = strconv.ParseFloat(s, 64); err != nil || math.IsNaN(*p) {
			return fmt.Errorf("%q is no number", s)
		}
		return between(*p, low, high, format)
	}, func() string { return format(*p) })
}

func boolValue(p *bool) value {
	v := scalar(func(s string) error {
		if s != "true" && s != "false" {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		*p = s == "true"
		return nil
	}, func() string { return strconv.FormatBool(*p) })
	v.bool = true
	return v
}

func choiceValue(p *string, choices ...string) value {
	return scalar(func(s string) error {
		if *p = s; !slices.Contains(choices, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(choices, ", "))
		}
		return nil
	}, func() string { return *p })
}

func textValue(p *string, check func(string) error) value {
	v := scalar(func(s string) error {
		*p = s
		if check == nil || s == "" {
			return nil
		}
		return check(s)
	}, nil)
	v.encode = func() (*yaml.Node, error) { return textNode(*p), nil }
	return v
}

// words decodes a list of words.
func words(n *yaml.Node, report report, add func(string) error) {
	if n.Kind != yaml.SequenceNode {
		report(n, "a list is wanted: [a, b], or a line for each that begins with \"- \"")
		return
	}
	for _, item := range n.Content {
		s, err := word(item)
		if err == nil {
			err = add(s)
		}
		if err != nil {
			report(item, "%v", err)
		}
	}
}

func listNode[T any](list []T, text func(T) string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, v := range list {
		n.Content = append(n.Content, textNode(text(v)))
	}
	if len(list) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}

func listValue(p *[]string, check func(string) error) value {
	return value{
		decode: func(n *yaml.Node, report report) {
			*p = nil
			words(n, report, func(s string) error {
				*p = append(*p, s)
				return check(s)
			})
		},
		encode: func() (*yaml.Node, error) { return listNode(*p, func(s string) string { return s }), nil },
		list:   true,
	}
}

func selectorsValue(p *[]discover.Selector) value {
	return value{
		decode: func(n *yaml.Node, report report) {
			*p = nil
			words(n, report, func(s string) error {
				sel, err := discover.ParseSelector(s)
				*p = append(*p, sel)
				return err
			})
		},
		encode: func() (*yaml.Node, error) { return listNode(*p, discover.Selector.String), nil },
		list:   true,
	}
}

// labelName is what Prometheus, Pyroscope and Parca take without quotes.
var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

const maxLabelValue = 1 << 10 // bytes, as for labels that are found

func labelsValue(p *map[string]string) value { return mapValue(p, checkLabel) }

// mapValue is names with texts.
func mapValue(p *map[string]string, check func(name, text string) error) value {
	return value{
		decode: func(n *yaml.Node, report report) {
			*p = nil
			for key, val := range pairs(n, report) {
				s, err := word(val)
				if err == nil {
					err = check(key.Value, s)
				}
				if err != nil {
					report(key, "%s: %v", key.Value, err)
				}
				if *p == nil {
					*p = make(map[string]string)
				}
				(*p)[key.Value] = s
			}
		},
		encode: func() (*yaml.Node, error) {
			n := &yaml.Node{Kind: yaml.MappingNode}
			for _, name := range slices.Sorted(maps.Keys(*p)) {
				n.Content = append(n.Content, textNode(name), textNode((*p)[name]))
			}
			if len(*p) == 0 {
				n.Style = yaml.FlowStyle
			}
			return n, nil
		},
	}
}

func checkLabel(name, text string) error {
	switch {
	case !labelName.MatchString(name):
		return errors.New("names of labels have letters, digits and _, and do not begin with a digit")
	case strings.HasPrefix(name, model.ReservedLabelPrefix):
		return errors.New("labels that begin with __ are for relabel_configs only")
	case len(text) > maxLabelValue:
		return fmt.Errorf("the value is longer than %d bytes", maxLabelValue)
	}
	return nil
}

func relabelValue(p *[]*relabel.Config) value {
	return value{
		decode: func(n *yaml.Node, report report) {
			*p = nil
			if n.Kind != yaml.SequenceNode {
				report(n, "a list of rules is wanted")
				return
			}
			for _, item := range n.Content {
				if rule := decodeRule(item, report); rule != nil {
					*p = append(*p, rule)
				}
			}
		},
		encode: func() (*yaml.Node, error) {
			n := new(yaml.Node)
			if len(*p) == 0 {
				return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}, nil
			}
			return n, n.Encode(*p)
		},
	}
}

// decodeRule is as strict as Prometheus is with its own file.
func decodeRule(n *yaml.Node, report report) *relabel.Config {
	bad := false
	complain := func(n *yaml.Node, format string, args ...any) {
		bad = true
		report(n, format, args...)
	}
	known := ruleKeys()
	for key := range pairs(n, complain) {
		if !slices.Contains(known, key.Value) {
			complain(key, "unknown key %q; a rule has %s", key.Value, strings.Join(known, ", "))
		}
	}
	if bad {
		return nil
	}
	rule := new(relabel.Config)
	err := n.Decode(rule)
	if err == nil {
		err = rule.Validate(model.LegacyValidation)
	}
	if err != nil {
		report(n, "%s", strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "yaml: "))
		return nil
	}
	return rule
}

func ruleKeys() (keys []string) {
	for f := range reflect.TypeFor[relabel.Config]().Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "-" {
			keys = append(keys, name)
		}
	}
	return keys
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is no URL: write it as https://HOST:PORT", s)
	case u.User != nil:
		return errors.New("a URL with a password is not for this file")
	}
	return nil
}

func checkAbsolute(s string) error {
	if !filepath.IsAbs(s) {
		return fmt.Errorf("%q is no absolute path", s)
	}
	return nil
}

func checkHost(s string) error {
	if s == "" || strings.ContainsAny(s, ":/ ") {
		return fmt.Errorf("%q is no name of a host", s)
	}
	return nil
}
